//! The phases of a connection: accepted, ClientHello read, first bytes there.

use super::apply;
use super::facts::StreamFacts;
use super::http::{Chain, Watch};
use super::predicate::Subject;
use super::slot::Answer;
use super::state::{ExchangeState, StreamOutcome};
use crate::wasm::{Fact, Kind, Phase, Shown};

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
        let subject = Subject {
            head: None,
            client: facts.client,
        };
        let mut watch: Option<Watch> = None;
        let mut outcome = StreamOutcome::Continue;
        for (link, part) in self.links.iter().zip(&mut state.parts) {
            let plan = link.slot.plan();
            if !plan.wants(phase) {
                continue;
            }
            match link.slot.matches(phase, &subject) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(kind) => {
                    outcome = StreamOutcome::Fault {
                        filter: link.slot.filter().name().clone(),
                        kind,
                    };
                    break;
                }
            }
            part.matched = true;
            let watch = watch.get_or_insert_with(Watch::start);
            let mut told = facts.facts();
            told.state = part.state;
            told.show(plan.facts);
            if phase == Phase::FirstBytes {
                told.set(
                    Fact::FirstBytes,
                    &bytes[..bytes.len().min(plan.first_bytes)],
                );
            }
            let answer = link.slot.call(phase, &told, Shown::NOTHING);
            watch.lap(&link.slot);
            let verdict = match answer {
                Ok(Answer::Verdict(verdict)) => verdict,
                Ok(Answer::Bypassed) => continue,
                Err(kind) => {
                    outcome = StreamOutcome::Fault {
                        filter: link.slot.filter().name().clone(),
                        kind,
                    };
                    break;
                }
            };
            match verdict.kind {
                Kind::Drop => outcome = StreamOutcome::Drop,
                Kind::Reset => outcome = StreamOutcome::Reset,
                // A reply is refused by the reader in these phases.
                Kind::Next | Kind::Reply | Kind::Suspend => {
                    apply::stream(&verdict, &mut state.route, &link.pools, &mut part.state);
                    continue;
                }
            }
            break;
        }
        if let Some(watch) = watch {
            state.filter_time += watch.total();
        }
        outcome
    }
}
