//! HTTP among the protocols.

use super::{h1, h2};
use crate::config::{ListenerConfig, PoolConfig};
use crate::generation::ServiceSlot;
use crate::protocol::contract::{Arrived, Objection, Protocol, Serving};
use crate::wasm::Phase;
use std::rc::Rc;

/// HTTP/1.0, HTTP/1.1 and HTTP/2.
pub struct Http;

impl Protocol for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn alpn(&self, listener: &ListenerConfig) -> &'static [&'static str] {
        match listener.http.http2 {
            true => &["h2", "http/1.1", "http/1.0"],
            false => &["http/1.1", "http/1.0"],
        }
    }

    fn has_phase(&self, phase: Phase) -> bool {
        // Ticks come whatever is spoken.
        phase.is_http() || phase == Phase::Tick
    }

    fn takes_middleware(&self) -> bool {
        true
    }

    fn objects_to(&self, _: &PoolConfig) -> Option<Objection> {
        None
    }

    /// HTTP/2 when TLS agreed on it or the client begins with its preface, else HTTP/1.
    fn serve(&self, slot: Rc<ServiceSlot>, arrived: Arrived) -> Serving {
        let Arrived::Stream(connection, io) = arrived;
        let agreed = connection.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        match agreed {
            Some("h2") => Box::pin(h2::serve(slot, connection, io, Vec::new())),
            _ => Box::pin(h1::server::serve(slot, connection, io, Vec::new())),
        }
    }
}
