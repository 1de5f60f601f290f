//! Waiting: sleep, calls of HTTP services and a store, inside of a verdict that comes
//! [later](crate::Verdict::later).
//!
//! ```
//! use std::time::Duration;
//! use sluicegate_sdk::{RequestVerdict, effect};
//!
//! fn slowed_down() -> RequestVerdict {
//!     RequestVerdict::later(async {
//!         effect::sleep(Duration::from_millis(50)).await;
//!         RequestVerdict::next()
//!     })
//! }
//! ```
//!
//! The proxy performs what the future awaits, and calls this instance for other exchanges meanwhile. What is awaited
//! together ([`join`], [`join_all`]) is performed at the same time. There is nothing else to wait for: a future that
//! awaits something that is none of the SDK's effects is a fault.
//!
//! When the client leaves, or the exchange is out of time, the effects under way answer [`Error::Cancelled`] once (a
//! sleep does not return), then the future is dropped; its verdict is not looked at any more.

pub(crate) mod executor;
pub(crate) mod operation;

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use executor::{Outcome, Place};

/// What one sleep of the contract may be; longer ones are several.
const SLEEP_MAX: Duration = Duration::from_millis(60_000);

/// How an effect fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// It was not done in time.
    Timeout,
    /// The service, or the store, cannot be reached or refuses.
    Refused,
    /// The response, or the value, is larger than it may be.
    TooLarge,
    /// What came back is no valid message.
    Malformed,
    /// A limit was reached, or nobody is there who could do it.
    Unavailable,
    /// What was asked for does not fit what is there: an increment of what is no number, say.
    Invalid,
    /// The exchange ended before it was done.
    Cancelled,
}

impl Error {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::Cancelled => "cancelled",
        }
    }

    /// A word of a later contract counts as `unavailable`.
    pub(crate) fn from_word(word: &[u8]) -> Self {
        const ALL: [Error; 7] = [
            Error::Timeout,
            Error::Refused,
            Error::TooLarge,
            Error::Malformed,
            Error::Unavailable,
            Error::Invalid,
            Error::Cancelled,
        ];
        let known = ALL.into_iter().find(|e| e.as_str().as_bytes() == word);
        known.unwrap_or(Error::Unavailable)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Error {}

/// Waits for at least this long. Fractions of a millisecond count as one.
pub async fn sleep(duration: Duration) {
    let mut left = duration;
    loop {
        let piece = left.min(SLEEP_MAX);
        let ms = piece.as_nanos().div_ceil(1_000_000) as u32;
        let mut operation = Vec::new();
        operation::write(&mut operation, operation::SLEEP, b"", &ms.to_le_bytes());
        Effect::new(operation, |outcome| match outcome {
            // The exchange is over: nobody waits for what would come next.
            Outcome::Failed(_) => None,
            _ => Some(()),
        })
        .await;
        left = left.saturating_sub(piece);
        if left.is_zero() {
            return;
        }
    }
}

/// Waits for both, at the same time.
pub async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(move |cx| {
        poll_into(a.as_mut(), cx, &mut first);
        poll_into(b.as_mut(), cx, &mut second);
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// Waits for all of them, at the same time; the results are in their order. Of more than sixteen, the seventeenth begins
/// when the first sixteen are done.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(move |cx| {
        for (future, output) in &mut all {
            poll_into(future.as_mut(), cx, output);
        }
        if all.iter().any(|(_, output)| output.is_none()) {
            return Poll::Pending;
        }
        Poll::Ready(all.drain(..).filter_map(|(_, output)| output).collect())
    })
    .await
}

fn poll_into<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>, output: &mut Option<F::Output>) {
    if output.is_none()
        && let Poll::Ready(done) = future.poll(cx)
    {
        *output = Some(done);
    }
}

/// One effect: asked for when it is first awaited.
#[must_use = "an effect does nothing unless it is awaited"]
pub(crate) struct Effect<T> {
    state: State,
    /// None: never.
    read: fn(Outcome) -> Option<T>,
}

enum State {
    /// The operation that asks for it.
    New(Vec<u8>),
    Asked(Place),
    Over,
}

impl<T> Effect<T> {
    pub(crate) fn new(operation: Vec<u8>, read: fn(Outcome) -> Option<T>) -> Self {
        Self {
            state: State::New(operation),
            read,
        }
    }
}

impl<T> Future for Effect<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        match std::mem::replace(&mut this.state, State::Over) {
            State::New(operation) => this.state = State::Asked(executor::ask(operation)),
            State::Asked(place) => match place.take() {
                None => this.state = State::Asked(place),
                Some(outcome) => {
                    if let Some(done) = (this.read)(outcome) {
                        return Poll::Ready(done);
                    }
                }
            },
            State::Over => {}
        }
        Poll::Pending
    }
}
