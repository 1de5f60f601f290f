//! One HTTP/1.1 connection to an endpoint while it serves one exchange.

use super::body::{BodyError, IncomingBody, Pulled, Taker};
use super::chunked::{self, TrailerLimits};
use super::framing::Framing;
use super::parse::{self, HeadEnd, ParsedResponse};
use super::write::BodyFraming;
use crate::error::Reason;
use crate::generation::Conduct;
use crate::head::Fields;
use crate::head::HeadLimits;
use crate::io::Scratch;
use crate::io::scratch::PIECE_BYTES;
use crate::io::transport::{FAREWELL, Io, Outbox, Transport};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[derive(Debug)]
pub struct Upstream {
    transport: Transport,
    pub out: Outbox,
    /// How the request body is framed on this connection.
    framing: BodyFraming,
    head: Vec<u8>,
    end: HeadEnd,
    pub body: IncomingBody,
    /// It had served an exchange before: its end before any answer may be a race, not a failure.
    pub reused: bool,
    /// Not one byte of the request was taken by the kernel, so the endpoint cannot have seen any.
    pub unsent: bool,
    /// Bytes of the current exchange have arrived.
    pub answered: bool,
    /// What came first, on a connection that had served others, is no response: it was sent for nobody.
    pub unasked: bool,
    /// A head of this exchange has come.
    interim: bool,
    conduct: Conduct,
    /// A write met a reset of the connection.
    reset: bool,
    /// A whole head of a response has arrived that is not allowed.
    pub whole_head: bool,
}

impl Upstream {
    /// `out` holds the request's head; `head` is an empty buffer for the response's.
    pub fn new(io: Io, reused: bool, out: Vec<u8>, head: Vec<u8>, framing: BodyFraming) -> Self {
        Self {
            transport: Transport::new(io),
            out: Outbox::with_buffer(out),
            framing,
            head,
            end: HeadEnd::default(),
            body: IncomingBody::empty(),
            reused,
            unsent: true,
            answered: false,
            unasked: false,
            interim: false,
            conduct: Conduct::Framed,
            reset: false,
            whole_head: false,
        }
    }

    /// Sends request body data as the request was framed.
    pub fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        if self.framing == BodyFraming::Chunked {
            self.queue_data(data);
            return Ok(());
        }
        let written = self.out.write(cx, &self.transport, data);
        self.reset |= written.as_ref().is_err_and(is_reset);
        written
    }

    /// Queues request body data that was sent to another endpoint before.
    pub fn queue_data(&mut self, data: &[u8]) {
        if self.framing == BodyFraming::Chunked {
            chunked::write_size(self.out.buffer(), data.len());
            self.out.buffer().extend_from_slice(data);
            self.out.buffer().extend_from_slice(b"\r\n");
        } else {
            self.out.buffer().extend_from_slice(data);
        }
    }

    /// Queues the end of the request body.
    pub fn send_end(&mut self, trailers: Option<&Fields>) {
        if self.framing == BodyFraming::Chunked {
            chunked::write_end(self.out.buffer(), trailers);
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.out.poll_flush(cx, &self.transport);
        self.unsent &= self.out.is_untouched();
        self.reset |= matches!(&flushed, Poll::Ready(Err(error)) if is_reset(error));
        flushed
    }

    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_shutdown(cx)
    }

    pub fn limit_stall(&self, time: Duration) {
        self.transport.limit_stall(time);
    }

    /// The next response head, informational ones included.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        limits: &HeadLimits,
        head_request: bool,
    ) -> Poll<Result<ParsedResponse, Reason>> {
        loop {
            if let Some(end) = self.end.find(&self.head) {
                if end > limits.bytes {
                    return Poll::Ready(Err(Reason::ResponseHeadersTooLarge));
                }
                let rest = self.head.split_off(end);
                let arena = std::mem::replace(&mut self.head, rest);
                self.end = HeadEnd::default();
                self.whole_head = true;
                let parsed = parse::response(arena, limits, head_request)?;
                self.interim = true;
                self.whole_head = false;
                if parsed.head.status >= 200 || parsed.head.status == 101 {
                    self.conduct = conduct(&parsed);
                    let framing = if parsed.head.status == 101 {
                        Framing::UntilClose
                    } else {
                        parsed.framing
                    };
                    let trailers = TrailerLimits {
                        bytes: limits.bytes,
                        fields: limits.fields,
                    };
                    self.body =
                        IncomingBody::new(framing, std::mem::take(&mut self.head), trailers);
                }
                return Poll::Ready(Ok(parsed));
            }
            if self.head.len() > limits.bytes {
                return Poll::Ready(Err(Reason::ResponseHeadersTooLarge));
            }
            let head = &mut self.head;
            let read = ready!(
                self.transport
                    .poll_read(cx, scratch, PIECE_BYTES, |_, bytes| {
                        head.extend_from_slice(bytes);
                        bytes.len()
                    })
            );
            match read {
                Ok(0) if self.head.is_empty() => return Poll::Ready(Err(Reason::UpstreamReset)),
                Ok(0) => return Poll::Ready(Err(Reason::UpstreamMalformed)),
                Ok(_) => {
                    self.answered = true;
                    if self.head.len() >= 5 && !self.head.starts_with(b"HTTP/") {
                        self.unasked = self.reused && !self.interim;
                        return Poll::Ready(Err(Reason::UpstreamMalformed));
                    }
                }
                Err(_) => return Poll::Ready(Err(Reason::UpstreamReset)),
            }
        }
    }

    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        let until_close = self.body.is_until_close();
        match ready!(self.body.poll_pull(cx, &self.transport, scratch, take)) {
            // The kernel tells of a reset once. Whoever reads after that sees an end that never came.
            Ok(Pulled::End) if until_close && self.reset => {
                Poll::Ready(Err(BodyError::Truncated(None)))
            }
            pulled => Poll::Ready(pulled),
        }
    }

    /// From here on bytes go out as they are: the connection was upgraded.
    pub fn become_tunnel(&mut self) {
        self.framing = BodyFraming::UntilClose;
    }

    /// The connection for the next exchange, if this one left it clean, and a buffer to use again.
    pub fn into_kept(mut self) -> Option<(Io, Conduct, Vec<u8>)> {
        if !self.body.is_done() || self.body.has_rest() || !self.out.is_empty() {
            return None;
        }
        let buffer = self.out.take_buffer();
        Some((self.transport.into_io(), self.conduct, buffer))
    }

    /// Bytes came behind the end of the response that are no farewell.
    pub fn has_surplus(&self) -> bool {
        self.body.is_done() && self.body.has_rest() && !self.body.rest().starts_with(FAREWELL)
    }
}

/// The endpoint had not ended its side in order: a write that comes after an end fails with EPIPE (tcp(7)).
fn is_reset(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

fn conduct(parsed: &ParsedResponse) -> Conduct {
    let fields = &parsed.head.fields;
    let announces = |name| fields.get(name).is_some_and(|value| value != b"0");
    match parsed.framing {
        Framing::None if announces(b"content-length") || announces(b"transfer-encoding") => {
            Conduct::Announced
        }
        Framing::None => Conduct::Bodyless,
        _ => Conduct::Framed,
    }
}
