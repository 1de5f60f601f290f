//! A client's HTTP/2 connection (RFC 9113): the h2 crate keeps the frames, every stream becomes an exchange.
//!
//! The crate answers the protocol's errors; what a peer may do within the protocol and still too often is counted here
//! and in [`wire`], and ends in GOAWAY with ENHANCE_YOUR_CALM.

mod request;
mod stream;
mod wire;

use crate::config::{ListenerLimits, Timeouts};
use crate::connection::Connection;
use crate::generation::{Idle, ServiceSlot};
use crate::head::Fields;
use crate::io::DropBounds;
use crate::io::timer::Timer;
use crate::io::transport::{Io, Rewound};
use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use stream::End;
use wire::Wire;

/// What one stream may have on its way to us before we have passed it on: enough for 40 Mbit/s over 50 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams together: four stalled uploads stop a connection, one does not.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What of a response may wait in a stream for the socket. Nothing waits there for the client's window.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client cancels before anyone has looked at them; more at once are an attack (CVE-2023-44487).
const UNSEEN_RESETS_MAX: usize = 20;
/// Streams that end early by the client's doing, beyond those that end well. A page that is left cancels up to
/// `limits.streams` at once, and clients do not leave one page after the other in the first second of each.
const RESETS_MAX: usize = 200;
/// A stream that lives longer and is cancelled then was wanted once.
const EARLY: Duration = Duration::from_secs(1);

/// Serves the connection to its end. `initial` are bytes that were read already.
pub async fn serve(slot: Rc<ServiceSlot>, connection: Rc<Connection>, io: Io, initial: Vec<u8>) {
    // A connection that waits holds no service, so that it keeps no generation that was replaced alive.
    let (worker, timeouts, limits) = {
        let service = slot.current();
        let config = &service.listener.config;
        (
            service.worker.clone(),
            config.timeouts.clone(),
            config.limits.clone(),
        )
    };
    let wire = Wire::new(Rewound::new(initial, io));
    let timer = Timer::new();
    let mut idle = worker.idle();
    let mut settings = settings(&limits);
    if request::has_websocket(&slot.current().listener.config.http) {
        settings.enable_connect_protocol();
    }

    timer.set(timeouts.head);
    let mut handshake = pin!(settings.handshake::<_, Bytes>(wire.clone()));
    let shaken = timer.run(std::future::poll_fn(|cx| {
        match handshake.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => idle.poll_drain(cx).map(|()| None),
        }
    }));
    let ended = match shaken.await {
        Ok(Some(Ok(mut frames))) => {
            timer.set(timeouts.keep_alive);
            let mut driver = Driver {
                pings: frames.ping_pong(),
                frames,
                wire: &wire,
                slot,
                connection,
                timer: &timer,
                timeouts,
                idle,
                streams_max: limits.streams as usize,
                tally: Rc::new(Tally::new(limits.streams as usize)),
                phase: Phase::Open,
                busy: false,
                pinged: false,
            };
            std::future::poll_fn(|cx| driver.poll(cx)).await
        }
        Ok(Some(Err(error))) => Err(error),
        // No preface came, or a drain began before it.
        Ok(None) | Err(_) => Ok(Closed::InOrder),
    };
    match ended {
        // Unread input would turn the close into a reset, which can overtake the GOAWAY.
        Ok(Closed::InOrder) => wire.close(&worker.scratch).await,
        Ok(Closed::Cut) => {}
        Err(error) => {
            tracing::debug!(%error, "HTTP/2 connection ended");
            if !error.is_io() {
                wire.close(&worker.scratch).await;
            }
        }
    }
}

/// What is told to the peer and what is held against it.
fn settings(limits: &ListenerLimits) -> Builder {
    // The crate counts 32 bytes of overhead a field and the pseudo-fields; `request` counts as for HTTP/1, with a record.
    let head = limits.header_bytes + limits.target_bytes + 32 * (limits.header_fields + 8);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        // Streams that frames against the protocol made us reset, and those that were refused (CVE-2025-8671).
        .max_local_error_reset_streams(Some(resets_max(limits.streams as usize)))
        // Streams we reset are remembered for a moment, for the frames that were under way.
        .max_concurrent_reset_streams(limits.streams as usize);
    builder
}

fn resets_max(streams: usize) -> usize {
    RESETS_MAX.max(2 * streams)
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

/// How a connection ended that did not break.
enum Closed {
    InOrder,
    /// The peer takes nothing any more, so there is nothing to wait for.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A GOAWAY without error is out; streams that began are served.
    Leaving,
    /// The last GOAWAY is on its way out, and then it ends.
    Shut,
}

struct Driver<'a> {
    frames: h2::server::Connection<Wire, Bytes>,
    wire: &'a Wire,
    slot: Rc<ServiceSlot>,
    connection: Rc<Connection>,
    timer: &'a Timer,
    timeouts: Timeouts,
    idle: Idle,
    streams_max: usize,
    tally: Rc<Tally>,
    pings: Option<PingPong>,
    phase: Phase,
    /// Streams ran when it was looked at last.
    busy: bool,
    /// A ping was sent because nothing had moved; since then nothing has.
    pinged: bool,
}

