//! A connection's deadline. Phases move it often and it passes rarely, so moving it must cost next to nothing.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The deadline passed before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the deadline passed")
    }
}

impl std::error::Error for Elapsed {}

/// One connection's deadline over one entry in the runtime's timer wheel.
///
/// A later deadline is only written down: the entry fires at the old one, sees the new one and waits on. So the
/// wheel is touched when a deadline comes nearer than the one it waits for, and about once in the shortest phase.
#[derive(Debug)]
pub struct Timer {
    deadline: Cell<Option<Instant>>,
    /// Made when first waited for; a connection that never waits has no wheel entry.
    sleep: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Timer {
    /// Without a deadline: waits for ever until one is set.
    pub fn new() -> Self {
        Self {
            deadline: Cell::new(None),
            sleep: RefCell::new(None),
        }
    }

    /// The deadline is `after` from now, whatever it was. May be called by the work that [`Timer::run`] runs.
    pub fn set(&self, after: Duration) {
        // A duration beyond what the clock can count to means never.
        self.deadline.set(Instant::now().checked_add(after));
    }

    /// No deadline.
    pub fn clear(&self) {
        self.deadline.set(None);
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    /// Runs `work` until it is done or the deadline, as it then stands, passes. Finished work wins over a deadline
    /// that has passed. Not for two callers at a time: the later one alone is woken.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Elapsed> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_elapsed(cx).map(|()| Err(Elapsed))
        })
        .await
    }

    /// Waits for the deadline, as it moves.
    pub async fn elapsed(&self) {
        poll_fn(|cx| self.poll_elapsed(cx)).await;
    }

    /// Ready once the deadline has passed. Wakes the task when it may have.
    pub fn poll_elapsed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline.get() else {
            return Poll::Pending;
        };
        let mut slot = self.sleep.borrow_mut();
        let sleep = slot.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        // Fired at an earlier deadline than today's: wait on for the rest.
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const FAR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn finished_work_wins_over_a_passed_deadline() {
        let timer = Timer::new();
        timer.set(Duration::ZERO);
        assert_eq!(timer.run(async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn unfinished_work_elapses() {
        let timer = Timer::new();
        let start = Instant::now();
        timer.set(SOON);
        assert_eq!(timer.run(std::future::pending::<()>()).await, Err(Elapsed));
        assert!(start.elapsed() >= SOON);
    }

    #[tokio::test]
    async fn a_later_deadline_is_written_down_only() {
        let timer = Timer::new();
        timer.set(SOON);
        let first = timer.deadline().unwrap();
        assert!(poll_once(&timer).await.is_pending());
        timer.set(FAR);
        assert!(poll_once(&timer).await.is_pending());
        assert_eq!(armed(&timer), first);

        // It fires at the first deadline, then waits for the second.
        tokio::time::sleep_until(first + SOON).await;
        assert!(poll_once(&timer).await.is_pending());
        assert_eq!(armed(&timer), timer.deadline().unwrap());
    }

    #[tokio::test]
    async fn a_nearer_deadline_is_kept() {
        let timer = Timer::new();
        timer.set(FAR);
        assert!(poll_once(&timer).await.is_pending());
        timer.set(SOON);
        assert_eq!(timer.run(std::future::pending::<()>()).await, Err(Elapsed));
    }

    #[tokio::test]
    async fn the_work_may_move_its_own_deadline() {
        let timer = Timer::new();
        timer.set(SOON);
        let work = async {
            timer.set(FAR);
            tokio::time::sleep(SOON * 2).await;
            timer.set(SOON);
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        assert_eq!(timer.run(work).await, Err(Elapsed));
        assert!(start.elapsed() >= SOON * 3);
    }

    #[tokio::test]
    async fn without_a_deadline_it_never_elapses() {
        let timer = Timer::new();
        assert!(poll_once(&timer).await.is_pending());
        timer.set(Duration::ZERO);
        timer.clear();
        assert!(poll_once(&timer).await.is_pending());
        timer.set(Duration::MAX);
        assert!(poll_once(&timer).await.is_pending());
    }

    async fn poll_once(timer: &Timer) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(timer.poll_elapsed(cx))).await
    }

    fn armed(timer: &Timer) -> Instant {
        timer.sleep.borrow().as_ref().unwrap().deadline()
    }
}
