//! Calls without an exchange, at the interval of a filter's plan.

use super::link::{Chain, Link, Stopwatch};
use super::slot::{Answer, Slot};
use super::state::{ExchangeState, Part};
use super::suspension::{Suspender, Suspension};
use crate::wasm::{EffectResult, Facts, FaultKind, Kind, Phase, Shown};

impl Slot {
    /// Milliseconds between two ticks, when the filter wants some and this worker is the one of the process that gives
    /// them to it.
    pub fn tick_ms(&self) -> Option<u32> {
        let ms = self.plan().tick_ms;
        (ms > 0 && self.is_elected()).then_some(ms)
    }
}

impl Chain {
    /// One tick of the filter at a place of the chain, with a state of its own. `Some` when it waits for effects. A fault is
    /// counted, told, and costs the instance, as in any phase; there is no exchange to fail.
    pub fn tick(&self, state: &mut ExchangeState, at: usize) -> Option<Box<Suspension>> {
        state.begin(self.links.len());
        let (link, part) = (self.links.get(at)?, state.parts.get_mut(at)?);
        let mut watch = Stopwatch::start();
        let slot = &link.slot;
        let answer = slot.call(
            &mut part.own,
            Phase::Tick,
            &Facts::default(),
            Shown::NOTHING,
        );
        watch.lap(slot);
        let by = Suspender {
            link,
            phase: Phase::Tick,
            at,
            serial: slot.serial(&part.own),
            flags: 0,
            round: 0,
        };
        waits(answer, by)
    }

    /// Goes on with a tick that waited: `results` has one for each effect, in order.
    pub fn resume_tick(
        &self,
        state: &mut ExchangeState,
        mut suspension: Suspension,
        results: &[EffectResult],
    ) -> Option<Box<Suspension>> {
        let at = suspension.at();
        let (link, part): (&Link, &mut Part) = (self.links.get(at)?, state.parts.get_mut(at)?);
        let mut watch = Stopwatch::start();
        let answer = suspension.resume(&mut part.own, 0, results, Shown::NOTHING);
        watch.lap(&link.slot);
        waits(answer, suspension.suspender(link, part))
    }
}

fn waits(answer: Result<Answer, FaultKind>, by: Suspender<'_>) -> Option<Box<Suspension>> {
    match answer {
        Ok(Answer::Verdict(verdict)) if verdict.kind == Kind::Suspend => {
            Suspension::begin(by, verdict, &mut 0).ok()?.ok()
        }
        _ => None,
    }
}
