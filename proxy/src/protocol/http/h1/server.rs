//! A client's HTTP/1 connection: one exchange after another until either side has had enough.

use super::body::{BodyError, IncomingBody, Pulled, Taker};
use super::chunked::{self, TrailerLimits};
use super::framing::Framing;
use super::parse::{self, HeadEnd, ParsedRequest, Refusal};
use super::write::{self, BodyFraming, Persistence};
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::{Service, ServiceSlot, Worker};
use crate::head::{Fields, HeadLimits, ResponseHead, Version};
use crate::io::DropBounds;
use crate::io::scratch::PIECE_BYTES;
use crate::io::timer::Timer;
use crate::io::transport::{Io, Outbox, Transport};
use crate::protocol::http::client_side::{ClientSide, ResponseBody};
use crate::protocol::http::exchange::{self, Ending, Incoming};
use crate::protocol::http::{h2, respond};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What becomes of the connection after a step.
enum Next {
    Continue,
    /// Close in order: what was sent must reach the client.
    Close,
    /// Close with unread input possible: linger so that the answer is not lost to a reset.
    Linger,
    Drop,
    Reset,
    /// Nothing more to do; the client is gone or was told by closing.
    Gone,
}

/// What the wait for the next request ended with.
enum Arrival {
    /// A whole head lies at the front of the buffer.
    Head(usize),
    Http2,
    Refused(Reason),
    Closed,
}

/// Serves the connection to its end. `initial` are bytes that were read already.
pub async fn serve(slot: Rc<ServiceSlot>, connection: Rc<Connection>, io: Io, initial: Vec<u8>) {
    let transport = Transport::new(io);
    let timer = Timer::new();
    let mut rest = initial;
    let mut first = true;
    let next = loop {
        let arrived = arrival(&slot, &transport, &timer, &mut rest, first).await;
        // The generation of the day the request came, not of the day the wait for it began.
        let service = slot.current();
        match arrived {
            Arrival::Closed => break Next::Close,
            Arrival::Http2 => {
                // A connection that lives for days must not keep the generation that it began with.
                drop(service);
                Box::pin(h2::serve(slot, connection, transport.into_io(), rest)).await;
                return;
            }
            Arrival::Refused(reason) => {
                break refuse(&service, &connection, &transport, &timer, reason.into()).await;
            }
            Arrival::Head(len) => {
                first = false;
                // The exchange is boxed so that a connection that waits holds only the small state of the wait.
                let served = Box::pin(serve_one(
                    &service,
                    &connection,
                    &transport,
                    &timer,
                    &mut rest,
                    len,
                ));
                match served.await {
                    Next::Continue => {}
                    next => break next,
                }
            }
        }
    };
    close(&slot.current(), transport, next).await;
}

async fn close(service: &Service, transport: Transport, next: Next) {
    let mut io = transport.into_io();
    match next {
        Next::Reset => crate::io::reset_on_close(io.tcp()),
        Next::Linger => {
            let config = &service.listener.config;
            let bounds = match service.worker.is_draining() {
                true => DropBounds::default(),
                false => DropBounds {
                    bytes: config.limits.linger_bytes as u64,
                    time: config.timeouts.linger,
                },
            };
            crate::io::linger(io, &service.worker.scratch, bounds).await;
        }
        Next::Drop => {
            crate::io::drop_quietly(io, &service.worker.scratch, DropBounds::default()).await;
        }
        Next::Close => {
            // Over TLS this writes, and the client may have stopped reading.
            let shutdown = std::future::poll_fn(|cx| std::pin::Pin::new(&mut io).poll_shutdown(cx));
            let _ = tokio::time::timeout(DropBounds::default().time, shutdown).await;
        }
        Next::Continue | Next::Gone => {}
    }
}

