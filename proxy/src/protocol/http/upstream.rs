//! What an exchange needs of its endpoint, whatever the protocol: a body to push, a response to pull. The counterpart of
//! `client_side`.

use super::h1::body::{BodyError, IncomingBody, Pulled, Taker};
use super::h1::parse::ParsedResponse;
use super::{h1, h2_upstream, handler_upstream};
use crate::error::Reason;
use crate::generation::Conduct;
use crate::head::{Fields, HeadLimits};
use crate::io::{Io, Scratch};
use crate::upstream::Belief;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

/// The endpoint's side of one exchange. Everything is polled from the exchange's own task.
// The large one is what nearly every exchange has: a box would cost it an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Upstream {
    Http1(h1::upstream::Upstream),
    Http2(Box<h2_upstream::Upstream>),
    Handler(Box<handler_upstream::Upstream>),
}

impl Upstream {
    /// The connection had served others: its end before any answer may be a race, not a failure.
    pub fn is_reused(&self) -> bool {
        match self {
            Upstream::Http1(upstream) => upstream.reused,
            // What refuses one stream refuses the next as well.
            Upstream::Http2(upstream) => upstream.reused && !upstream.refused,
            Upstream::Handler(_) => false,
        }
    }

    /// The endpoint cannot have seen the request, or says that it has not looked at it.
    pub fn is_unseen(&self) -> bool {
        match self {
            Upstream::Http1(upstream) => upstream.unsent,
            Upstream::Http2(upstream) => upstream.unseen,
            Upstream::Handler(_) => false,
        }
    }

    /// Something of a response has arrived.
    pub fn has_answered(&self) -> bool {
        match self {
            Upstream::Http1(upstream) => upstream.answered,
            Upstream::Http2(upstream) => upstream.answered,
            Upstream::Handler(upstream) => upstream.answered,
        }
    }

    /// A request may be sent to it again: what a component did with one is not known.
    pub fn may_be_repeated(&self) -> bool {
        !matches!(self, Upstream::Handler(_))
    }

    /// What is believed of the connection; the task is woken when it gets worse.
    pub fn belief(&self, cx: &mut Context<'_>) -> Belief {
        match self {
            Upstream::Http2(upstream) => upstream.belief(cx),
            Upstream::Http1(_) | Upstream::Handler(_) => Belief::Alive,
        }
    }

    /// The endpoint may say of a request with a body that it has not looked at it.
    pub fn may_refuse(&self) -> bool {
        matches!(self, Upstream::Http2(_))
    }

    /// Something that was queued waits for the endpoint.
    pub fn has_output(&self) -> bool {
        match self {
            Upstream::Http1(upstream) => !upstream.out.is_empty(),
            Upstream::Http2(upstream) => upstream.has_output(),
            Upstream::Handler(upstream) => upstream.has_output(),
        }
    }

    /// It gave an answer as far as it goes: when that is not allowed, the request asked for it, and the endpoint is not
    /// broken. (An answer that is over a limit is cut.)
    pub fn gave_answer(&self) -> bool {
        matches!(self, Upstream::Http1(upstream) if upstream.whole_head)
    }

    /// The answer failed for `reason`: what that says of a connection that others use too.
    pub fn blame(&self, reason: Reason) {
        match (self, reason) {
            (Upstream::Http2(upstream), Reason::ResponseTimeout) => upstream.suspect(),
            (Upstream::Http2(upstream), Reason::UpstreamMalformed) => upstream.retire(),
            _ => {}
        }
    }

