//! A call that waits for effects: what was asked for, and the way back into the instance that waits.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::apply;
use super::filter::Filter;
use super::link::Link;
use super::own::PrivateInstance;
use super::slot::{Answer, Slot};
use super::state::Part;
use crate::wasm::{
    Call, Effect, EffectError, EffectResult, Fault, FaultKind, Op, Phase, Resumed, Shown, Verdict,
    pack_results,
};

/// How often one call may suspend before it has to decide.
pub const ROUNDS_MAX: u32 = 64;

/// What a filter suspended for. Whoever has it performs the effects and hands their results to the chain's `resume_…` of
/// the phase. Dropped without that, the effects count as cancelled, and the filter is told so.
pub struct Suspension {
    link: Link,
    phase: Phase,
    /// Place of the filter in its chain.
    at: usize,
    /// Holds the effects.
    verdict: Verdict,
    resumed: Resumed,
    /// Of the instance that waits.
    serial: u64,
    round: u32,
    began: Instant,
    /// What a filter called earlier in the response phase replied, so far.
    pub(super) body: Option<Bytes>,
    /// It is counted as waiting.
    seated: bool,
    settled: bool,
}

/// The call that suspends, as its phase knows it.
#[derive(Clone, Copy)]
pub(super) struct Suspender<'a> {
    pub(super) link: &'a Link,
    pub(super) phase: Phase,
    pub(super) at: usize,
    /// Of the instance that was called.
    pub(super) serial: u64,
    /// The header's, as the call was shown them.
    pub(super) flags: u16,
    /// How often it suspended before.
    pub(super) round: u32,
}

impl Suspension {
    /// Begins to wait, with `state` as the verdict leaves it. One that may not wait is cancelled at once, and is a fault: the
    /// policy says what comes of it.
    pub(super) fn begin(
        by: Suspender<'_>,
        verdict: Verdict,
        state: &mut u64,
    ) -> Result<Result<Box<Self>, Answer>, FaultKind> {
        apply::state(&verdict, state);
        let slot = &by.link.slot;
        let token = verdict.ops().fold(0, |token, op| match op {
            Op::Token(token) => token,
            _ => token,
        });
        let seated = slot.seat();
        let suspension = Box::new(Self {
            link: by.link.clone(),
            phase: by.phase,
            at: by.at,
            verdict,
            resumed: Resumed {
                token,
                state: *state,
                flags: by.flags,
            },
            serial: by.serial,
            round: by.round + 1,
            began: Instant::now(),
            body: None,
            seated,
            settled: false,
        });
        let refused = if !seated {
            format!(
                "{} of its calls are suspended, as many as `limits.suspends` lets it have",
                slot.filter().config().limits.suspends
            )
        } else if suspension.round > ROUNDS_MAX {
            format!("one call suspends more than {ROUNDS_MAX} times")
        } else {
            return Ok(Ok(suspension));
        };
        drop(suspension);
        let fault = Fault::new(FaultKind::Suspends, refused);
        slot.failed(by.phase, &fault).map(Err)
    }

    pub fn filter(&self) -> &Arc<Filter> {
        self.slot().filter()
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What is to be performed, all at the same time; one to sixteen.
    pub fn effects(&self) -> impl Iterator<Item = Effect<'_>> {
        self.verdict.ops().filter_map(|op| match op {
            Op::Effect(effect) => Some(effect),
            _ => None,
        })
    }

    /// The pool of one of the calls, as index into those of the generation that the chain is of.
    pub fn pool(&self, call: &Call<'_>) -> Option<usize> {
        self.link.pools.get(call.pool).copied()
    }

    /// How long it has waited.
    pub fn waited(&self) -> Duration {
        self.began.elapsed()
    }

    /// The place of its filter in the chain.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What a further suspension of the same call goes on from.
    pub(super) fn suspender<'a>(&self, link: &'a Link, part: &Part) -> Suspender<'a> {
        Suspender {
            link,
            phase: self.phase,
            at: self.at,
            serial: link.slot.serial(&part.own),
            flags: self.resumed.flags,
            round: self.round,
        }
    }

    /// Hands the results over; what comes back is what the phase's own call would. `state` is the filter's as it is now.
    pub(super) fn resume(
        &mut self,
        own: &mut PrivateInstance,
        state: u64,
        results: &[EffectResult],
        shown: Shown<'_>,
    ) -> Result<Answer, FaultKind> {
        self.settled = true;
        self.unseat();
        let resumed = Resumed {
            state,
            ..self.resumed
        };
        let block = pack_results(resumed, results);
        self.slot()
            .resume(own, self.phase, self.serial, &block, shown)
    }

    fn slot(&self) -> &Rc<Slot> {
        &self.link.slot
    }

    fn unseat(&mut self) {
        if std::mem::take(&mut self.seated) {
            self.slot().unseat();
        }
    }
}

impl Drop for Suspension {
    fn drop(&mut self) {
        self.unseat();
        if self.settled {
            return;
        }
        let cancelled = EffectResult::Failed(EffectError::Cancelled, "".into());
        let results = std::iter::repeat_n(&cancelled, self.effects().count());
        let block = pack_results(self.resumed, results);
        self.slot().cancel(self.phase, self.serial, &block);
    }
}

impl PartialEq for Suspension {
    /// There is one of each.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Suspension {}

impl std::fmt::Debug for Suspension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suspension")
            .field("filter", self.filter())
            .field("phase", &self.phase)
            .field("effects", &self.effects().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
