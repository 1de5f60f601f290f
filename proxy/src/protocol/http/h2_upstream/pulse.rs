//! Whether an endpoint is still there, as one HTTP/2 connection to it shows.
//!
//! While something was asked and nothing at all arrives, the endpoint is sent a PING. When that is not answered in time
//! either, the connection is in doubt: new requests go elsewhere, and what waits can be asked again once the endpoint
//! speaks on another connection. Whatever arrives takes the doubt away.
//!
//! Servers count PINGs. Those for gRPC end a connection at the fourth within five minutes in which they sent neither a head
//! nor data, so that no more than two are sent then, and one in five minutes beyond those.

use crate::config::PingSettings;
use crate::io::Io;
use h2::{Ping, PingPong};
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// PINGs for which a server is paid by what it sends itself.
const PAID: u32 = 2;
/// From one PING to the next when nothing pays for it; a server for gRPC wants five minutes.
const UNPAID_EVERY: Duration = Duration::from_secs(330);

/// What a connection's transport and its users count.
#[derive(Debug, Default, Clone)]
pub(super) struct Traffic {
    /// Reads that brought something.
    arrived: Rc<Cell<u64>>,
    /// What was asked of the endpoint.
    pub(super) asked: Rc<Cell<u64>>,
    /// `asked` at the time of the last read that brought something.
    answered: Rc<Cell<u64>>,
}

impl Traffic {
    fn arrive(&self) {
        self.arrived.set(self.arrived.get().wrapping_add(1));
        self.answered.set(self.asked.get());
    }

    /// Something was asked, and nothing has come since.
    fn is_owed(&self) -> bool {
        self.asked.get() != self.answered.get()
    }
}

/// A transport that counts what arrives.
#[derive(Debug)]
pub(super) struct Counted {
    io: Io,
    traffic: Traffic,
}

impl Counted {
    pub(super) fn new(io: Io, traffic: Traffic) -> Self {
        Self { io, traffic }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.traffic.arrive();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What one look at the connection found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    Nothing,
    /// Something arrived since the last look.
    Arrived,
    /// A PING was not answered in time.
    Silent,
}

/// Watches one connection from its own task.
pub(super) struct Pulse {
    settings: PingSettings,
    traffic: Traffic,
    pings: PingPong,
    /// A PING is out.
    pinged: bool,
    /// Rings of the alarm in a row that found that nothing had arrived since the one before.
    silent: u32,
    seen: u64,
    /// What had arrived at the last ring.
    rung: u64,
    sent: Budget,
    alarm: Pin<Box<Sleep>>,
    /// The alarm is set.
    armed: bool,
    /// It said that the endpoint is silent, and nothing came since.
    told: bool,
}

/// How many PINGs may still be sent.
#[derive(Debug, Default)]
struct Budget {
    /// Since a head or data came last.
    unpaid: u32,
    heard: u64,
    last: Option<Instant>,
}

impl Budget {
    /// Takes one, if it may be had. `heard` changes whenever a head or data comes.
    fn take(&mut self, heard: u64, now: Instant) -> bool {
        if self.heard != heard {
            self.heard = heard;
            self.unpaid = 0;
        }
        let due = self.last.is_none_or(|last| now >= last + UNPAID_EVERY);
        if self.unpaid >= PAID && !due {
            return false;
        }
        self.unpaid += 1;
        self.last = Some(now);
        true
    }
}

impl Pulse {
    /// None when the settings want no PINGs.
    pub(super) fn new(
        settings: &PingSettings,
        traffic: Traffic,
        pings: Option<PingPong>,
    ) -> Option<Self> {
        settings.interval?;
        Some(Self {
            settings: settings.clone(),
            traffic,
            pings: pings?,
            pinged: false,
            silent: 0,
            seen: 0,
            rung: 0,
            sent: Budget::default(),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: false,
            told: false,
        })
    }

    /// Polled whenever the connection is; wakes its task when the next look is due. `busy` says whether exchanges run,
    /// `heard` changes whenever a head or data comes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, busy: bool, heard: u64) -> Finding {
        if self.pinged && self.pings.poll_pong(cx).is_ready() {
            self.pinged = false;
        }
        let mut finding = Finding::Nothing;
        if self.traffic.arrived.get() != self.seen {
            self.seen = self.traffic.arrived.get();
            self.told = false;
            finding = Finding::Arrived;
        }
        if !busy || self.told || !self.traffic.is_owed() {
            // The alarm may ring in vain; it is not set again before something is owed.
            return finding;
        }
        if !self.armed {
            (self.armed, self.rung, self.silent) = (true, self.seen, 0);
            self.set_alarm(self.look_every());
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if self.rung != self.seen {
                (self.rung, self.silent) = (self.seen, 0);
            } else {
                self.silent += 1;
            }
            let mut next = self.look_every();
            if self.silent >= 2 {
                if self.pinged {
                    (self.told, self.armed) = (true, false);
                    return Finding::Silent;
                }
                // When none may be sent, the next look comes as soon.
                if self.sent.take(heard, Instant::now()) {
                    self.pinged = self.pings.send_ping(Ping::opaque()).is_ok();
                    next = self.settings.timeout;
                }
            }
            self.set_alarm(next);
        }
        finding
    }

    /// Twice within the interval, so that silence is noticed after one and a half of it at most. Nothing is set anew when
    /// something arrives: a connection in use costs two rings in an interval.
    fn look_every(&self) -> Duration {
        self.settings.interval.unwrap_or(Duration::MAX) / 2
    }

    fn set_alarm(&mut self, after: Duration) {
        // A time beyond reckoning is as good as a year.
        let at = Instant::now() + after.min(Duration::from_secs(31_536_000));
        self.alarm.as_mut().reset(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_few() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        let mut sent = 0;
        for second in 0..3600 {
            sent += u32::from(budget.take(0, start + Duration::from_secs(second)));
        }
        assert_eq!(sent, PAID + 3600 / 330, "in an hour of silence");
        assert!(budget.take(1, start + Duration::from_secs(3600)));
        assert!(budget.take(1, start + Duration::from_secs(3601)));
        assert!(!budget.take(1, start + Duration::from_secs(3602)));
    }
}