    /// Sends request body data.
    pub fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        match self {
            Upstream::Http1(upstream) => upstream.send_data(cx, data),
            Upstream::Http2(upstream) => {
                upstream.queue_data(data);
                Ok(())
            }
            Upstream::Handler(upstream) => {
                upstream.queue_data(data);
                Ok(())
            }
        }
    }

    /// Queues request body data that was sent to another endpoint before.
    pub fn queue_data(&mut self, data: &[u8]) {
        match self {
            Upstream::Http1(upstream) => upstream.queue_data(data),
            Upstream::Http2(upstream) => upstream.queue_data(data),
            Upstream::Handler(upstream) => upstream.queue_data(data),
        }
    }

    /// Queues the end of the request body.
    pub fn send_end(&mut self, trailers: Option<&Fields>) {
        match self {
            Upstream::Http1(upstream) => upstream.send_end(trailers),
            Upstream::Http2(upstream) => upstream.send_end(trailers),
            Upstream::Handler(upstream) => upstream.send_end(trailers),
        }
    }

    /// Ready when everything that was queued was taken.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Upstream::Http1(upstream) => upstream.poll_flush(cx),
            Upstream::Http2(upstream) => upstream.poll_flush(cx),
            Upstream::Handler(upstream) => upstream.poll_flush(cx).map(Ok),
        }
    }

    /// After a tunnel's client ended: no more bytes to the endpoint.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Upstream::Http1(upstream) => upstream.poll_shutdown(cx),
            Upstream::Http2(_) | Upstream::Handler(_) => Poll::Ready(Ok(())),
        }
    }

    /// In a tunnel: gives the endpoint up when it takes nothing for this long.
    pub fn limit_stall(&self, time: Duration) {
        if let Upstream::Http1(upstream) = self {
            upstream.limit_stall(time);
        }
    }

    /// The next response head, informational ones included.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        limits: &HeadLimits,
        head_request: bool,
    ) -> Poll<Result<ParsedResponse, Reason>> {
        match self {
            Upstream::Http1(upstream) => upstream.poll_head(cx, scratch, limits, head_request),
            Upstream::Http2(upstream) => upstream.poll_head(cx, limits, head_request),
            Upstream::Handler(upstream) => upstream.poll_head(cx, limits, head_request),
        }
    }

    /// The next piece of the response's body, given to `take`.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        match self {
            Upstream::Http1(upstream) => upstream.poll_body(cx, scratch, take),
            Upstream::Http2(upstream) => upstream.poll_body(cx, take),
            Upstream::Handler(upstream) => upstream.poll_body(cx, take),
        }
    }

    /// Why the response's body broke off.
    pub fn truncation(&self) -> Reason {
        match self {
            Upstream::Handler(upstream) => upstream.fault().unwrap_or(Reason::HandlerFault),
            Upstream::Http1(upstream) if upstream.body.is_over() => Reason::ResponseHeadersTooLarge,
            Upstream::Http2(upstream) if upstream.over => Reason::ResponseHeadersTooLarge,
            _ => Reason::UpstreamTruncated,
        }
    }

    /// The code with which the endpoint itself broke the response off.
    pub fn reset_code(&self) -> Option<h2::Reason> {
        match self {
            Upstream::Http2(upstream) => upstream.reset_code,
            _ => None,
        }
    }

    /// Ready when the endpoint's own time for the whole exchange is up.
    pub fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        match self {
            Upstream::Handler(upstream) => upstream.poll_overdue(cx),
            _ => Poll::Pending,
        }
    }

    /// The client did not take the last piece at once.
    pub fn ease(&mut self, cx: &mut Context<'_>) {
        match self {
            Upstream::Http1(upstream) => upstream.body.ease(),
            Upstream::Http2(upstream) => upstream.ease(cx),
            Upstream::Handler(_) => {}
        }
    }

    /// More of the body can be had only by reading.
    pub fn must_read(&self) -> bool {
        match self {
            Upstream::Http1(upstream) => !upstream.body.is_done() && !upstream.body.has_rest(),
            Upstream::Http2(upstream) => !upstream.is_done(),
            Upstream::Handler(upstream) => !upstream.is_done(),
        }
    }

    /// It is known that no more data comes.
    pub fn is_body_done(&self) -> bool {
        match self {
            Upstream::Http1(upstream) => upstream.body.is_done(),
            Upstream::Http2(upstream) => upstream.is_done(),
            Upstream::Handler(upstream) => upstream.is_done(),
        }
    }

    /// The trailers of a body that has ended.
    pub fn trailers(&mut self) -> Option<Fields> {
        match self {
            Upstream::Http1(upstream) => upstream.body.trailers(),
            Upstream::Http2(upstream) => upstream.trailers(),
            Upstream::Handler(upstream) => upstream.trailers(),
        }
    }

    /// What still comes of the body is not wanted.
    pub fn discard_body(&mut self) {
        match self {
            Upstream::Http1(upstream) => upstream.body = IncomingBody::empty(),
            Upstream::Http2(upstream) => upstream.discard_body(),
            Upstream::Handler(upstream) => upstream.discard_body(),
        }
    }

    /// From here on bytes go out as they are: the connection was upgraded.
    pub fn become_tunnel(&mut self) {
        if let Upstream::Http1(upstream) = self {
            upstream.become_tunnel();
        }
    }

    /// Bytes came behind the end of the response.
    pub fn has_surplus(&self) -> bool {
        match self {
            Upstream::Http1(upstream) => upstream.has_surplus(),
            Upstream::Http2(_) | Upstream::Handler(_) => false,
        }
    }

    /// What came first on a connection that had served others cannot be an answer: it was sent for nobody.
    pub fn is_unasked(&self) -> bool {
        match self {
            Upstream::Http1(upstream) => upstream.unasked,
            Upstream::Http2(_) | Upstream::Handler(_) => false,
        }
    }

    /// The connection for the next exchange, if it was this one's alone and was left clean, and a buffer to use again.
    pub fn into_kept(self) -> Option<(Io, Conduct, Vec<u8>)> {
        match self {
            Upstream::Http1(upstream) => upstream.into_kept(),
            Upstream::Http2(_) | Upstream::Handler(_) => None,
        }
    }
}
