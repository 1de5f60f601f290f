//! The connection's bytes on their way to and from the h2 crate, with an eye on the frames. Those that ask for work and
//! bring nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty DATA, kinds nobody knows) are paid for by what
//! is moved in either direction: requests, messages, bytes. A peer that sends many more is flooding (CVE-2019-9511 to -9518).

use super::allowance::Allowance;
use super::frames::{CONTINUATION, DATA, Frames, HEADERS, PREFACE_BYTES};
use super::unaccepted::Unaccepted;
use crate::error::Reason;
use crate::io::transport::Rewound;
use crate::io::{DropBounds, Scratch, drop_quietly};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Unpaid frames that a peer may send at once, and how many it may go on to send.
const UNPAID_BURST: u32 = 1000;
const UNPAID_PER_SECOND: u32 = 100;
/// What may be earned in advance: a peer acknowledges long after it was sent something. Each token was earned by work that
/// costs more than the frame it pays for.
const EARNED_MAX: u32 = 1 << 18;
/// Frames that come with a request: its priority, its windows, its cancellation.
const PAID_BY_REQUEST: u32 = 4;
/// Frames that answer a piece of a response, or a whole message: both windows, and a ping that measures the way.
const PAID_BY_DATA: u32 = 3;
/// Smaller pieces pay for nothing by themselves: a peer can ask for them with a window of one byte after the other. What is
/// a whole message and small pays by [`Payments::message_sent`].
pub(super) const DATA_MIN: usize = 32;
/// Frames that a client sends beside a piece of a request's body.
const PAID_BY_UPLOAD: u32 = 2;

/// Small frames of DATA that are read before the streams have their turn to take them.
const TURN_MAX: u32 = 512;
/// What the h2 crate counts as small.
const SMALL: usize = 256;

/// Shared by the h2 crate and the connection's driver.
#[derive(Clone)]
pub(super) struct Wire(Rc<RefCell<State>>);

struct State {
    io: Rewound,
    received: Frames,
    sent: Frames,
    payments: Payments,
    unaccepted: Unaccepted,
    /// The peer sent something, or took a part of a response.
    moved: bool,
    /// Small frames of DATA that were read in this turn of the driver.
    small: u32,
}

impl Wire {
    pub(super) fn new(io: Rewound) -> Self {
        Self(Rc::new(RefCell::new(State {
            io,
            received: Frames::after(PREFACE_BYTES),
            sent: Frames::after(0),
            payments: Payments::default(),
            unaccepted: Unaccepted::default(),
            moved: false,
            small: 0,
        })))
    }

    /// Once true, nothing is read any more.
    pub(super) fn is_flooded(&self) -> bool {
        self.0.borrow().payments.are_overdrawn()
    }

    /// The streams had their turn, and have taken what was read for them.
    pub(super) fn begin_turn(&self) {
        self.0.borrow_mut().small = 0;
    }

    /// What is paid and owed, for those who know of messages.
    pub(super) fn payments(&self) -> Payments {
        self.0.borrow().payments.clone()
    }

    /// The h2 crate has handed the request of this stream over.
    pub(super) fn accepted(&self, stream: u32) {
        self.0.borrow_mut().unaccepted.accepted(stream);
    }

    /// Why the h2 crate has refused requests since the last call, each with its stream. To be asked when everything that was
    /// read has been accepted.
    pub(super) fn take_refused(&self) -> Vec<(u32, Reason)> {
        self.0.borrow_mut().unaccepted.take_refused()
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
        if state.payments.are_overdrawn() {
            // The driver asks after each poll; there is nothing to be woken for.
            return Poll::Pending;
        }
        if state.small >= TURN_MAX {
            // The tasks of the streams were woken before.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut state.io).poll_read(cx, buffer);
        let bytes = &buffer.filled()[before..];
        if bytes.is_empty() {
            return read;
        }
        state.moved = true;
        let small = &mut state.small;
        let mut balance = state.payments.0.borrow_mut();
        let unaccepted = &mut state.unaccepted;
        state.received.pass(bytes, |frame| match frame.kind {
            HEADERS => {
                balance.allowance.earn(PAID_BY_REQUEST);
                unaccepted.requested(frame.stream);
            }
            CONTINUATION => {}
            DATA if frame.len > 0 => {
                *small += u32::from(frame.len < SMALL);
                balance.allowance.earn(PAID_BY_UPLOAD);
            }
            _ => balance.overdrawn |= !balance.allowance.spend(Instant::now),
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
            let mut balance = state.payments.0.borrow_mut();
            let moved = &mut state.moved;
            let unaccepted = &mut state.unaccepted;
            state.sent.pass(&bytes[..n], |frame| {
                *moved |= frame.kind == DATA;
                if frame.kind == DATA && frame.len >= DATA_MIN {
                    balance.allowance.earn(PAID_BY_DATA);
                }
                unaccepted.sent(frame);
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

/// What a peer may still ask for, shared by a connection and its streams.
#[derive(Clone)]
pub(super) struct Payments(Rc<RefCell<Balance>>);

struct Balance {
    allowance: Allowance,
    overdrawn: bool,
}

impl Default for Payments {
    fn default() -> Self {
        let now = Instant::now();
        let allowance = Allowance::new(UNPAID_BURST, EARNED_MAX, UNPAID_PER_SECOND, now);
        Self(Rc::new(RefCell::new(Balance {
            allowance,
            overdrawn: false,
        })))
    }
}

impl Payments {
    /// Counts a piece of a response that has gone to its end, however small it was: that its peer let it go in small
    /// pieces brings no more.
    pub(super) fn message_sent(&self) {
        self.0.borrow_mut().allowance.earn(PAID_BY_DATA);
    }

    fn are_overdrawn(&self) -> bool {
        self.0.borrow().overdrawn
    }
}
