//! Filters in order: who is called, what their verdicts do, what happens when they fail.
//!
//! A [`Filter`] is one configured filter, made on the control thread and shared by all workers. A [`Slot`] is one
//! worker's use of it and holds its instance; a [`Chain`] is a listener's slots in order, with the pools of one
//! generation. An exchange carries an [`ExchangeState`] through the phases of one chain.
//!
//! Must not know: sockets, HTTP framing, pools beyond their index.

mod apply;
mod backoff;
mod body;
mod counters;
mod cpu;
mod facts;
mod filter;
mod glob;
mod grants;
mod handover;
mod http;
mod link;
mod middleware;
mod outcome;
mod own;
mod plan;
mod predicate;
mod problem;
mod refusal;
mod seats;
mod slot;
mod slots;
mod state;
mod stream;
mod stream_data;
mod suspension;
mod tick;

#[cfg(test)]
mod tests;

pub use body::{BodyPiece, BodyStage, Made, Message};
pub use counters::{Counts, VerdictKind};
pub use facts::{LogFacts, RequestFacts, ResponseFacts, StreamFacts};
pub use filter::{Filter, Refill};
pub use link::{Chain, Link};
pub use middleware::{Middleware, Passage};
pub use outcome::{Outcome, StreamOutcome};
pub use plan::{CheckedPlan, FIRST_BYTES_MAX};
pub use predicate::{Predicate, PredicateError, Subject};
pub use slot::Slot;
pub use slots::Slots;
pub use state::{ExchangeState, Reply, Route};
pub use stream_data::Piece;
pub use suspension::Suspension;
