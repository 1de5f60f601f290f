//! A client's HTTP/2 connection (RFC 9113): hyper keeps the frames, every stream becomes an exchange.
//!
//! The exchange pushes, hyper pulls: between them lies one [`Stream`] a stream, which holds at most one piece of body.

use super::client_side::{ClientSide, ResponseBody};
use super::exchange::{self, Ending, Incoming};
use super::h1::body::{BodyError, Pulled, Taker};
use super::h1::framing::{self, Framing};
use super::h1::parse;
use super::respond;
use crate::chain::Reply;
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::{Service, ServiceSlot};
use crate::head::HeadLimits;
use crate::head::{Fields, RequestHead, ResponseHead, Version};
use crate::io::timer::Timer;
use crate::io::transport::{Io, Rewound};
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// Spawns hyper's stream tasks on this worker.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves the connection to its end. `initial` are bytes that were read already.
pub async fn serve(slot: Rc<ServiceSlot>, connection: Rc<Connection>, io: Io, initial: Vec<u8>) {
    let service = slot.current();
    let config = &service.listener.config;
    let (limits, timeouts) = (&config.limits, config.timeouts.clone());
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes.min(u32::MAX as usize) as u32)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(timeouts.keep_alive)
        .keep_alive_timeout(timeouts.head);
    // Exchanges of streams that were cancelled still unwind for a moment; together they stay bounded too.
    let exchanges_max = limits.streams as usize * 2;
    let running = Rc::new(Cell::new(0usize));
    let worker = service.worker.clone();
    drop(service);

    let streams = {
        let running = running.clone();
        hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (slot, connection, running) = (slot.clone(), connection.clone(), running.clone());
            async move {
                if running.get() >= exchanges_max {
                    return Err(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM));
                }
                let stream = Rc::new(Stream::default());
                let task = tokio::task::spawn_local({
                    let stream = stream.clone();
                    let guard = Running::new(running);
                    async move {
                        serve_stream(slot.current(), connection, request, stream).await;
                        drop(guard);
                    }
                });
                Answer {
                    stream,
                    task,
                    answered: false,
                }
                .await
            }
        })
    };
    let mut hyper_connection =
        pin!(builder.serve_connection(TokioIo::new(Rewound::new(initial, io)), streams));
    let timer = Timer::new();
    timer.set(timeouts.keep_alive);
    let mut idle = worker.idle();
    let mut closing = false;
    std::future::poll_fn(|cx| {
        if !closing {
            if running.get() > 0 {
                timer.set(timeouts.keep_alive);
            }
            let expired = timer.poll_elapsed(cx).is_ready();
            if expired && running.get() == 0 || idle.poll_drain(cx).is_ready() {
                closing = true;
                hyper_connection.as_mut().graceful_shutdown();
            } else if expired {
                timer.set(timeouts.keep_alive);
            }
        }
        hyper_connection.as_mut().poll(cx)
    })
    .await
    .unwrap_or_else(|error| tracing::debug!(%error, "HTTP/2 connection ended"));
}

/// Counts the exchanges of a connection that have not ended.
struct Running(Rc<Cell<usize>>);

