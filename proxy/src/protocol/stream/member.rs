//! Relayed streams among the protocols.

use super::session::{self, Perform};
use crate::config::{ListenerConfig, PoolConfig};
use crate::generation::ServiceSlot;
use crate::protocol::contract::{Arrived, Objection, Protocol, Serving};
use crate::wasm::Phase;
use std::rc::Rc;

/// Bytes, relayed as they come.
pub struct Tcp {
    /// Performs what filters wait for.
    pub perform: Perform,
}

impl Protocol for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn alpn(&self, _: &ListenerConfig) -> &'static [&'static str] {
        &[]
    }

    fn has_phase(&self, phase: Phase) -> bool {
        // Ticks come whatever is spoken.
        phase.is_stream() || phase == Phase::Tick
    }

    fn takes_middleware(&self) -> bool {
        false
    }

    fn objects_to(&self, pool: &PoolConfig) -> Option<Objection> {
        pool.is_handled().then_some(Objection {
            code: "handler-pool",
            why: "is a component that answers HTTP requests",
            help: "write `protocol: http`, or give it a pool of addresses",
        })
    }

    /// A session keeps the service that it begins with.
    fn serve(&self, slot: Rc<ServiceSlot>, arrived: Arrived) -> Serving {
        let Arrived::Stream(connection, io) = arrived;
        Box::pin(session::serve(slot.current(), connection, io, self.perform))
    }
}
