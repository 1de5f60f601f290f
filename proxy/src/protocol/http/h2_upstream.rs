//! One HTTP/2 stream to an endpoint (RFC 9113) while it serves one exchange.
//!
//! Several exchanges of a worker share a connection; its frames are moved by a task of its own. The crate `h2` is used
//! without hyper above it: an exchange pulls and pushes both bodies itself, and retries need to know what was refused.

mod open;
mod pulse;

pub use open::{Place, has_room, open};

use super::fields::{fields, header_map};
use super::h1::body::{BodyError, Pulled, Taker};
use super::h1::chunked::TrailerLimits;
use super::h1::framing::{self, Framing};
use super::h1::parse::ParsedResponse;
use crate::error::Reason;
use crate::generation::Multiplexed;
use crate::head::{Fields, HeadLimits, RequestHead, ResponseHead, Version, is_field_value};
use crate::upstream::{Belief, StreamPermit};
use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HeaderValue, TE};
use hyper::HeaderMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Streams of one connection that may be cancelled by clients; see [`open`].
const CANCELLED_MAX: u32 = 500;

/// What goes into the head of a request besides the fields.
pub struct Target<'a> {
    pub secure: bool,
    pub authority: &'a [u8],
    pub framing: Framing,
    /// The client can take trailers.
    pub trailers: bool,
}

/// Why a request could not be sent.
pub enum Unsent {
    /// The connection is ending: another will do.
    Connection,
    /// The request cannot be said in HTTP/2.
    Request,
}

pub struct Upstream {
    permit: StreamPermit<Multiplexed>,
    response: ResponseFuture,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    /// Data of the response that has arrived while its client took none. Its stream's window bounds it.
    ahead: BytesMut,
    /// Body data that waits for the endpoint's window.
    out: BytesMut,
    /// The end of the body, queued behind `out`.
    end: Option<Option<HeaderMap>>,
    trailers: Option<Fields>,
    done: bool,
    /// Others used the connection before, and this is the first try on one.
    pub reused: bool,
    pub answered: bool,
    /// The endpoint said that it has not looked at the request.
    pub unseen: bool,
    /// It said so of this request alone.
    pub refused: bool,
    /// The code with which the endpoint broke the response off.
    pub reset_code: Option<h2::Reason>,
    /// The trailers of the response are over the limits.
    pub over: bool,
    limits: TrailerLimits,
    /// What had been heard on the connection when the request was sent, or when something was heard for it.
    heard: u64,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let line = self.permit.line();
        if self.answered && self.done {
            return;
        }
        let cancelled = line.connection.cancelled.get().saturating_add(1);
        line.connection.cancelled.set(cancelled);
        if cancelled >= CANCELLED_MAX {
            line.retire();
        }
    }
}

impl Upstream {
    /// Sends the head of a request.
    pub fn send(
        permit: StreamPermit<Multiplexed>,
        reused: bool,
        head: &RequestHead,
        target: &Target<'_>,
    ) -> Result<Self, Unsent> {
        let request = request(head, target).ok_or(Unsent::Request)?;
        let mut sender = permit.line().connection.streams.clone();
        let ends = !target.framing.has_body();
        let asked = &permit.line().connection.asked;
        asked.set(asked.get().wrapping_add(1));
        let (response, send) = sender.send_request(request, ends).map_err(|error| {
            if error.is_go_away() || error.is_io() || error.is_reset() {
                permit.line().retire();
                Unsent::Connection
            } else {
                Unsent::Request
            }
        })?;
        Ok(Self {
            heard: permit.line().heard(),
            permit,
            response,
            send,
            body: None,
            ahead: BytesMut::new(),
            out: BytesMut::new(),
            end: None,
            trailers: None,
            done: true,
            reused,
            answered: false,
            unseen: false,
            refused: false,
            reset_code: None,
            over: false,
            limits: TrailerLimits {
                bytes: 0,
                fields: 0,
            },
        })
    }

    pub fn queue_data(&mut self, data: &[u8]) {
        self.out.extend_from_slice(data);
    }