impl Running {
    fn new(count: Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn serve_stream(
    service: Rc<Service>,
    connection: Rc<Connection>,
    request: Request<hyper::body::Incoming>,
    stream: Rc<Stream>,
) {
    let limits = service.listener.head_limits();
    let (parts, body) = request.into_parts();
    let mut client = Http2Client {
        body: Some(body),
        trailers: None,
        done: false,
        head: None,
        stream,
    };
    client.done = client.body.as_ref().is_none_or(Body::is_end_stream);
    let timer = Timer::new();
    let incoming = match accept(&parts, client.done, &limits) {
        Ok(incoming) => incoming,
        Err(reason) => {
            exchange::record_refused(&service, &connection, reason);
            let Reply {
                status,
                fields,
                body,
            } = respond::failure(reason, &service.listener.config.http.via, "");
            let length = ResponseBody::Length(body.len() as u64);
            client.send_head(
                ResponseHead {
                    version: Version::Http2,
                    status,
                    fields,
                },
                length,
                None,
            );
            let _ = std::future::poll_fn(|cx| {
                if client.head.is_some() {
                    client.send_data(cx, &body)?;
                    client.send_end(None);
                }
                client.poll_flush(cx)
            })
            .await;
            return;
        }
    };
    let ending = exchange::run(&service, &connection, &timer, &mut client, incoming).await;
    match ending {
        Ending::Complete | Ending::CompleteThenClose | Ending::Gone => client.stream.finish(),
        Ending::Abort | Ending::Drop | Ending::Reset => client.stream.cancel(),
    }
}

/// Checks what HTTP/2 leaves to its users, and turns the request into the form of every room.
fn accept(
    parts: &http::request::Parts,
    ended: bool,
    limits: &HeadLimits,
) -> Result<Incoming, Reason> {
    if parts.method == hyper::Method::CONNECT {
        return Err(Reason::MethodNotAllowed);
    }
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    if target.len() > limits.target {
        return Err(Reason::TargetTooLong);
    }
    if parts.headers.len() > limits.fields {
        return Err(Reason::HeadersTooLarge);
    }
    let host = parts
        .headers
        .get(hyper::header::HOST)
        .map(HeaderValue::as_bytes);
    let authority = match (parts.uri.authority(), host) {
        (Some(authority), Some(host))
            if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) =>
        {
            return Err(Reason::BadRequest);
        }
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host,
        (None, None) => return Err(Reason::BadRequest),
    };
    let target_ok = target == "*" && parts.method == hyper::Method::OPTIONS
        || target.starts_with('/') && parse::is_target(target.as_bytes());
    if !parse::is_authority(authority)
        || !target_ok
        || parts.headers.get_all(hyper::header::HOST).iter().count() > 1
    {
        return Err(Reason::BadRequest);
    }
    let mut fields = Fields::from_arena(Vec::with_capacity(512));
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in &parts.headers {
        if name == hyper::header::HOST {
            continue;
        }
        if !crate::head::is_field_value(value.as_bytes()) {
            return Err(Reason::BadRequest);
        }
        // A cookie may come in crumbs, one to a line (RFC 9113 §8.2.3); HTTP/1.1 wants them in one.
        if name == hyper::header::COOKIE {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value.as_bytes());
            continue;
        }
        fields.append(name.as_str().as_bytes(), value.as_bytes());
    }
    if !cookies.is_empty() {
        fields.append(b"cookie", &cookies);
    }
    let framing = match framing::of_request(&fields, false)? {
        // Announced trailers need chunks on their way to an HTTP/1.1 upstream, whatever the length is.
        Framing::Length(n) if ended || !fields.contains(b"trailer") => Framing::Length(n),
        _ if ended => Framing::None,
        _ => Framing::Chunked,
    };
    let expect_continue = match fields.get(b"expect") {
        None => false,
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(Reason::ExpectationFailed),
    };
    let head = RequestHead::new(
        Version::Http2,
        parts.method.as_str().as_bytes(),
        authority,
        target.as_bytes(),
        fields,
    );
    Ok(Incoming {
        head,
        framing,
        expect_continue,
    })
}

/// What an exchange has for hyper, and what hyper has taken of it.
#[derive(Default)]
struct Stream {
    state: RefCell<StreamState>,
}

#[derive(Default)]
struct StreamState {
    response: Option<Response<()>>,
    length: Option<u64>,
    data: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
    cancelled: bool,
    /// hyper dropped its side: the client cancelled the stream or left.
    gone: bool,
    puller: Option<Waker>,
    pusher: Option<Waker>,
}

impl StreamState {
    fn wake_puller(&mut self) {
        if let Some(waker) = self.puller.take() {
            waker.wake();
        }
    }

    fn wake_pusher(&mut self) {
        if let Some(waker) = self.pusher.take() {
            waker.wake();
        }
    }
}

impl Stream {
    fn finish(&self) {
        let mut state = self.state.borrow_mut();
        state.ended = true;
        state.wake_puller();
    }

    fn cancel(&self) {
        let mut state = self.state.borrow_mut();
        state.cancelled = true;
        state.wake_puller();
    }

    fn leave(&self) {
        let mut state = self.state.borrow_mut();
        state.gone = true;
        state.wake_pusher();
    }
}

/// The response for hyper, once the exchange has one. Dropped before: the client cancelled.
struct Answer {
    stream: Rc<Stream>,
    task: tokio::task::JoinHandle<()>,
    answered: bool,
}

