//! Filters on the way of a relayed stream.

use crate::chain::{Chain, ExchangeState, Piece, StreamFacts, StreamOutcome};
use crate::error::Reason;
use crate::wasm::Phase;
use std::cell::{Cell, RefCell};

/// A direction of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the endpoint.
    Up,
    Down,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    AsItIs,
    /// What is to be sent in its place was written.
    Replaced,
    /// The session ends.
    Refused,
}

/// What a relay puts the pieces of a stream through.
pub trait Pieces: std::fmt::Debug {
    /// Whether this direction's pieces are wanted at all. The answer stays what it is for the whole session.
    fn takes(&self, way: Way) -> bool;

    /// One piece, at most a scratch buffer; the last one of a stream that ended well may be empty. What replaces it is
    /// put over what `out` held.
    fn put(&self, way: Way, bytes: &[u8], last: bool, out: &mut Vec<u8>) -> Taken;
}

/// The filters of a session's chain that want its data.
pub struct Filtered<'a> {
    chain: &'a Chain,
    facts: StreamFacts<'a>,
    state: &'a RefCell<ExchangeState>,
    /// Why the session ends.
    pub refused: Cell<Option<Reason>>,
    up: bool,
    down: bool,
}

impl<'a> Filtered<'a> {
    /// None when no filter wants this session's data in any direction: it stays on the fast path.
    pub fn new(
        chain: &'a Chain,
        facts: StreamFacts<'a>,
        state: &'a RefCell<ExchangeState>,
    ) -> Option<Self> {
        let up = chain.takes_data(Phase::ClientData, facts.client);
        let down = chain.takes_data(Phase::ServerData, facts.client);
        (up || down).then_some(Self {
            chain,
            facts,
            state,
            refused: Cell::new(None),
            up,
            down,
        })
    }
}

impl Pieces for Filtered<'_> {
    fn takes(&self, way: Way) -> bool {
        match way {
            Way::Up => self.up,
            Way::Down => self.down,
        }
    }

    fn put(&self, way: Way, bytes: &[u8], last: bool, out: &mut Vec<u8>) -> Taken {
        let phase = match way {
            Way::Up => Phase::ClientData,
            Way::Down => Phase::ServerData,
        };
        let piece = Piece { phase, bytes, last };
        let mut state = self.state.borrow_mut();
        let (outcome, replaced) = self.chain.data(&mut state, &self.facts, piece, out);
        match decided(outcome) {
            Ok(()) if replaced => Taken::Replaced,
            Ok(()) => Taken::AsItIs,
            Err(reason) => {
                self.refused.set(Some(reason));
                Taken::Refused
            }
        }
    }
}

impl std::fmt::Debug for Filtered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filtered").finish_non_exhaustive()
    }
}

pub(super) fn decided(outcome: StreamOutcome) -> Result<(), Reason> {
    match outcome {
        StreamOutcome::Continue => Ok(()),
        StreamOutcome::Drop => Err(Reason::FilterDrop),
        StreamOutcome::Reset => Err(Reason::FilterReset),
        // The rules of these phases have no suspending.
        StreamOutcome::Suspend(_) | StreamOutcome::Fault { .. } => Err(Reason::FilterFault),
    }
}
