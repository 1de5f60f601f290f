//! How often and how fast a failed try may be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Retries may make up this share of the exchanges in flight …
const SHARE: u64 = 5;
/// … and so many a second are allowed in any case.
const FLOOR_PER_SECOND: u64 = 3;

const BACKOFF_BASE: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// Keeps retries from multiplying the load on a pool in trouble: one in five of the exchanges in flight, and three
/// a second however quiet the pool is. One for each pool, over all workers: it is asked only when a try failed, so
/// sharing costs the normal path nothing.
#[derive(Debug, Default)]
pub struct RetryBudget {
    running: AtomicU32,
    /// The second in the upper 48 bits, the retries it has seen by the floor in the lower 16.
    floor: AtomicU64,
}

/// A retry that is running; dropped when its try has ended.
#[derive(Debug)]
pub struct RetryPermit {
    budget: Arc<RetryBudget>,
}

impl RetryBudget {
    /// A permit for one retry, or none when the budget is spent. `in_flight` counts the pool's running exchanges.
    pub(super) fn permit(self: &Arc<Self>, in_flight: u64, now_ms: u64) -> Option<RetryPermit> {
        let more = |running: u32| {
            ((u64::from(running) + 1) * SHARE <= in_flight).then(|| running.saturating_add(1))
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.running.fetch_update(set, fetch, more).is_err() {
            self.by_floor(now_ms / 1000)?;
            self.running.fetch_add(1, Ordering::Relaxed);
        }
        Some(RetryPermit {
            budget: Arc::clone(self),
        })
    }

    fn by_floor(&self, second: u64) -> Option<()> {
        let used = |packed: u64| {
            let used = if packed >> 16 == second {
                packed & 0xffff
            } else {
                0
            };
            (used < FLOOR_PER_SECOND).then_some((second << 16) | (used + 1))
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.floor.fetch_update(set, fetch, used).ok().map(drop)
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.budget.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long to wait before retry number `retry` (from 0): anything up to 25 ms doubled each time, 250 ms at most.
/// Full jitter, so that clients that failed together do not come back together.
pub fn backoff(retry: u32) -> Duration {
    backoff_max(retry).mul_f64(fastrand::f64())
}

fn backoff_max(retry: u32) -> Duration {
    BACKOFF_BASE
        .saturating_mul(1 << retry.min(16))
        .min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_five_and_three_a_second() {
        let budget = Arc::new(RetryBudget::default());
        let share: Vec<_> = (0..4).map(|_| budget.permit(20, 1000)).collect();
        assert!(share.iter().all(Option::is_some));
        let floor: Vec<_> = (0..4).map(|_| budget.permit(20, 1000)).collect();
        assert_eq!(floor.iter().flatten().count(), 3);
        assert!(budget.permit(20, 1999).is_none());
        assert!(budget.permit(20, 2000).is_some(), "the next second");
        drop((share, floor));
        assert!(budget.permit(5, 2000).is_some());
        assert_eq!(budget.running.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn waits_are_bounded_and_grow() {
        let max: Vec<_> = (0..6).map(|n| backoff_max(n).as_millis()).collect();
        assert_eq!(max, [25, 50, 100, 200, 250, 250]);
        assert!((0..1000).all(|n| backoff(n) <= BACKOFF_MAX));
    }
}
