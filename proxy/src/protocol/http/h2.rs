//! A client's HTTP/2 connection (RFC 9113): the h2 crate keeps the frames, every stream becomes an exchange.
//!
//! The crate answers the protocol's errors; what a peer may do within the protocol and still too often is counted here
//! and in [`wire`], and ends in GOAWAY with ENHANCE_YOUR_CALM.

mod allowance;
mod body;
mod frames;
mod request;
mod stream;
mod unaccepted;
mod wire;

use crate::config::{ListenerLimits, Timeouts};
use crate::connection::Connection;
use crate::error;
use crate::generation::{Idle, ServiceSlot};
use crate::head::Version;
use crate::io::DropBounds;
use crate::io::timer::Timer;
use crate::io::transport::{Io, Rewound};
use crate::protocol::http::exchange;
use crate::protocol::http::h1::parse::Refusal;
use crate::telemetry::GoAway;
use allowance::Allowance;
use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use hyper::Request;
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use stream::End;
use wire::{Payments, Wire};

/// What one stream may have on its way to us before we have passed it on: enough for 40 Mbit/s over 50 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams together: four stalled uploads stop a connection, one does not.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What of a response may wait in a stream for the socket. Nothing waits there for the client's window.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that may be cancelled early at once, beyond those that end well; or twice `limits.streams`, if that is more,
/// because a page that is left cancels as many. Far more are an attack (CVE-2023-44487).
const CANCELLED_BURST: u32 = 200;
/// What may go on for as long as the client likes: a map that is panned asks for tiles and cancels most of them, ten in
/// each frame of a display. It is work done for nothing, and no more than a client that wants its answers may ask for.
const CANCELLED_PER_SECOND: u32 = 600;
/// A stream that lives longer and is cancelled then was wanted once.
const EARLY: Duration = Duration::from_secs(1);
/// So long frames may come late for a stream that was reset here.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// Lines of a `cookie` that come one by one (RFC 9113 §8.2.3). The crate counts 38 bytes more for each than there are in one line.
const CRUMBS_MAX: usize = 1024;
/// What small frames of DATA may cost in the crate, at some 256 bytes each. Only those of one turn wait there, see
/// [`wire::Wire::begin_turn`] and `body`. But the crate never gives back what it counts for frames that came late, for a
/// stream that had ended, so that there must be room for those of a long life.
const SMALL_FRAMES_BYTES: usize = 16 * 1024 * 1024;

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
                tally: Rc::new(Tally::new(limits.streams, wire.payments())),
                phase: Phase::Open,
                busy: false,
                pinged: false,
            };
            std::future::poll_fn(|cx| driver.poll(cx)).await
        }
        Ok(Some(Err(error))) => {
            blame(&slot, &connection, &error);
            Err(error)
        }
        // No preface came, or a drain began before it.
        Ok(None) | Err(_) => Ok(Closed::InOrder),
    };
    match ended {
        // Unread input would turn the close into a reset, which can overtake the GOAWAY.
        Ok(Closed::InOrder) => wire.close(&worker.scratch).await,
        Ok(Closed::Cut) => {}
        Err(error) => {
            tracing::debug!(%error, "HTTP/2 connection broke");
            if !error.is_io() {
                wire.close(&worker.scratch).await;
            }
        }
    }
}

/// What is told to the peer and what is held against it.
fn settings(limits: &ListenerLimits) -> Builder {
    // The crate counts 32 bytes of overhead a field and the pseudo-fields; `request` counts as for HTTP/1, with a record.
    let head = limits.header_bytes
        + limits.target_bytes
        + 32 * (limits.header_fields + 8)
        + 38 * CRUMBS_MAX;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(SMALL_FRAMES_BYTES)
        // Streams that were cancelled before anyone has looked at them; they are counted like the others once one has.
        .max_pending_accept_reset_streams(limits.streams as usize)
        // Streams that frames against the protocol made us reset, and those that were refused (CVE-2025-8671).
        .max_local_error_reset_streams(Some(cancelled_burst(limits.streams) as usize))
        // Streams we reset are remembered for a moment, for the frames that were under way.
        .max_concurrent_reset_streams(cancelled_burst(limits.streams) as usize)
        .reset_stream_duration(REMEMBERED_FOR);
    builder
}

fn cancelled_burst(streams: u32) -> u32 {
    CANCELLED_BURST.max(streams.saturating_mul(2))
}

