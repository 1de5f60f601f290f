//! What an exchange needs of its client, whatever the protocol: a body to pull, a response to push.

use super::h1::body::{BodyError, Pulled, Taker};
use crate::head::{Fields, ResponseHead};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

/// The body of a response as the exchange announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// Neither body nor framing: HEAD, 204, 304. A `content-length` among the fields stays.
    None,
    Length(u64),
    /// The head is the end. No length was stated, and none is where the protocol can do without.
    Empty,
    /// Length not known beforehand.
    Stream,
    /// 101: from here on the bytes of the protocol that was agreed on.
    Tunnel,
}

/// The client's side of one exchange. Everything is polled from the exchange's own task.
pub trait ClientSide {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>>;
    /// The last piece of the body was not taken at once: the next ones are to be small.
    fn ease_body(&mut self) {}
    fn body_done(&self) -> bool;
    fn body_trailers(&mut self) -> Option<Fields>;
    /// Ready when the client left. Polled while a response is awaited.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// An informational response (RFC 9110 §15.2); clients that cannot take one are not told.
    fn send_informational(&mut self, head: &ResponseHead);
    /// Queues the head. `tunnel` names the protocol of a 101.
    fn send_head(&mut self, head: ResponseHead, body: ResponseBody, tunnel: Option<&[u8]>);
    fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()>;
    fn send_end(&mut self, trailers: Option<Fields>);
    /// Ready when everything queued was taken. Data is sent only then, so what waits is at most one piece.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// In a tunnel: gives the client up when it takes nothing for this long.
    fn limit_stall(&mut self, _: Duration) {}
    /// After a tunnel's upstream ended: no more bytes to the client.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}
