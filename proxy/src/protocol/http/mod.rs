//! HTTP from the client's bytes to the upstream and back. `exchange` shows every phase in order; the rest are its steps.

pub mod call;
mod client;
mod client_address;
pub mod client_origin;
mod client_side;
mod effects;
pub mod exchange;
mod fields;
pub mod forward;
pub(crate) mod grpc;
pub mod h1;
mod h2;
mod h2_upstream;
mod handler_upstream;
mod inner;
pub(crate) mod respond;
mod suspended;
mod upstream;
pub mod websocket;
pub(crate) mod without_request;

#[cfg(test)]
mod call_tests;

use crate::connection::Connection;
use crate::generation::ServiceSlot;
use crate::io::transport::Io;
use std::rc::Rc;

/// Serves a client's connection: HTTP/2 when TLS agreed on it or the client begins with its preface, else HTTP/1.
pub async fn serve(slot: Rc<ServiceSlot>, connection: Rc<Connection>, io: Io) {
    let agreed = connection.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    if agreed == Some("h2") {
        Box::pin(h2::serve(slot, connection, io, Vec::new())).await;
    } else {
        Box::pin(h1::server::serve(slot, connection, io, Vec::new())).await;
    }
}