/// Reports the GOAWAY by which the crate answers a client that breaks the protocol.
fn blame(slot: &ServiceSlot, connection: &Connection, error: &h2::Error) {
    if !(error.is_go_away() && error.is_library()) {
        return;
    }
    let code = error.reason().unwrap_or(Reason::PROTOCOL_ERROR);
    let why = match code {
        Reason::ENHANCE_YOUR_CALM => GoAway::Flood,
        _ => GoAway::Protocol,
    };
    tracing::debug!(peer = %connection.peer, %error, "HTTP/2 client broke a rule");
    report(slot, connection, why, code);
}

/// Counts and logs why a GOAWAY goes out. What the client is to blame for is also why its exchanges end.
fn report(slot: &ServiceSlot, connection: &Connection, why: GoAway, code: Reason) {
    slot.current().metrics.goes_away(why);
    let (listener, reason) = (&*connection.listener, why.as_str());
    let blame = match why {
        GoAway::Drain | GoAway::Idle => None,
        GoAway::Flood | GoAway::Cancellations => Some(error::Reason::ClientFlood),
        GoAway::Protocol => Some(error::Reason::ClientProtocol),
    };
    let peer = connection.peer;
    if blame.is_some() {
        tracing::info!(listener, %peer, reason, ?code, "HTTP/2 connection ended by GOAWAY");
        connection.ended.set(blame);
    } else {
        tracing::debug!(listener, %peer, reason, ?code, "HTTP/2 connection ended by GOAWAY");
    }
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
        let ended = self.turn(cx);
        self.record_refused();
        ended
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Closed, h2::Error>> {
        self.tally.drive_by(cx);
        self.wire.begin_turn();
        while self.timer.poll_elapsed(cx).is_ready() {
            if self.expire() {
                return Poll::Ready(Ok(Closed::Cut));
            }
        }
        loop {
            if self.phase == Phase::Open && self.idle.poll_drain(cx).is_ready() {
                self.leave(GoAway::Drain);
            }
            if self.phase != Phase::Shut
                && let Some(why) = self.abuse()
            {
                report(&self.slot, &self.connection, why, Reason::ENHANCE_YOUR_CALM);
                self.shut(Reason::ENHANCE_YOUR_CALM);
            }
            match self.frames.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.wire.accepted(respond.stream_id().as_u32());
                    self.accept(request, respond);
                }
                Poll::Ready(Some(Err(error))) => {
                    if self.phase != Phase::Shut {
                        blame(&self.slot, &self.connection, &error);
                    }
                    return Poll::Ready(Err(error));
                }
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

    /// Writes the records of requests that the crate has refused by itself. Their `status` is the one that HTTP/1 has for it.
    fn record_refused(&self) {
        for (stream, reason) in self.wire.take_refused() {
            tracing::debug!(peer = %self.connection.peer, stream, %reason, "HTTP/2 request refused");
            let refusal = Refusal { reason, byte: None };
            let service = self.slot.current();
            exchange::record_refused(&service, &self.connection, Version::Http2, refusal);
        }
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
            Phase::Open => self.leave(GoAway::Idle),
            // It was told, and has not said that it heard.
            Phase::Leaving => self.shut(Reason::NO_ERROR),
        }
        false
    }

    fn is_busy(&self) -> bool {
        self.tally.running.get() > 0 || self.frames.has_streams()
    }

    /// What the client does too often.
    fn abuse(&self) -> Option<GoAway> {
        if self.wire.is_flooded() {
            Some(GoAway::Flood)
        } else if self.tally.is_over.get() {
            Some(GoAway::Cancellations)
        } else {
            None
        }
    }

    fn leave(&mut self, why: GoAway) {
        report(&self.slot, &self.connection, why, Reason::NO_ERROR);
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
            let payments = running.0.payments.clone();
            let end = stream::serve(service, connection, payments, request, respond).await;
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
    /// Streams that the client may still cancel early; each that ends well allows one more.
    cancelled: RefCell<Allowance>,
    is_over: Cell<bool>,
    payments: Payments,
    driver: RefCell<Option<Waker>>,
}

impl Tally {
    fn new(streams: u32, payments: Payments) -> Self {
        let (burst, now) = (cancelled_burst(streams), Instant::now());
        let cancelled = Allowance::new(burst, burst, CANCELLED_PER_SECOND, now);
        Self {
            running: Cell::new(0),
            cancelled: RefCell::new(cancelled),
            is_over: Cell::new(false),
            payments,
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
        self.cancelled.borrow_mut().earn(1);
    }

    fn ended_early(&self) {
        if self.cancelled.borrow_mut().spend(Instant::now) {
            return;
        }
        self.is_over.set(true);
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
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
