//! What a chain decided.

use std::sync::Arc;

use super::state::Reply;
use super::suspension::Suspension;
use crate::wasm::FaultKind;

/// What a chain decided for an HTTP phase.
#[derive(Debug)]
pub enum Outcome {
    Continue,
    Reply(Reply),
    Drop,
    Reset,
    /// A filter failed and its policy is `fail`.
    Fault {
        filter: Arc<str>,
        kind: FaultKind,
    },
    /// A filter waits for effects; the phase goes on by being resumed.
    Suspend(Box<Suspension>),
}

/// What a chain decided for a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamOutcome {
    Continue,
    Drop,
    Reset,
    Fault {
        filter: Arc<str>,
        kind: FaultKind,
    },
    /// A filter waits for effects; the phase goes on by being resumed.
    Suspend(Box<Suspension>),
}