impl Future for Answer {
    type Output = Result<Response<PushedBody>, h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stream = self.stream.clone();
        let mut state = stream.state.borrow_mut();
        if let Some(response) = state.response.take() {
            // The exchange waits for the head to be taken before it reads on.
            state.wake_pusher();
            drop(state);
            self.answered = true;
            return Poll::Ready(Ok(response.map(|()| PushedBody(stream.clone()))));
        }
        if state.cancelled || state.ended {
            self.answered = true;
            return Poll::Ready(Err(h2::Reason::CANCEL.into()));
        }
        state.puller = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.answered {
            self.stream.leave();
            self.task.abort();
        }
    }
}

/// The response body as hyper pulls it.
struct PushedBody(Rc<Stream>);

impl Body for PushedBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let mut state = self.0.state.borrow_mut();
        if !state.data.is_empty() {
            let data = state.data.split().freeze();
            state.wake_pusher();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if state.ended {
            return Poll::Ready(state.trailers.take().map(|t| Ok(Frame::trailers(t))));
        }
        if state.cancelled {
            return Poll::Ready(Some(Err(h2::Reason::CANCEL.into())));
        }
        state.puller = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state.borrow();
        state.ended && state.data.is_empty() && state.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .state
            .borrow()
            .length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for PushedBody {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The client's side of one exchange on a stream.
struct Http2Client {
    body: Option<hyper::body::Incoming>,
    trailers: Option<Fields>,
    done: bool,
    /// Kept back until the first data or the end is known, so that they leave together.
    head: Option<(ResponseHead, ResponseBody)>,
    stream: Rc<Stream>,
}

impl Http2Client {
    /// Hands the head to hyper.
    fn release_head(&mut self) {
        let Some((head, body)) = self.head.take() else {
            return;
        };
        let mut state = self.stream.state.borrow_mut();
        let mut response = Response::new(());
        *response.status_mut() =
            StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
        *response.headers_mut() = header_map(&head.fields);
        match body {
            ResponseBody::Length(n) => {
                state.length = Some(n);
                response
                    .headers_mut()
                    .insert(hyper::header::CONTENT_LENGTH, HeaderValue::from(n));
            }
            ResponseBody::None => state.ended = true,
            ResponseBody::Stream | ResponseBody::Tunnel => {}
        }
        state.response = Some(response);
        state.wake_puller();
    }
}

/// Fields that were checked already; what `http` refuses all the same is left out.
pub(super) fn header_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len() + 1);
    for (name, value) in fields.iter() {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

impl ClientSide for Http2Client {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        while !self.done {
            let Some(body) = &mut self.body else { break };
            match ready!(Pin::new(body).poll_frame(cx)) {
                None => self.done = true,
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Truncated(None))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        take(cx, &data);
                        return Poll::Ready(Ok(Pulled::Data(data.len())));
                    }
                    Err(frame) => {
                        if let Ok(map) = frame.into_trailers() {
                            let mut trailers = Fields::default();
                            for (name, value) in &map {
                                trailers.append(name.as_str().as_bytes(), value.as_bytes());
                            }
                            self.trailers = Some(trailers);
                        }
                    }
                },
            }
        }
        self.body = None;
        Poll::Ready(Ok(Pulled::End))
    }

    fn body_done(&self) -> bool {
        self.done
    }

    fn body_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.stream.state.borrow_mut();
        if state.gone {
            return Poll::Ready(());
        }
        state.pusher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// hyper sends none on HTTP/2.
    fn send_informational(&mut self, _head: &ResponseHead) {}

    fn send_head(&mut self, head: ResponseHead, body: ResponseBody, _tunnel: Option<&[u8]>) {
        self.head = Some((head, body));
    }

    fn send_data(&mut self, _cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        let mut state = self.stream.state.borrow_mut();
        if state.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.data.extend_from_slice(data);
        state.wake_puller();
        Ok(())
    }

    fn send_end(&mut self, trailers: Option<Fields>) {
        let mut state = self.stream.state.borrow_mut();
        state.trailers = trailers.map(|t| header_map(&t));
        state.ended = true;
        state.wake_puller();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.release_head();
        let mut state = self.stream.state.borrow_mut();
        if state.response.is_none() && state.data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if state.gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        state.pusher = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
