//! One HTTP/2 stream to an endpoint (RFC 9113) while it serves one exchange.
//!
//! Several exchanges of a worker share a connection; its frames are moved by a task of its own. The crate `h2` is used
//! without hyper above it: an exchange pulls and pushes both bodies itself, and retries need to know what was refused.

mod pulse;

use super::fields::{fields, header_map};
use super::h1::body::{BodyError, Pulled, Taker};
use super::h1::chunked::TrailerLimits;
use super::h1::framing::{self, Framing};
use super::h1::parse::ParsedResponse;
use crate::config::PingSettings;
use crate::error::Reason;
use crate::generation::Multiplexed;
use crate::head::{Fields, HeadLimits, RequestHead, ResponseHead, Version, is_field_value};
use crate::io::Io;
use crate::upstream::{
    Belief, ConnectionClass, Endpoint, Offence, SharedConnection, SharedConnections, StreamPermit,
};
use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HeaderValue, TE};
use hyper::HeaderMap;
use pulse::{Counted, Finding, Pulse, Traffic};
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// Streams on one connection, if the endpoint allows as many.
const STREAMS_MAX: usize = 256;
/// What an endpoint may send on one stream before its client has taken it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// As much for every stream, so that clients that do not read hold nobody else up.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// Body bytes of one stream that wait for their turn on the connection.
const SEND_BUFFER_MAX: usize = 64 * 1024;
/// Fields of one response that are read at least: what is over the limits is then known for what it is.
const HEADER_BYTES_MIN: usize = 256 * 1024;

/// Streams that were cancelled here and whose late frames are passed over, and for how long.
const RESETS_REMEMBERED: usize = 16 * 1024;
const RESETS_REMEMBERED_FOR: Duration = Duration::from_secs(5);
/// Frames for streams that are forgotten, over the life of a connection. It bounds the answers to an endpoint that does not
/// read them.
const LATE_FRAMES_MAX: usize = 64 * 1024;
/// What small frames of DATA may cost in the crate, at some 256 bytes each. Those that wait for a client are collected, see
/// [`Upstream::ease`]. But the crate never gives back what it counts for frames that came late, for streams that were
/// cancelled, and ends the connection when that is too much. So one on which many were is left to those that use it.
const SMALL_FRAMES_BYTES: usize = 256 * 1024 * 1024;
const CANCELLED_MAX: u32 = 500;

/// What an orderly end may take: an endpoint that does not read would keep the connection for ever.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Stands for the number of streams as long as the endpoint has not told its settings, which have 32 bits.
const STREAMS_UNKNOWN: usize = usize::MAX - 1;

/// Where a connection is shared, and with what care.
pub struct Place<'a> {
    pub shared: &'a SharedConnections<Multiplexed>,
    pub endpoint: &'a Arc<Endpoint>,
    pub class: ConnectionClass,
    pub idle_max: Duration,
    pub pings: &'a PingSettings,
}

/// Begins HTTP/2 on a connection; from here on a task moves its frames. Needs a worker's runtime. The connection is made
/// known at `place`; it gets one exchange until the endpoint has said how many it takes, and `dialling` ends then.
pub async fn open<D: 'static>(
    io: Io,
    limits: &HeadLimits,
    dialling: D,
    place: Place<'_>,
) -> Result<StreamPermit<Multiplexed>, h2::Error> {
    let traffic = Traffic::default();
    // HTTP/2 counts 32 bytes more for each field. What is beyond that is no answer that could be passed on.
    let list_max = (limits.bytes + 32 * limits.fields).max(HEADER_BYTES_MIN);
    let list_max = list_max.min(u32::MAX as usize);
    let (streams, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_max_send_streams(STREAMS_UNKNOWN)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(list_max as u32)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        // Clients cancel: what of a cancelled response is still under way must not end the connection for the others.
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESETS_REMEMBERED_FOR)
        .max_local_error_reset_streams(Some(LATE_FRAMES_MAX))
        .data_frame_budget(SMALL_FRAMES_BYTES)
        .handshake(Counted::new(io, traffic.clone()))
        .await?;
    let (used, unused) = tokio::sync::oneshot::channel();
    let multiplexed = Multiplexed {
        streams,
        cancelled: Cell::new(0),
        used,
        asked: traffic.asked.clone(),
    };
    let (shared, endpoint, class) = (place.shared.clone(), place.endpoint.clone(), place.class);
    let permit = shared.open(endpoint.id, class, multiplexed, place.idle_max);
    let mut pulse = Pulse::new(place.pings, traffic, connection.ping_pong());
    let line = Rc::downgrade(permit.line());
    let watched = line.clone();
    tokio::task::spawn_local(async move {
        let mut dialling = Some(dialling);
        let ended = std::future::poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            if connection.max_concurrent_send_streams() != STREAMS_UNKNOWN {
                dialling = None;
            }
            if let (Some(pulse), Some(line)) = (&mut pulse, watched.upgrade()) {
                match pulse.poll(cx, line.is_busy(), line.heard()) {
                    Finding::Nothing => {}
                    Finding::Arrived => {
                        line.believe();
                        shared.heard_from(endpoint.id, class);
                    }
                    Finding::Silent => {
                        tracing::info!(
                            pool = &*endpoint.pool,
                            endpoint = &*endpoint.text,
                            "an endpoint answers no PING on its HTTP/2 connection: requests go elsewhere until it does"
                        );
                        shared.doubt(&line);
                    }
                }
            }
            polled
        });
        let cut = async {
            let _ = unused.await;
            tokio::time::sleep(CLOSE_MAX).await;
        };
        tokio::select! {
            ended = ended => if let Err(error) = ended {
                report(&endpoint, &error);
            },
            () = cut => tracing::debug!("HTTP/2 connection to an endpoint cut"),
        }
        if let Some(line) = line.upgrade() {
            line.retire();
        }
    });
    Ok(permit)
}

/// Logs how a connection ended, and counts it if it was this side that ended it: that takes others' exchanges along, and
/// whoever looks for them finds it.
fn report(endpoint: &Endpoint, error: &h2::Error) {
    let (pool, name) = (&*endpoint.pool, &*endpoint.text);
    if !(error.is_go_away() && error.is_library()) {
        tracing::debug!(pool, endpoint = name, %error, "HTTP/2 connection to an endpoint ended");
        return;
    }
    let code = error.reason().unwrap_or(h2::Reason::PROTOCOL_ERROR);
    let offence = match code {
        h2::Reason::ENHANCE_YOUR_CALM => Offence::Flood,
        _ => Offence::Protocol,
    };
    endpoint.count_goaway(offence);
    let reason = offence.as_str();
    tracing::info!(pool, endpoint = name, reason, ?code, %error, "HTTP/2 connection to an endpoint ended by GOAWAY");
}

/// Whether one more stream can be opened beside those that run. Retires a connection that is ending.
pub fn has_room(line: &SharedConnection<Multiplexed>, running: usize) -> bool {
    // A clone waits for no stream of another, so that this only asks how the connection is.
    let mut send = line.connection.streams.clone();
    match send.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => match send.current_max_send_streams() {
            STREAMS_UNKNOWN => false,
            allowed => running < allowed.min(STREAMS_MAX),
        },
        Poll::Ready(Err(_)) => {
            line.retire();
            false
        }
        Poll::Pending => false,
    }
}

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
