//! The effects of a suspended call, performed side by side while nothing else of the exchange or session moves.

use crate::chain::Suspension;
use crate::generation::Service;
use crate::wasm::{Effect, EffectError, EffectResult};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// One effect under way. Dropped, it is not waited for any more; whether it was done is not known then.
type Running<'a> = Pin<Box<dyn Future<Output = EffectResult> + 'a>>;

/// All effects of one suspended call.
pub struct Work<'a> {
    effects: Vec<State<'a>>,
}

enum State<'a> {
    Running(Running<'a>),
    Done(EffectResult),
}

impl<'a> Work<'a> {
    /// Begins them. What needs no waiting is done here.
    pub fn begin(service: &'a Rc<Service>, suspension: &'a Suspension) -> Self {
        let effects = suspension.effects();
        Self {
            effects: effects
                .map(|effect| begin(service, suspension, effect))
                .collect(),
        }
    }

    /// Ready with the results, in order, once all are there. Not to be polled again then.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<EffectResult>> {
        let mut pending = false;
        for state in &mut self.effects {
            if let State::Running(running) = state {
                match running.as_mut().poll(cx) {
                    Poll::Ready(result) => *state = State::Done(result),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return Poll::Pending;
        }
        let done = self.effects.drain(..).filter_map(|state| match state {
            State::Done(result) => Some(result),
            State::Running(_) => None,
        });
        Poll::Ready(done.collect())
    }
}

/// For callers that know nothing of HTTP.
pub fn perform<'a>(
    service: &'a Rc<Service>,
    suspension: &'a Suspension,
) -> Pin<Box<dyn Future<Output = Vec<EffectResult>> + 'a>> {
    let mut work = Work::begin(service, suspension);
    Box::pin(std::future::poll_fn(move |cx| work.poll(cx)))
}

fn begin<'a>(
    _service: &'a Rc<Service>,
    _suspension: &'a Suspension,
    effect: Effect<'a>,
) -> State<'a> {
    match effect {
        Effect::Sleep { ms: 0 } => State::Done(EffectResult::Done),
        Effect::Sleep { ms } => State::Running(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(ms.into())).await;
            EffectResult::Done
        })),
        _ => State::Done(EffectResult::Failed(
            EffectError::Unavailable,
            "not here".into(),
        )),
    }
}