/// Waits for a whole head in `rest`. Until its first byte comes the connection is idle and owns no buffer.
async fn arrival(
    slot: &ServiceSlot,
    transport: &Transport,
    timer: &Timer,
    rest: &mut Vec<u8>,
    first: bool,
) -> Arrival {
    let worker = slot.current().worker.clone();
    if rest.is_empty() {
        *rest = Vec::new();
        // A connection that waits holds no service, so that it keeps no generation that was replaced alive.
        timer.set({
            let service = slot.current();
            let timeouts = &service.listener.config.timeouts;
            if first {
                timeouts.head
            } else {
                timeouts.keep_alive
            }
        });
        let mut idle = worker.idle();
        let read = timer.run(std::future::poll_fn(|cx| {
            let read = transport.poll_read(cx, &worker.scratch, PIECE_BYTES, |_, bytes| {
                if !bytes.is_empty() {
                    *rest = worker.buffer();
                }
                rest.extend_from_slice(bytes);
                bytes.len()
            });
            match read {
                Poll::Ready(read) => Poll::Ready(read.unwrap_or(0)),
                Poll::Pending => idle.poll_drain(cx).map(|()| 0),
            }
        }));
        match read.await {
            Ok(1..) => {}
            Ok(0) => return Arrival::Closed,
            // Nobody asked: an answer would be taken for that to the next request.
            Err(_) => return Arrival::Closed,
        }
    }
    let service = slot.current();
    let limits = service.listener.head_limits();
    let mut end = HeadEnd::default();
    timer.set(service.listener.config.timeouts.head);
    loop {
        skip_empty_lines(rest);
        if matches!(rest[..], [] | [b'\r']) {
            // Nothing yet but empty lines, the last of them perhaps cut in two.
        } else if first
            && service.listener.config.http.http2
            && rest.starts_with(&PREFACE[..rest.len().min(PREFACE.len())])
        {
            if rest.len() >= PREFACE.len() {
                return Arrival::Http2;
            }
        } else if parse::cannot_be_request(rest) {
            return Arrival::Refused(Reason::BadRequest);
        } else if let Some(len) = end.find(rest) {
            return if len > limits.bytes + limits.target {
                Arrival::Refused(too_large(rest, &limits))
            } else {
                Arrival::Head(len)
            };
        } else if rest.len() > limits.bytes + limits.target {
            return Arrival::Refused(too_large(rest, &limits));
        } else if rest.len() > limits.target + 64 && memchr::memchr(b'\n', rest).is_none() {
            return Arrival::Refused(Reason::TargetTooLong);
        }
        match timer
            .run(transport.read_into(&worker.scratch, PIECE_BYTES, rest))
            .await
        {
            Ok(Ok(1..)) => {}
            Ok(_) if rest.is_empty() => return Arrival::Closed,
            // The client ended inside a head: there is nobody to answer, but there was an attempt to be logged.
            Ok(_) => return Arrival::Refused(Reason::ClientGone),
            Err(_) if matches!(rest[..], [] | [b'\r']) => return Arrival::Closed,
            Err(_) => return Arrival::Refused(Reason::RequestHeadTimeout),
        }
    }
}

pub fn too_large(head: &[u8], limits: &HeadLimits) -> Reason {
    let line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    if line > limits.target + 64 {
        Reason::TargetTooLong
    } else {
        Reason::HeadersTooLarge
    }
}

/// Empty lines before a request line are ignored, and a line may end in a bare LF (RFC 9112 §2.2).
fn skip_empty_lines(rest: &mut Vec<u8>) {
    let mut skip = 0;
    loop {
        match rest[skip..] {
            [b'\r', b'\n', ..] => skip += 2,
            [b'\n', ..] => skip += 1,
            _ => break,
        }
    }
    if skip > 0 {
        rest.drain(..skip);
    }
}

async fn serve_one(
    service: &Rc<Service>,
    connection: &Rc<Connection>,
    transport: &Transport,
    timer: &Timer,
    rest: &mut Vec<u8>,
    head_len: usize,
) -> Next {
    let leftover = rest.split_off(head_len);
    let arena = std::mem::take(rest);
    let limits = service.listener.head_limits();
    let ParsedRequest {
        head,
        framing,
        keep_alive,
        expect_continue,
        ..
    } = match parse::request_or_refusal(arena, &limits) {
        Ok(parsed) => parsed,
        Err(refusal) => return refuse(service, connection, transport, timer, refusal).await,
    };
    let trailers = TrailerLimits {
        bytes: limits.bytes,
        fields: limits.fields,
    };
    let mut client = Http1Client {
        transport,
        worker: &service.worker,
        body: IncomingBody::new(framing, leftover, trailers),
        out: Outbox::with_buffer(service.worker.buffer()),
        framing: BodyFraming::None,
        version: head.version,
        keep_alive,
        service,
        tunnel: false,
        request_framing: framing,
    };
    let ending = exchange::run(
        service,
        connection,
        timer,
        &mut client,
        Incoming {
            head,
            framing,
            expect_continue,
        },
    )
    .await;
    if matches!(ending, Ending::Abort(_)) {
        // What arrived before the failure goes out as far as the socket takes it, so that the client sees a response
        // that broke off and not none at all.
        let _ = std::future::poll_fn(|cx| Poll::Ready(client.out.poll_flush(cx, transport))).await;
    }
    let (keep, response_framing, body) = (client.keep_alive, client.framing, client.body);
    let tunnel = client.tunnel;
    if client.out.is_empty() {
        service.worker.give_back(client.out.take_buffer());
    }
    match ending {
        Ending::Complete if keep && response_framing != BodyFraming::UntilClose => {
            *rest = body.into_rest();
            Next::Continue
        }
        Ending::Complete if body.has_rest() => Next::Linger,
        Ending::Complete => Next::Close,
        Ending::CompleteThenClose => Next::Linger,
        // A body that ends with the connection would look whole after an orderly close.
        Ending::Abort(_) if response_framing == BodyFraming::UntilClose && !tunnel => Next::Reset,
        Ending::Abort(_) | Ending::Gone => Next::Gone,
        Ending::Drop => Next::Drop,
        Ending::Reset => Next::Reset,
    }
}

