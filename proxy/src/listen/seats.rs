//! How many client connections a listener may have at one time, counted over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A listener's limit. Taking and leaving a seat is one atomic operation, unless someone waits.
#[derive(Debug)]
pub struct Seats {
    limit: AtomicUsize,
    taken: AtomicUsize,
    waiting: AtomicUsize,
    left: Notify,
}

/// One connection's seat; free again when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
}

impl Seats {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            left: Notify::new(),
        })
    }

    /// Changes the limit at a reload. Connections over a lower limit stay.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        self.left.notify_waiters();
    }

    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn try_take(self: &Arc<Self>) -> Option<Seat> {
        let limit = self.limit.load(Ordering::SeqCst);
        self.taken
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .ok()?;
        Some(Seat {
            seats: self.clone(),
        })
    }

    /// Waits until a seat is free and takes it.
    pub async fn take(self: &Arc<Self>) -> Seat {
        loop {
            if let Some(seat) = self.try_take() {
                return seat;
            }
            let _waiting = Waiting::new(&self.waiting);
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            // A seat left before this task was counted as waiting was not announced to it.
            if let Some(seat) = self.try_take() {
                return seat;
            }
            left.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::SeqCst);
        if self.seats.waiting.load(Ordering::SeqCst) > 0 {
            // All, not one: the one that was woken may have been cancelled.
            self.seats.left.notify_waiters();
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_holds_and_a_left_seat_is_taken() {
        let seats = Seats::new(2);
        let first = seats.take().await;
        let _second = seats.take().await;
        assert!(seats.try_take().is_none());
        let third = tokio::join!(seats.take(), async { drop(first) }).0;
        assert_eq!(seats.taken(), 2);
        drop(third);
        assert_eq!(seats.taken(), 1);
    }

    #[tokio::test]
    async fn a_raised_limit_lets_waiters_in() {
        let seats = Seats::new(0);
        tokio::join!(seats.take(), async { seats.set_limit(1) });
    }

    #[test]
    fn threads_never_exceed_the_limit_and_never_hang() {
        let seats = Seats::new(3);
        let running = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        for _ in 0..500 {
                            let _seat = seats.take().await;
                            assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
                            tokio::task::yield_now().await;
                            running.fetch_sub(1, Ordering::SeqCst);
                        }
                    });
                });
            }
        });
        assert_eq!(seats.taken(), 0);
    }
}
