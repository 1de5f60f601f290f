//! The connection's bytes on their way to and from the h2 crate, with an eye on the frames: those that ask for work and
//! bring nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, kinds nobody knows) are paid for by those that
//! carry requests and responses, and a peer that sends many more is flooding (CVE-2019-9511 to -9518).

use crate::io::transport::Rewound;
use crate::io::{DropBounds, Scratch, drop_quietly};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Unpaid frames of a peer within [`PERIOD`]; a well-behaved one stays below a hundred.
const UNPAID_MAX: u32 = 1000;
const PERIOD: Duration = Duration::from_secs(10);
/// Frames that come with a request: its priority, its windows, its cancellation.
const PAID_BY_REQUEST: u32 = 4;
/// Frames that answer a piece of a response: both windows, and a ping that measures the way.
const PAID_BY_DATA: u32 = 3;
/// Smaller pieces of a response pay for nothing: a peer can ask for them with a window of one byte after the other.
const DATA_MIN: usize = 32;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// Shared by the h2 crate and the connection's driver.
#[derive(Clone)]
pub(super) struct Wire(Rc<RefCell<State>>);

struct State {
    io: Rewound,
    received: Frames,
    sent: Frames,
    balance: Balance,
    /// The peer sent something, or took a part of a response.
    moved: bool,
}

impl Wire {
    pub(super) fn new(io: Rewound) -> Self {
        Self(Rc::new(RefCell::new(State {
            io,
            received: Frames::after(PREFACE_BYTES),
            sent: Frames::after(0),
            balance: Balance::new(Instant::now()),
            moved: false,
        })))
    }

    /// Once true, nothing is read any more.
    pub(super) fn is_flooded(&self) -> bool {
        self.0.borrow().balance.flooded
    }

    /// True when the peer showed since the last call that it is there.
    pub(super) fn take_moved(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().moved)
    }

    /// Ends it in order, when the h2 crate has let go of it.
    pub(super) async fn close(self, scratch: &Scratch) {
        if let Some(state) = Rc::into_inner(self.0) {
            drop_quietly(state.into_inner().io, scratch, DropBounds::default()).await;
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        if state.balance.flooded {
            // The driver asks after each poll; there is nothing to be woken for.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut state.io).poll_read(cx, buffer);
        let (balance, bytes) = (&mut state.balance, &buffer.filled()[before..]);
        state.moved |= !bytes.is_empty();
        state.received.pass(bytes, |kind, len| match kind {
            HEADERS => balance.pay(PAID_BY_REQUEST),
            CONTINUATION => {}
            DATA if len > 0 => {}
            _ => balance.charge(Instant::now),
        });
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.borrow_mut();
        let written = Pin::new(&mut state.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = written {
            let (balance, moved) = (&mut state.balance, &mut state.moved);
            state.sent.pass(&bytes[..n], |kind, len| {
                *moved |= kind == DATA;
                if kind == DATA && len >= DATA_MIN {
                    balance.pay(PAID_BY_DATA);
                }
            });
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}

/// What a peer may still ask for.
struct Balance {
    unpaid: u32,
    since: Instant,
    flooded: bool,
}

impl Balance {
    fn new(now: Instant) -> Self {
        Self {
            unpaid: 0,
            since: now,
            flooded: false,
        }
    }

    fn pay(&mut self, frames: u32) {
        self.unpaid = self.unpaid.saturating_sub(frames);
    }

    fn charge(&mut self, now: impl FnOnce() -> Instant) {
        self.unpaid += 1;
        if self.unpaid <= UNPAID_MAX {
            return;
        }
        let now = now();
        if now.saturating_duration_since(self.since) < PERIOD {
            self.flooded = true;
        }
        (self.unpaid, self.since) = (0, now);
    }
}

/// Finds where frames begin in bytes that come in any pieces.
struct Frames {
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Bytes that belong to no frame head.
    skip: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self {
            head: [0; HEAD_BYTES],
            have: 0,
            skip,
        }
    }

    /// Tells `found` the kind and the length of each frame whose head is complete.
    fn pass(&mut self, mut bytes: &[u8], mut found: impl FnMut(u8, usize)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = (HEAD_BYTES - self.have).min(bytes.len());
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                (self.have, self.skip) = (0, len);
                found(kind, len);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, len: u8) -> Vec<u8> {
        let mut out = vec![0, 0, len, kind, 0, 0, 0, 0, 1];
        out.extend(std::iter::repeat_n(0xff, usize::from(len)));
        out
    }

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        let mut bytes = vec![b'P'; PREFACE_BYTES];
        let expected = [(4, 0), (1, 20), (0, 255), (6, 8), (0, 0)];
        for (kind, len) in expected {
            bytes.extend(frame(kind, len));
        }
        for piece in [1, 2, 7, 9, 10, 1000] {
            let mut frames = Frames::after(PREFACE_BYTES);
            let mut found = Vec::new();
            for part in bytes.chunks(piece) {
                frames.pass(part, |kind, len| found.push((kind, len as u8)));
            }
            assert_eq!(found, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_flood_is_what_nothing_pays_for_within_the_period() {
        let began = Instant::now();
        let within = || began + PERIOD / 2;
        let mut balance = Balance::new(began);
        for _ in 0..UNPAID_MAX {
            balance.charge(within);
        }
        assert!(!balance.flooded);
        balance.charge(within);
        assert!(balance.flooded);

        let mut slow = Balance::new(began);
        for n in 0..20 * UNPAID_MAX {
            slow.charge(|| began + PERIOD * (1 + n / UNPAID_MAX));
        }
        assert!(!slow.flooded);

        let mut paid = Balance::new(began);
        for _ in 0..20 * UNPAID_MAX {
            paid.charge(within);
            paid.pay(1);
        }
        assert!(!paid.flooded);
    }
}
