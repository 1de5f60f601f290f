//! What a protocol is to the rest of the process.

use crate::config::{ListenerConfig, PoolConfig};
use crate::connection::Connection;
use crate::generation::ServiceSlot;
use crate::io::Io;
use crate::wasm::Phase;
use std::pin::Pin;
use std::rc::Rc;

/// Something that a listener may speak.
pub trait Protocol: Sync {
    /// As `protocol:` spells it.
    fn name(&self) -> &'static str;

    /// What TLS offers to clients (ALPN, RFC 7301) where the listener says nothing else. None: TLS offers nothing.
    fn alpn(&self, listener: &ListenerConfig) -> &'static [&'static str];

    /// Whether filters are called in this phase.
    fn has_phase(&self, phase: Phase) -> bool;

    /// Whether middleware may stand in the chain.
    fn takes_middleware(&self) -> bool;

    /// Why a pool is of no use to it, if it is.
    fn objects_to(&self, pool: &PoolConfig) -> Option<Objection>;

    /// Serves what arrived to its end. It takes the service of the day from `slot`.
    fn serve(&self, slot: Rc<ServiceSlot>, arrived: Arrived) -> Serving;
}

/// One box for each connection.
pub type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// What arrives at a listener.
pub enum Arrived {
    /// A connection, behind the TLS handshake where the listener has one.
    Stream(Rc<Connection>, Io),
}

/// What a protocol has against a pool: `why` follows the pool's name.
pub struct Objection {
    pub code: &'static str,
    pub why: &'static str,
    pub help: &'static str,
}
