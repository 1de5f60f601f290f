//! Processor time that a filter may use: a bucket for each slot, that fills with time and is emptied by calls.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::wasm::processor_time;

/// Laps up to this are charged as the clock on the wall has them: a thread that is taken off its processor misses more.
const WALL_MAX: Duration = Duration::from_millis(1);

/// The budget of one slot. Holds what a second gives at most, and may be overdrawn by one call.
pub(super) struct CpuBudget {
    /// Time for each second.
    rate: Duration,
    left_ns: Cell<i64>,
    filled: Cell<Instant>,
    /// Processor time of the thread when the running call began.
    begun: Cell<Duration>,
}

impl CpuBudget {
    /// `rate` is processor time for each second: `limits.cpu`, at most a second.
    pub(super) fn new(rate: Duration, now: Instant) -> Self {
        Self {
            rate,
            left_ns: Cell::new(nanoseconds(rate)),
            filled: Cell::new(now),
            begun: Cell::new(Duration::ZERO),
        }
    }

    pub(super) fn rate(&self) -> Duration {
        self.rate
    }

    /// No time is left at `now`, which is asked for only when it matters.
    pub(super) fn is_spent(&self, now: impl FnOnce() -> Instant) -> bool {
        if self.left_ns.get() > 0 {
            return false;
        }
        self.fill(now());
        self.left_ns.get() <= 0
    }

    /// A call begins on this thread.
    pub(super) fn begin(&self) {
        self.begun.set(processor_time());
    }

    /// The call that began took `wall` by the clock, of which only what the thread was running for is charged.
    pub(super) fn charge(&self, wall: Duration, now: Instant) {
        let used = match wall <= WALL_MAX {
            true => wall,
            false => wall.min(processor_time().saturating_sub(self.begun.get())),
        };
        self.spend(used, now);
    }

    fn spend(&self, used: Duration, now: Instant) {
        self.fill(now);
        let left = self.left_ns.get().saturating_sub(nanoseconds(used));
        self.left_ns.set(left);
    }

    fn fill(&self, now: Instant) {
        let since = now.saturating_duration_since(self.filled.replace(now));
        // A second fills it: longer ones need not be multiplied.
        let since = since.min(Duration::from_secs(1)).as_nanos();
        let more = since * self.rate.as_nanos() / Duration::from_secs(1).as_nanos();
        let left = self
            .left_ns
            .get()
            .saturating_add(i64::try_from(more).unwrap_or(i64::MAX));
        self.left_ns.set(left.min(nanoseconds(self.rate)));
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_spent_by_calls_and_filled_by_time() {
        let start = Instant::now();
        let budget = CpuBudget::new(200 * MS, start);
        let spent = |after: Duration| budget.is_spent(|| start + after);
        assert!(!spent(Duration::ZERO));
        budget.spend(150 * MS, start);
        assert!(!spent(Duration::ZERO));
        // One call may overdraw it; what is owed has to come in first.
        budget.spend(100 * MS, start);
        assert!(spent(Duration::ZERO));
        assert!(spent(249 * MS));
        assert!(!spent(256 * MS));
        // It holds no more than a second gives.
        budget.spend(Duration::ZERO, start + 100_000 * MS);
        budget.spend(199 * MS, start + 100_000 * MS);
        assert!(!spent(100_000 * MS));
        budget.spend(MS, start + 100_000 * MS);
        assert!(spent(100_000 * MS));
    }

    #[test]
    fn time_off_the_processor_is_not_charged() {
        let start = Instant::now();
        let budget = CpuBudget::new(10 * MS, start);
        budget.begin();
        // An hour by the clock, in which this thread did next to nothing.
        budget.charge(3_600_000 * MS, start);
        assert!(!budget.is_spent(|| start));
        budget.begin();
        while processor_time() - budget.begun.get() < 11 * MS {
            std::hint::spin_loop();
        }
        budget.charge(3_600_000 * MS, start);
        assert!(budget.is_spent(|| start));
    }
}
