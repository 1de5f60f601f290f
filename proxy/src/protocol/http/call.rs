//! A request of the proxy's own, for a filter: the parts of it, and the client's side that lies in memory.

use super::client_origin::Origin;
use super::client_side::{ClientSide, ResponseBody};
use super::h1::body::{BodyError, Pulled, Taker};
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::Service;
use crate::head::target::{is_authority, is_target};
use crate::head::{Fields, ResponseHead, is_field_value, is_token};
use crate::upstream::Pool;
use bytes::Bytes;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub const CALL_TIMEOUT: Duration = Duration::from_secs(1);
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(60);
pub const RESPONSE_BYTES: usize = 64 * 1024;
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Request body data that is handed over at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// What to ask, and what to accept as an answer. It is checked before anything of it is sent.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// Any but CONNECT.
    pub method: Bytes,
    /// Path and query, or `*`.
    pub target: Bytes,
    /// Host and port; empty: the endpoint's. The pool's `host` goes before it.
    pub authority: Bytes,
    /// Names in lower case. Those of framing and of one hop are removed: the proxy writes them.
    pub fields: Fields,
    pub body: Bytes,
    /// For everything, from now to the last byte of the response; at most [`CALL_TIMEOUT_MAX`].
    pub timeout: Duration,
    /// The largest body that is accepted; at most [`RESPONSE_BYTES_MAX`].
    pub response_bytes_max: usize,
}

impl Default for CallRequest {
    fn default() -> Self {
        Self {
            method: Bytes::from_static(b"GET"),
            target: Bytes::from_static(b"/"),
            authority: Bytes::new(),
            fields: Fields::default(),
            body: Bytes::new(),
            timeout: CALL_TIMEOUT,
            response_bytes_max: RESPONSE_BYTES,
        }
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct CallResponse {
    pub status: u16,
    /// Without those of one hop, and without framing, but for the `content-length` of an answer to HEAD and of a 304.
    pub fields: Fields,
    /// Without chunking. Trailers are not kept.
    pub body: Bytes,
}

/// Why there is no response. What the request did at an endpoint is not known, but for `Invalid`, `NoEndpoint`,
/// `Overload`, `Refused` and `Tls`, with which it was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request is not one of HTTP, or asks for more than a call may.
    #[error("the request is not valid")]
    Invalid,
    /// The pool has no endpoint that may be used.
    #[error("the pool has no healthy endpoint")]
    NoEndpoint,
    /// The pool's endpoints have all the connections they may.
    #[error("the pool is overloaded")]
    Overload,
    /// No connection came about.
    #[error("the endpoint refused the connection")]
    Refused,
    #[error("TLS with the endpoint failed")]
    Tls,
    #[error("no whole response came in time")]
    Timeout,
    /// The connection ended before the response did.
    #[error("the endpoint ended the connection")]
    Broken,
    #[error("the response is not valid")]
    Malformed,
    /// The response's body is larger than the request allowed.
    #[error("the response is too large")]
    TooLarge,
}

impl From<Reason> for CallError {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NoHealthyEndpoint => CallError::NoEndpoint,
            Reason::Overload => CallError::Overload,
            Reason::ConnectRefused => CallError::Refused,
            Reason::UpstreamTls => CallError::Tls,
            Reason::ConnectTimeout
            | Reason::ResponseTimeout
            | Reason::TotalTimeout
            | Reason::IdleTimeout
            | Reason::RequestBodyTimeout => CallError::Timeout,
            Reason::UpstreamMalformed => CallError::Malformed,
            Reason::ResponseHeadersTooLarge => CallError::TooLarge,
            Reason::BadRequest => CallError::Invalid,
            _ => CallError::Broken,
        }
    }
}

/// On whose behalf a call is made.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub service: &'a Rc<Service>,
    pub connection: &'a Rc<Connection>,
    /// What a pool that balances by hash goes by.
    pub client: IpAddr,
    /// What the client asked for: a handler is told the scheme.
    pub origin: Origin,
    /// [`super::exchange::make_call`]; here nothing is known of exchanges.
    pub make: MakeCall,
}

/// Makes a call. Dropping the future ends it.
pub type MakeCall = for<'a> fn(&'a Caller<'a>, Arc<Pool>, Box<CallRequest>) -> Calling<'a>;

pub type Calling<'a> = Pin<Box<dyn Future<Output = Result<CallResponse, CallError>> + 'a>>;

impl CallRequest {
    /// Whether it is one of HTTP, and asks for no more than a call may.
    pub(super) fn is_valid(&self) -> bool {
        let lower = |name: &[u8]| is_token(name) && !name.iter().any(u8::is_ascii_uppercase);
        is_token(&self.method)
            && *self.method != *b"CONNECT"
            && is_target(&self.target)
            && (self.authority.is_empty() || is_authority(&self.authority))
            && self
                .fields
                .iter()
                .all(|(name, value)| lower(name) && is_field_value(value))
            && self.timeout <= CALL_TIMEOUT_MAX
            && self.response_bytes_max <= RESPONSE_BYTES_MAX
    }
}

/// The client of a call: its body is there already, and the response is collected.
pub(super) struct MemoryClient {
    body: Bytes,
    response: Vec<u8>,
    response_bytes_max: usize,
    /// The response is larger than it may be.
    pub(super) overflowed: bool,
}

impl MemoryClient {
    pub(super) fn new(body: Bytes, response_bytes_max: usize) -> Self {
        Self {
            body,
            response: Vec::new(),
            response_bytes_max,
            overflowed: false,
        }
    }

    /// The response's head has come: whether its body may.
    pub(super) fn accepts(&mut self, body: ResponseBody) -> bool {
        if let ResponseBody::Length(length) = body {
            self.overflowed = length > self.response_bytes_max as u64;
            if !self.overflowed {
                self.response.reserve_exact(length as usize);
            }
        }
        !self.overflowed
    }

    pub(super) fn take_response(&mut self) -> Bytes {
        std::mem::take(&mut self.response).into()
    }
}

impl ClientSide for MemoryClient {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        if self.body.is_empty() {
            return Poll::Ready(Ok(Pulled::End));
        }
        let piece = self.body.split_to(self.body.len().min(PIECE_BYTES));
        take(cx, &piece);
        Poll::Ready(Ok(Pulled::Data(piece.len())))
    }

    fn body_done(&self) -> bool {
        self.body.is_empty()
    }

    fn body_trailers(&mut self) -> Option<Fields> {
        None
    }

    /// Who does not wait any more drops the call.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn send_informational(&mut self, _: &ResponseHead) {}

    fn send_head(&mut self, _: ResponseHead, _: ResponseBody, _: Option<&[u8]>) {}

    fn send_data(&mut self, _: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        if self.response.len() + data.len() > self.response_bytes_max {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.response.extend_from_slice(data);
        Ok(())
    }

    fn send_end(&mut self, _: Option<Fields>) {}

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
