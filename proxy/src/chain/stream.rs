//! The phases of a connection: accepted, ClientHello read, first bytes there.

use super::apply;
use super::facts::StreamFacts;
use super::link::{Chain, Link, Stopwatch};
use super::outcome::StreamOutcome;
use super::predicate::Subject;
use super::slot::Answer;
use super::state::{ExchangeState, Part, Route};
use super::suspension::{Suspender, Suspension};
use crate::wasm::{EffectResult, Fact, FaultKind, Kind, Phase, Shown, flags_of};

impl Chain {
    /// A connection was accepted. Of a predicate only tests of the client can match: there is no head.
    pub fn connect(&self, state: &mut ExchangeState, facts: &StreamFacts<'_>) -> StreamOutcome {
        self.stream(Phase::Connect, state, facts, &[])
    }

    /// The ClientHello was read.
    pub fn client_hello(
        &self,
        state: &mut ExchangeState,
        facts: &StreamFacts<'_>,
    ) -> StreamOutcome {
        self.stream(Phase::ClientHello, state, facts, &[])
    }

    /// The first bytes are there, or as many as will come. Each filter sees as many as it asked for at most.
    pub fn first_bytes_seen(
        &self,
        state: &mut ExchangeState,
        facts: &StreamFacts<'_>,
        bytes: &[u8],
    ) -> StreamOutcome {
        self.stream(Phase::FirstBytes, state, facts, bytes)
    }

    /// Goes on with a phase that answered [`StreamOutcome::Suspend`]. `facts` and `bytes` are those of the phase.
    pub fn resume_stream(
        &self,
        state: &mut ExchangeState,
        facts: &StreamFacts<'_>,
        bytes: &[u8],
        mut suspension: Suspension,
        results: &[EffectResult],
    ) -> StreamOutcome {
        let at = suspension.at();
        let (Some(link), Some(part)) = (self.links.get(at), state.parts.get_mut(at)) else {
            return StreamOutcome::Continue;
        };
        state.filter_wait += suspension.waited();
        let mut watch = Stopwatch::start();
        let answer = suspension.resume(&mut part.own, part.state, results, Shown::NOTHING);
        watch.lap(&link.slot);
        let phase = suspension.phase();
        let by = suspension.suspender(link, part);
        match decided(answer, by, part, &mut state.route) {
            Some(outcome) => {
                state.filter_time += watch.total();
                outcome
            }
            None => self.stream_from(at + 1, Some(watch), phase, state, facts, bytes),
        }
    }

    fn stream(
        &self,
        phase: Phase,
        state: &mut ExchangeState,
        facts: &StreamFacts<'_>,
        bytes: &[u8],
    ) -> StreamOutcome {
        if !self.wants(phase) {
            return StreamOutcome::Continue;
        }
        if state.parts.len() != self.links.len() {
            state.begin(self.links.len());
        }
        self.stream_from(0, None, phase, state, facts, bytes)
    }

    /// Asks the filters from number `from` on.
    fn stream_from(
        &self,
        from: usize,
        mut watch: Option<Stopwatch>,
        phase: Phase,
        state: &mut ExchangeState,
        facts: &StreamFacts<'_>,
        bytes: &[u8],
    ) -> StreamOutcome {
        let subject = Subject {
            head: None,
            client: facts.client,
        };
        let mut outcome = StreamOutcome::Continue;
        let all = self.links.iter().zip(&mut state.parts).enumerate();
        for (at, (link, part)) in all.skip(from) {
            let plan = link.slot.plan();
            if !plan.wants(phase) {
                continue;
            }
            match link.slot.matches(phase, &subject) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(kind) => {
                    outcome = fault(link, kind);
                    break;
                }
            }
            part.matched = true;
            let watch = watch.get_or_insert_with(Stopwatch::start);
            let mut told = facts.facts();
            told.state = part.state;
            told.show(plan.facts);
            if phase == Phase::FirstBytes {
                told.set(
                    Fact::FirstBytes,
                    &bytes[..bytes.len().min(plan.first_bytes)],
                );
            }
            let answer = link.slot.call(&mut part.own, phase, &told, Shown::NOTHING);
            watch.lap(&link.slot);
            let by = Suspender {
                link,
                phase,
                at,
                serial: link.slot.serial(&part.own),
                flags: flags_of(&told),
                round: 0,
            };
            if let Some(ended) = decided(answer, by, part, &mut state.route) {
                outcome = ended;
                break;
            }
        }
        if let Some(watch) = watch {
            state.filter_time += watch.total();
        }
        outcome
    }
}

/// What the answer of one filter means; none: the next filter is asked.
fn decided(
    answer: Result<Answer, FaultKind>,
    by: Suspender<'_>,
    part: &mut Part,
    route: &mut Route,
) -> Option<StreamOutcome> {
    let verdict = match answer {
        Ok(Answer::Verdict(verdict)) => verdict,
        Ok(Answer::Bypassed) => return None,
        Err(kind) => return Some(fault(by.link, kind)),
    };
    match verdict.kind {
        Kind::Drop => return Some(StreamOutcome::Drop),
        Kind::Reset => return Some(StreamOutcome::Reset),
        // A reply is refused by the reader in these phases.
        Kind::Next | Kind::Reply => {
            apply::stream(&verdict, route, &by.link.pools, &mut part.state);
        }
        Kind::Suspend => match Suspension::begin(by, verdict, &mut part.state) {
            Ok(Ok(suspension)) => return Some(StreamOutcome::Suspend(suspension)),
            Ok(Err(_)) => {}
            Err(kind) => return Some(fault(by.link, kind)),
        },
    }
    None
}

fn fault(link: &Link, kind: FaultKind) -> StreamOutcome {
    StreamOutcome::Fault {
        filter: link.slot.filter().name().clone(),
        kind,
    }
}