impl Driver<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Closed, h2::Error>> {
        self.tally.drive_by(cx);
        while self.timer.poll_elapsed(cx).is_ready() {
            if self.expire() {
                return Poll::Ready(Ok(Closed::Cut));
            }
        }
        loop {
            if self.phase == Phase::Open && self.idle.poll_drain(cx).is_ready() {
                self.leave();
            }
            if self.phase != Phase::Shut && (self.wire.is_flooded() || self.tally.is_over()) {
                tracing::debug!(peer = %self.connection.peer, "HTTP/2 client told to calm down");
                self.shut(Reason::ENHANCE_YOUR_CALM);
            }
            match self.frames.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(Closed::InOrder)),
                Poll::Pending if self.phase != Phase::Shut && self.wire.is_flooded() => {}
                Poll::Pending => break,
            }
        }
        self.stay();
        // A deadline that came nearer must be waited for anew.
        if self.timer.poll_elapsed(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Moves the deadline of a connection that lives.
    fn stay(&mut self) {
        let (was_busy, moved) = (self.busy, self.wire.take_moved());
        self.busy = self.is_busy();
        if self.phase == Phase::Shut {
            return;
        }
        if self.busy && (moved || !was_busy) {
            self.pinged = false;
            self.timer.set(self.timeouts.keep_alive);
        } else if !self.busy && was_busy {
            self.timer.set(match self.phase {
                Phase::Open => self.timeouts.keep_alive,
                _ => DropBounds::default().time,
            });
        }
    }

    /// Nothing has moved for too long. True: it is over.
    fn expire(&mut self) -> bool {
        self.busy = self.is_busy();
        match self.phase {
            Phase::Shut => return true,
            _ if self.busy && self.pinged => return true,
            _ if self.busy => {
                // The peer's machine may be gone, or it has stopped reading; the answer tells.
                self.pinged = true;
                if let Some(pings) = &mut self.pings {
                    // The answer to the ping before has to be fetched first. Errors are those of the connection.
                    let mut cx = Context::from_waker(Waker::noop());
                    let _ = pings.poll_pong(&mut cx);
                    let _ = pings.send_ping(Ping::opaque());
                }
                self.timer.set(self.timeouts.head);
            }
            Phase::Open => self.leave(),
            // It was told, and has not said that it heard.
            Phase::Leaving => self.shut(Reason::NO_ERROR),
        }
        false
    }

    fn is_busy(&self) -> bool {
        self.tally.running.get() > 0 || self.frames.has_streams()
    }

    fn leave(&mut self) {
        self.phase = Phase::Leaving;
        self.frames.graceful_shutdown();
        if !self.is_busy() {
            // It takes one way there and back to know that no request was under way.
            self.timer.set(DropBounds::default().time);
        }
    }

    fn shut(&mut self, reason: Reason) {
        self.phase = Phase::Shut;
        self.frames.abrupt_shutdown(reason);
        self.timer.set(DropBounds::default().time);
    }

    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        // Exchanges of streams that were cancelled still unwind for a moment; together they stay bounded too.
        if self.phase == Phase::Shut || self.tally.running.get() >= 2 * self.streams_max {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let running = Running::new(&self.tally);
        let (service, connection) = (self.slot.current(), self.connection.clone());
        tokio::task::spawn_local(async move {
            let began = Instant::now();
            let end = stream::serve(service, connection, request, respond).await;
            match end {
                End::Served => running.0.ended_well(),
                End::Cancelled if began.elapsed() < EARLY => running.0.ended_early(),
                End::Cancelled => {}
            }
        });
    }
}

/// What a connection's streams tell its driver.
struct Tally {
    running: Cell<usize>,
    /// Early ends beyond good ones.
    resets: Cell<usize>,
    resets_max: usize,
    driver: RefCell<Option<Waker>>,
}

impl Tally {
    fn new(streams: usize) -> Self {
        Self {
            running: Cell::new(0),
            resets: Cell::new(0),
            resets_max: resets_max(streams),
            driver: RefCell::new(None),
        }
    }

    fn drive_by(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match &mut *driver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn ended_well(&self) {
        self.resets.set(self.resets.get().saturating_sub(1));
    }

    fn ended_early(&self) {
        self.resets.set(self.resets.get() + 1);
        if self.is_over()
            && let Some(driver) = self.driver.borrow_mut().take()
        {
            driver.wake();
        }
    }

    fn is_over(&self) -> bool {
        self.resets.get() > self.resets_max
    }
}

/// Counts the exchanges of a connection that have not ended.
struct Running(Rc<Tally>);

impl Running {
    fn new(tally: &Rc<Tally>) -> Self {
        tally.running.set(tally.running.get() + 1);
        Self(tally.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}
