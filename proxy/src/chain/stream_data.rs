//! The pieces of a session's stream: each goes through the filters that want them, in order from the client and reversed
//! from the endpoint.

use std::net::IpAddr;

use super::facts::StreamFacts;
use super::link::{Chain, Link, Stopwatch};
use super::outcome::StreamOutcome;
use super::predicate::Subject;
use super::slot::Answer;
use super::state::{ExchangeState, Part};
use crate::wasm::{Fact, Kind, Op, Phase, Shown};

/// A piece of one direction's stream.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// [`Phase::ClientData`] or [`Phase::ServerData`].
    pub phase: Phase,
    pub bytes: &'a [u8],
    /// Nothing follows.
    pub last: bool,
}

impl Chain {
    /// Whether some filter takes this direction's pieces for this client. One whose predicate cannot be evaluated does:
    /// its first piece is a fault.
    pub fn takes_data(&self, phase: Phase, client: IpAddr) -> bool {
        let subject = Subject { head: None, client };
        let takes = |link: &Link| {
            let plan = link.slot.plan();
            plan.wants(phase) && !matches!(plan.predicate.matches(&subject), Ok(false))
        };
        self.wants(phase) && self.links.iter().any(takes)
    }

    /// Puts one piece through the filters. `out` is overwritten with what is to be sent in its place, and is left alone
    /// when that is the piece itself: then the answer's second part is false.
    pub fn data(
        &self,
        state: &mut ExchangeState,
        facts: &StreamFacts<'_>,
        piece: Piece<'_>,
        out: &mut Vec<u8>,
    ) -> (StreamOutcome, bool) {
        if state.parts.len() != self.links.len() {
            state.begin(self.links.len());
        }
        let mut through = Through {
            facts,
            piece,
            replaced: None,
            watch: Stopwatch::start(),
        };
        let mut parts = self.links.iter().zip(&mut state.parts);
        let mut outcome = StreamOutcome::Continue;
        loop {
            let next = match piece.phase {
                Phase::ServerData => parts.next_back(),
                _ => parts.next(),
            };
            let Some((link, part)) = next else { break };
            outcome = through.filter(link, part);
            if outcome != StreamOutcome::Continue {
                break;
            }
        }
        state.filter_time += through.watch.total();
        let replaced = match through.replaced {
            Some(bytes) => {
                *out = bytes;
                true
            }
            None => false,
        };
        (outcome, replaced)
    }
}

/// One piece on its way through a chain.
struct Through<'a> {
    facts: &'a StreamFacts<'a>,
    piece: Piece<'a>,
    /// What a filter put in its place.
    replaced: Option<Vec<u8>>,
    watch: Stopwatch,
}

impl Through<'_> {
    fn filter(&mut self, link: &Link, part: &mut Part) -> StreamOutcome {
        let Piece { phase, last, bytes } = self.piece;
        if !link.slot.plan().wants(phase) {
            return StreamOutcome::Continue;
        }
        let fault = |kind| StreamOutcome::Fault {
            filter: link.slot.filter().name().clone(),
            kind,
        };
        let subject = Subject {
            head: None,
            client: self.facts.client,
        };
        match link.slot.matches(phase, &subject) {
            Ok(true) => {}
            Ok(false) => return StreamOutcome::Continue,
            Err(kind) => return fault(kind),
        }
        let bytes = self.replaced.as_deref().unwrap_or(bytes);
        if bytes.is_empty() && !last {
            // A filter before it swallowed the piece.
            return StreamOutcome::Continue;
        }
        let mut told = self.facts.facts();
        told.state = part.state;
        told.last = last;
        told.set(Fact::Piece, bytes);
        let answer = link.slot.call(&mut part.own, phase, &told, Shown::NOTHING);
        self.watch.lap(&link.slot);
        let verdict = match answer {
            Ok(Answer::Verdict(verdict)) => verdict,
            Ok(Answer::Bypassed) => return StreamOutcome::Continue,
            Err(kind) => return fault(kind),
        };
        match verdict.kind {
            Kind::Drop => return StreamOutcome::Drop,
            Kind::Reset => return StreamOutcome::Reset,
            // Reply is refused by the reader in these phases, suspend by the slot.
            Kind::Next | Kind::Reply | Kind::Suspend => {}
        }
        for op in verdict.ops() {
            match op {
                Op::State(value) => part.state = value,
                Op::Body(bytes) => self.replaced = Some(bytes.to_vec()),
                _ => {}
            }
        }
        StreamOutcome::Continue
    }
}