    pub fn send_end(&mut self, trailers: Option<&Fields>) {
        self.end = Some(trailers.map(header_map));
    }

    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Ready when the connection has taken everything that was queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        while !self.out.is_empty() {
            let mut room = self.send.capacity();
            if room == 0 {
                self.send.reserve_capacity(self.out.len());
                room = match ready!(self.send.poll_capacity(cx)) {
                    Some(Ok(room)) => room,
                    Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                };
            }
            let piece = self.out.split_to(room.min(self.out.len())).freeze();
            self.send.send_data(piece, false).map_err(broken)?;
            let asked = &self.permit.line().connection.asked;
            asked.set(asked.get().wrapping_add(1));
        }
        match self.end.take() {
            None => {}
            Some(None) => self.send.send_data(Bytes::new(), true).map_err(broken)?,
            Some(Some(trailers)) => self.send.send_trailers(trailers).map_err(broken)?,
        }
        Poll::Ready(Ok(()))
    }

    /// The next response head, informational ones included.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        head_request: bool,
    ) -> Poll<Result<ParsedResponse, Reason>> {
        match self.response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => {
                self.answered = true;
                self.hear();
                let parsed = parsed(interim.status(), interim.headers(), limits, head_request);
                return Poll::Ready(parsed);
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.failed(&error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match ready!(Pin::new(&mut self.response).poll(cx)) {
            Ok(response) => {
                self.answered = true;
                self.hear();
                self.limits = TrailerLimits {
                    bytes: limits.bytes,
                    fields: limits.fields,
                };
                let (head, body) = response.into_parts();
                let mut parsed = parsed(head.status, &head.headers, limits, head_request)?;
                if parsed.head.status == 101 {
                    return Poll::Ready(Err(Reason::UpstreamMalformed));
                }
                let ended = body.is_end_stream();
                if parsed.framing == Framing::Chunked && ended {
                    parsed.framing = Framing::Empty;
                }
                // A length of 0 does not say that no trailers follow.
                self.done = ended || parsed.framing == Framing::None;
                self.body = Some(body);
                Poll::Ready(Ok(parsed))
            }
            Err(error) => Poll::Ready(Err(self.failed(&error))),
        }
    }

    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        while !self.done {
            let Some(body) = &mut self.body else { break };
            if !self.ahead.is_empty() {
                let data = self.ahead.split();
                let _ = body.flow_control().release_capacity(data.len());
                take(cx, &data);
                return Poll::Ready(Ok(Pulled::Data(data.len())));
            }
            match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.permit.line().hear();
                    take(cx, &data);
                    // It is with the client's side; the endpoint may send as much again.
                    let _ = body.flow_control().release_capacity(data.len());
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Pulled::Data(data.len())));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(self.broken(&error))),
                None => {
                    match ready!(body.poll_trailers(cx)) {
                        Err(error) => return Poll::Ready(Err(self.broken(&error))),
                        Ok(Some(map)) if is_over(&map, self.limits.bytes, self.limits.fields) => {
                            self.over = true;
                            return Poll::Ready(Err(BodyError::Malformed));
                        }
                        Ok(trailers) => self.trailers = trailers.map(|map| fields(&map)),
                    }
                    self.done = true;
                }
            }
        }
        Poll::Ready(Ok(Pulled::End))
    }

    /// The client does not take what it is sent. The crate keeps what arrives frame by frame, and ends a connection on which
    /// thousands of small ones wait; here they take no more room than their data.
    pub fn ease(&mut self, cx: &mut Context<'_>) {
        let Some(body) = &mut self.body else { return };
        // An error is met again by whoever asks for more.
        while let Poll::Ready(Some(Ok(data))) = body.poll_data(cx) {
            self.permit.line().hear();
            self.ahead.extend_from_slice(&data);
        }
    }

    fn broken(&mut self, error: &h2::Error) -> BodyError {
        if !error.is_remote() {
            self.permit.line().retire();
        }
        // A GOAWAY speaks of the connection, and NO_ERROR of a response that is whole.
        if error.is_remote() && error.is_reset() {
            self.reset_code = error.reason().filter(|&code| code != h2::Reason::NO_ERROR);
        }
        BodyError::Truncated(None)
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    pub fn trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    /// What still comes is not wanted.
    pub fn discard_body(&mut self) {
        self.done = true;
        self.body = None;
    }

    /// What is believed of the connection; the task is woken when it gets worse.
    pub fn belief(&self, cx: &mut Context<'_>) -> Belief {
        self.permit.belief(cx)
    }

    /// It did not answer in time. When it answered nobody else in that time either, the connection may be dead.
    pub fn suspect(&self) {
        if self.permit.line().heard() == self.heard {
            self.retire();
        }
    }

    /// The connection is for nobody else.
    pub fn retire(&self) {
        self.permit.line().retire();
    }

    fn hear(&mut self) {
        let line = self.permit.line();
        line.hear();
        self.heard = line.heard();
    }

    fn failed(&mut self, error: &h2::Error) -> Reason {
        if error.is_go_away() || error.is_io() {
            self.permit.line().retire();
        }
        self.refused = error.is_remote()
            && error.is_reset()
            && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        // Only streams beyond the last that a GOAWAY names are ended by it.
        self.unseen = self.refused || error.is_remote() && error.is_go_away();
        if error.is_remote() || error.is_io() {
            Reason::UpstreamReset
        } else {
            Reason::UpstreamMalformed
        }
    }
}

