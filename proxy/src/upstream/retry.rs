//! How often and how fast a failed try may be repeated.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Each try allows this share of a retry, later …
const PER_TRY: f64 = 0.2;
/// … and so many a second are allowed in any case.
const PER_SECOND: f64 = 3.0;
/// Retries that a new pool may make.
const AT_FIRST: f64 = 10.0;
/// Retries that may be saved up; or as many as the pool has exchanges running, because an endpoint that ends breaks a good
/// part of these at once. They were running before, so that repeating them asks for no more at a time than that.
const SAVED_MAX: f64 = 100.0;

const BACKOFF_BASE: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// Keeps retries from multiplying the load on a pool in trouble: one for five tries, and three a second however quiet the
/// pool is. One for each pool, over all workers. It is asked only when a try failed, and reads then how many tries there
/// were, so that those which succeed cost nothing.
#[derive(Debug)]
pub struct RetryBudget(Mutex<Savings>);

#[derive(Debug, Clone, Copy)]
struct Savings {
    retries: f64,
    /// The time up to which has been credited.
    ms: u64,
}

impl RetryBudget {
    /// That of a pool that begins at `now_ms`. One that replaces another goes on with what that has saved.
    pub(super) fn new(now_ms: u64, previous: Option<&Self>) -> Self {
        Self(Mutex::new(match previous {
            None => Savings {
                retries: AT_FIRST,
                ms: now_ms,
            },
            Some(previous) => *previous.lock(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Savings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a retry out; false when the budget is spent. `tries` are those since this was asked last, `in_flight` is how many
    /// exchanges run, and `now_ms` the time.
    pub(super) fn spend(&self, tries: u64, in_flight: u64, now_ms: u64) -> bool {
        let mut savings = self.credited(tries, in_flight, now_ms);
        if savings.retries < 1.0 {
            return false;
        }
        savings.retries -= 1.0;
        true
    }

    /// Whether there is a retry to take out; the arguments are those of [`RetryBudget::spend`].
    pub(super) fn has_one(&self, tries: u64, in_flight: u64, now_ms: u64) -> bool {
        self.credited(tries, in_flight, now_ms).retries >= 1.0
    }

    fn credited(&self, tries: u64, in_flight: u64, now_ms: u64) -> MutexGuard<'_, Savings> {
        let mut savings = self.lock();
        let more =
            tries as f64 * PER_TRY + now_ms.saturating_sub(savings.ms) as f64 / 1000.0 * PER_SECOND;
        let saved_max = SAVED_MAX.max(in_flight as f64);
        savings.retries = (savings.retries + more).min(saved_max);
        savings.ms = savings.ms.max(now_ms);
        savings
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

    /// Retries that are granted until one is not, after so many tries.
    fn all(budget: &RetryBudget, tries: u64, in_flight: u64, now_ms: u64) -> usize {
        let granted = |n: &u32| budget.spend(if *n == 0 { tries } else { 0 }, in_flight, now_ms);
        (0..1000).take_while(granted).count()
    }

    #[test]
    fn one_for_five_tries_and_three_a_second() {
        let budget = RetryBudget::new(9_000_000, None);
        assert_eq!(all(&budget, 0, 20, 9_000_000), 10, "at first");
        assert_eq!(all(&budget, 50, 20, 9_000_000), 10);
        assert_eq!(all(&budget, 0, 20, 9_002_000), 6);
        assert_eq!(
            all(&budget, 0, 20, 9_001_000),
            0,
            "whoever is late brings nothing"
        );
        assert_eq!(all(&budget, 5, 20, 9_002_000), 1);
        let next = RetryBudget::new(9_002_000, Some(&budget));
        assert_eq!(all(&next, 0, 20, 9_002_000), 0, "a reload brings nothing");
    }

    #[test]
    fn what_runs_may_be_repeated_at_once_after_a_quiet_time() {
        let budget = RetryBudget::new(0, None);
        assert_eq!(all(&budget, 1_000_000, 20, 0), 100);
        assert_eq!(all(&budget, 2_000_000, 800, 0), 800);
    }

    #[test]
    fn waits_are_bounded_and_grow() {
        let max: Vec<_> = (0..6).map(|n| backoff_max(n).as_millis()).collect();
        assert_eq!(max, [25, 50, 100, 200, 250, 250]);
        assert!((0..1000).all(|n| backoff(n) <= BACKOFF_MAX));
    }
}
