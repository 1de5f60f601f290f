//! Typed views of the packed head, one for each kind of phase.

use std::ops::Deref;

use crate::head::{FLAG_BODY, FLAG_LAST, FLAG_MORE, Head, slot};
use crate::text::Text;

/// The request head, before it is forwarded.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    head: Head<'a>,
}

impl<'a> Request<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }

    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        self.head.flags() & FLAG_BODY != 0
    }
}

impl<'a> Deref for Request<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// The response head, before it is sent to the client. `fields` are the response's; method, path and the like are
/// those of the request that it answers.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    head: Head<'a>,
}

impl<'a> Response<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }

    pub fn status(&self) -> u16 {
        self.head.u16(12)
    }

    /// `address:port` of the endpoint that answered; empty when the proxy or a filter did.
    pub fn endpoint(&self) -> &'a str {
        self.head.name(slot::ENDPOINT)
    }

    /// The pool of that endpoint.
    pub fn pool(&self) -> &'a str {
        self.head.name(slot::POOL)
    }
}

impl<'a> Deref for Response<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// An exchange that ended.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    head: Head<'a>,
}

impl<'a> Record<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }

    /// The status the client got, 0 when it got none.
    pub fn status(&self) -> u16 {
        self.head.u16(12)
    }

    /// `address:port` of the endpoint; empty when none was chosen.
    pub fn endpoint(&self) -> &'a str {
        self.head.name(slot::ENDPOINT)
    }

    pub fn pool(&self) -> &'a str {
        self.head.name(slot::POOL)
    }

    /// The reason code of a failure; empty when there was none.
    pub fn reason(&self) -> &'a str {
        self.head.name(slot::REASON)
    }

    pub fn duration_us(&self) -> u64 {
        self.head.u64(32)
    }

    /// Body bytes from the client.
    pub fn bytes_received(&self) -> u64 {
        self.head.u64(40)
    }

    /// Body bytes to the client.
    pub fn bytes_sent(&self) -> u64 {
        self.head.u64(48)
    }
}

impl<'a> Deref for Record<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// A connection that is relayed without being read.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    head: Head<'a>,
}

impl<'a> Stream<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }

    /// The server name of the ClientHello, in `client_hello` and `first_bytes`.
    pub fn server_name(&self) -> Option<&'a str> {
        self.head.fact(slot::SNI)?.to_str()
    }

    /// The protocols that the ClientHello offers (ALPN), in order.
    pub fn protocols_offered(&self) -> impl Iterator<Item = Text<'a>> + use<'a> {
        self.head
            .text(slot::ALPN_OFFERED)
            .as_bytes()
            .split(|b| *b == b',')
            .filter(|protocol| !protocol.is_empty())
            .map(Text::new)
    }

    /// The first bytes of the client, in `first_bytes`.
    pub fn first_bytes(&self) -> &'a [u8] {
        self.head.text(slot::FIRST_BYTES).as_bytes()
    }
}

impl<'a> Deref for Stream<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// A piece of a relayed stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamData<'a> {
    head: Head<'a>,
}

impl<'a> StreamData<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }

    /// The piece. Only the last one may be empty.
    pub fn bytes(&self) -> &'a [u8] {
        self.head.text(slot::PIECE).as_bytes()
    }

    /// Nothing follows in this direction: its sender has ended its stream.
    pub fn is_last(&self) -> bool {
        self.head.flags() & FLAG_LAST != 0
    }
}

impl<'a> Deref for StreamData<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// The body of a request, or a piece of it, as [`Setup::request_body`](crate::Setup::request_body) says. There are fields
/// while the head waits for the answer.
#[derive(Debug, Clone, Copy)]
pub struct RequestBody<'a> {
    head: Head<'a>,
}

impl<'a> RequestBody<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }

    /// What the call shows: a piece, the first bytes, or all of it. It may be empty.
    pub fn bytes(&self) -> &'a [u8] {
        self.head.text(slot::PIECE).as_bytes()
    }

    /// Nothing follows it.
    pub fn is_last(&self) -> bool {
        self.head.flags() & FLAG_LAST != 0
    }

    /// With [`BodyMode::First`](crate::BodyMode::First): something follows that is not shown.
    pub fn has_more(&self) -> bool {
        self.head.flags() & FLAG_MORE != 0
    }
}

impl<'a> Deref for RequestBody<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// The body of a response, or a piece of it, as [`Setup::response_body`](crate::Setup::response_body) says. `fields` are the
/// response's, while its head waits for the answer.
#[derive(Debug, Clone, Copy)]
pub struct ResponseBody<'a> {
    head: Head<'a>,
}

impl<'a> ResponseBody<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }

    /// The status of the response.
    pub fn status(&self) -> u16 {
        self.head.u16(12)
    }

    /// `address:port` of the endpoint that answered.
    pub fn endpoint(&self) -> &'a str {
        self.head.name(slot::ENDPOINT)
    }

    /// The pool of that endpoint.
    pub fn pool(&self) -> &'a str {
        self.head.name(slot::POOL)
    }

    /// What the call shows: a piece, the first bytes, or all of it. It may be empty.
    pub fn bytes(&self) -> &'a [u8] {
        self.head.text(slot::PIECE).as_bytes()
    }

    /// Nothing follows it.
    pub fn is_last(&self) -> bool {
        self.head.flags() & FLAG_LAST != 0
    }

    /// With [`BodyMode::First`](crate::BodyMode::First): something follows that is not shown.
    pub fn has_more(&self) -> bool {
        self.head.flags() & FLAG_MORE != 0
    }
}

impl<'a> Deref for ResponseBody<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// The trailers of a request, as fields: all of them are shown.
#[derive(Debug, Clone, Copy)]
pub struct RequestTrailers<'a> {
    head: Head<'a>,
}

impl<'a> RequestTrailers<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }
}

impl<'a> Deref for RequestTrailers<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// The trailers of a response, as fields: all of them are shown.
#[derive(Debug, Clone, Copy)]
pub struct ResponseTrailers<'a> {
    head: Head<'a>,
}

impl<'a> ResponseTrailers<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self {
            head: Head::new(block),
        }
    }

    /// The status of the response.
    pub fn status(&self) -> u16 {
        self.head.u16(12)
    }
}

impl<'a> Deref for ResponseTrailers<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}