/// None: what HTTP/1.1 allows in an authority or a target, a URI does not.
pub(super) fn request(head: &RequestHead, target: &Target<'_>) -> Option<http::Request<()>> {
    let uri = http::Uri::builder()
        .scheme(if target.secure { "https" } else { "http" })
        .authority(target.authority)
        .path_and_query(head.target())
        .build()
        .ok()?;
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::from_bytes(head.method()).ok()?;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let mut fields = header_map(&head.fields);
    if let Framing::Length(n) = target.framing {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(n));
    }
    if target.trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    *request.headers_mut() = fields;
    Some(request)
}

pub(super) fn parsed(
    status: http::StatusCode,
    lines: &HeaderMap,
    limits: &HeadLimits,
    head_request: bool,
) -> Result<ParsedResponse, Reason> {
    if is_over(lines, limits.bytes, limits.fields) {
        return Err(Reason::ResponseHeadersTooLarge);
    }
    if !lines.values().all(|value| is_field_value(value.as_bytes())) {
        return Err(Reason::UpstreamMalformed);
    }
    let fields = fields(lines);
    let status = status.as_u16();
    let framing = match framing::of_response(&fields, status, head_request, false)? {
        // Announced trailers need chunks on their way to an HTTP/1.1 client, whatever the length is.
        Framing::Length(_) if fields.contains(b"trailer") => Framing::Chunked,
        Framing::UntilClose => Framing::Chunked,
        framing => framing,
    };
    Ok(ParsedResponse {
        head: ResponseHead {
            version: Version::Http2,
            status,
            fields,
        },
        framing,
        keep_alive: true,
    })
}

/// The fields are more than allowed, as lines of HTTP/1.
fn is_over(lines: &HeaderMap, bytes: usize, fields: usize) -> bool {
    let sizes = lines
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    lines.len() > fields || sizes.sum::<usize>() > bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_said_in_http2_or_not_at_all() {
        let said = |method: &[u8], path: &[u8], authority: &[u8]| {
            let head =
                RequestHead::new(Version::Http11, method, authority, path, Fields::default());
            let target = Target {
                secure: true,
                authority,
                framing: Framing::Length(3),
                trailers: true,
            };
            let request = request(&head, &target)?;
            assert_eq!(request.headers()["content-length"], "3");
            assert_eq!(request.headers()["te"], "trailers");
            Some(format!("{} {}", request.method(), request.uri()))
        };
        type Case<'a> = (&'a [u8], &'a [u8], &'a [u8], Option<&'a str>);
        let cases: [Case<'_>; 6] = [
            (b"GET", b"/a?b", b"x:1", Some("GET https://x:1/a?b")),
            (b"OPTIONS", b"*", b"x", Some("OPTIONS https://x*")),
            (
                b"M-SEARCH",
                b"/",
                b"[::1]:1",
                Some("M-SEARCH https://[::1]:1/"),
            ),
            (b"GET", b"/{\"a\"}|^", b"x", Some("GET https://x/{\"a\"}|^")),
            (b"GET", b"/<", b"x", None),
            (b"GET", b"/", b"a b", None),
        ];
        for (method, path, authority, expected) in cases {
            let found = said(method, path, authority);
            assert_eq!(found.as_deref(), expected);
        }
    }
}