/// Answers what is no acceptable request, and writes its record.
async fn refuse(
    service: &Rc<Service>,
    connection: &Rc<Connection>,
    transport: &Transport,
    timer: &Timer,
    refusal: Refusal,
) -> Next {
    exchange::record_refused(service, connection, Version::Http11, refusal);
    let reason = refusal.reason;
    if reason == Reason::ClientGone {
        return Next::Gone;
    }
    let reply = respond::failure(reason, &service.listener.config.http.via, "");
    let mut out = Vec::with_capacity(512);
    write::response(
        &mut out,
        reply.status,
        &reply.fields,
        BodyFraming::Length(reply.body.len() as u64),
        Persistence::Close,
    );
    out.extend_from_slice(&reply.body);
    timer.set(service.listener.config.timeouts.head);
    match timer.run(transport.write_all(&out)).await {
        Ok(Ok(())) => Next::Linger,
        _ => Next::Reset,
    }
}

/// The client's side of one exchange on this connection.
struct Http1Client<'a> {
    transport: &'a Transport,
    worker: &'a Worker,
    body: IncomingBody,
    out: Outbox,
    /// Of the response, once its head was sent.
    framing: BodyFraming,
    version: Version,
    keep_alive: bool,
    service: &'a Service,
    tunnel: bool,
    request_framing: Framing,
}

impl ClientSide for Http1Client<'_> {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        self.body
            .poll_pull(cx, self.transport, &self.worker.scratch, take)
    }

    fn ease_body(&mut self) {
        self.body.ease();
    }

    fn body_done(&self) -> bool {
        self.body.is_done()
    }

    fn body_trailers(&mut self) -> Option<Fields> {
        self.body.trailers()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.body
            .poll_gone(cx, self.transport, &self.worker.scratch)
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        if self.version >= Version::Http11 {
            write::response(
                self.out.buffer(),
                head.status,
                &head.fields,
                BodyFraming::None,
                Persistence::Implied,
            );
        }
    }

    fn send_head(&mut self, mut head: ResponseHead, body: ResponseBody, tunnel: Option<&[u8]>) {
        self.framing = match body {
            ResponseBody::None => BodyFraming::None,
            ResponseBody::Length(n) => BodyFraming::Length(n),
            ResponseBody::Empty => BodyFraming::Length(0),
            ResponseBody::Stream if self.version >= Version::Http11 => BodyFraming::Chunked,
            ResponseBody::Stream | ResponseBody::Tunnel => BodyFraming::UntilClose,
        };
        // A request body that nobody read to its end leaves the connection useless.
        let unread = self.request_framing.has_body() && !self.body.is_done();
        if self.framing == BodyFraming::UntilClose || self.service.worker.is_draining() || unread {
            self.keep_alive = false;
        }
        let persistence = match (tunnel, self.keep_alive) {
            (Some(_), _) => Persistence::Upgrade,
            (None, false) => Persistence::Close,
            (None, true) if self.version == Version::Http10 => Persistence::KeepAlive,
            (None, true) => Persistence::Implied,
        };
        if let Some(protocol) = tunnel {
            head.fields.set(b"upgrade", protocol);
            self.tunnel = true;
            self.body.become_tunnel();
        }
        write::response(
            self.out.buffer(),
            head.status,
            &head.fields,
            self.framing,
            persistence,
        );
        self.worker.give_back(head.fields.into_arena());
    }

    fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        if self.framing == BodyFraming::Chunked {
            chunked::write_size(self.out.buffer(), data.len());
            self.out.buffer().extend_from_slice(data);
            self.out.buffer().extend_from_slice(b"\r\n");
            return Ok(());
        }
        self.out.write(cx, self.transport, data)
    }

    fn send_end(&mut self, trailers: Option<Fields>) {
        if self.framing == BodyFraming::Chunked {
            chunked::write_end(self.out.buffer(), trailers.as_ref());
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_flush(cx, self.transport)
    }

    fn limit_stall(&mut self, time: Duration) {
        self.transport.limit_stall(time);
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.out.poll_flush(cx, self.transport))?;
        self.transport.poll_shutdown(cx)
    }
}
