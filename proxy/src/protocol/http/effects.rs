//! What a filter may have done while its exchange waits: operations on its store, calls, sleep.

use super::call::{CallError, CallRequest, CallResponse, Caller, Calling};
use crate::store::{Handle, StoreAnswer, StoreError, StoreOp};
use crate::upstream::Pool;
use smallvec::SmallVec;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Effects of one answer.
pub const EFFECTS_MAX: usize = 16;
pub const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Something that is done for a filter.
#[derive(Debug, Clone)]
pub enum Effect<'a> {
    Store(StoreOp<'a>),
    Call {
        pool: Arc<Pool>,
        request: Box<CallRequest>,
    },
    /// At most [`SLEEP_MAX`].
    Sleep(Duration),
}

/// What came of an effect.
#[derive(Debug, Clone)]
pub enum EffectResult {
    Store(Result<StoreAnswer, StoreError>),
    Call(Result<CallResponse, CallError>),
    Slept,
    /// It was not begun: a longer sleep than is allowed, or more effects than [`EFFECTS_MAX`].
    Refused,
}

pub type Effects<'a> = SmallVec<[Effect<'a>; 4]>;
pub type EffectResults = SmallVec<[EffectResult; 4]>;

/// Begins all `effects` in order and waits until each has its result; results lie in the same order. What can be done
/// without waiting is done in order within the first poll. Dropping the future ends what still runs. `store` is the
/// filter's.
pub async fn perform(caller: &Caller<'_>, store: &Handle, effects: Effects<'_>) -> EffectResults {
    let mut results = EffectResults::with_capacity(effects.len());
    let mut running: SmallVec<[Running<'_>; 4]> = SmallVec::new();
    for (index, effect) in effects.into_iter().enumerate() {
        if index >= EFFECTS_MAX {
            results.push(EffectResult::Refused);
            continue;
        }
        match begin(caller, store, effect) {
            Begun::Done(result) => results.push(result),
            Begun::Running(work) => {
                // Its result takes this place.
                results.push(EffectResult::Refused);
                running.push(Running { index, work });
            }
        }
    }
    if !running.is_empty() {
        std::future::poll_fn(|cx| {
            running.retain(|each| match each.work.poll(cx) {
                Poll::Ready(result) => {
                    if let Some(place) = results.get_mut(each.index) {
                        *place = result;
                    }
                    false
                }
                Poll::Pending => true,
            });
            match running.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
    results
}

enum Work<'a> {
    Call(Calling<'a>),
    Other(Pin<Box<dyn Future<Output = EffectResult> + 'a>>),
}

impl Work<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EffectResult> {
        match self {
            Work::Call(calling) => calling.as_mut().poll(cx).map(EffectResult::Call),
            Work::Other(work) => work.as_mut().poll(cx),
        }
    }
}

enum Begun<'a> {
    Done(EffectResult),
    Running(Work<'a>),
}

/// An effect that needs waiting for.
struct Running<'a> {
    /// Of its result.
    index: usize,
    work: Work<'a>,
}

fn begin<'a>(caller: &'a Caller<'a>, store: &'a Handle, effect: Effect<'a>) -> Begun<'a> {
    match effect {
        Effect::Store(op) => match store.at_once(&op) {
            Some(result) => Begun::Done(EffectResult::Store(result)),
            None => Begun::Running(Work::Other(Box::pin(async move {
                EffectResult::Store(store.run(&op).await)
            }))),
        },
        Effect::Call { pool, request } => {
            Begun::Running(Work::Call((caller.make)(caller, pool, request)))
        }
        Effect::Sleep(time) if time > SLEEP_MAX => Begun::Done(EffectResult::Refused),
        Effect::Sleep(time) if time.is_zero() => Begun::Done(EffectResult::Slept),
        Effect::Sleep(time) => Begun::Running(Work::Other(Box::pin(async move {
            tokio::time::sleep(time).await;
            EffectResult::Slept
        }))),
    }
}
