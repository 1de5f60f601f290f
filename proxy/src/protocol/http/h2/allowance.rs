//! What a peer may do for nothing: a token bucket that time refills, and that useful work fills further.

use std::time::{Duration, Instant};

/// Counts down what costs something and brings nothing.
///
/// The clock is read only when the tokens are used up.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    /// What time alone fills it to.
    burst: u32,
    /// What earnings fill it to.
    most: u32,
    per_second: u32,
    /// When it was filled last.
    since: Instant,
}

impl Allowance {
    pub(super) fn new(burst: u32, most: u32, per_second: u32, now: Instant) -> Self {
        Self {
            left: burst,
            burst,
            most: most.max(burst),
            per_second,
            since: now,
        }
    }

    /// Takes one token; false when there is none.
    pub(super) fn spend(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            self.refill(now());
        }
        let had = self.left > 0;
        self.left = self.left.saturating_sub(1);
        had
    }

    /// Adds what useful work pays for.
    pub(super) fn earn(&mut self, tokens: u32) {
        if self.left < self.most {
            self.left = self.left.saturating_add(tokens).min(self.most);
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        // A shorter time than one token takes is kept for the next.
        let due =
            passed.as_nanos() * u128::from(self.per_second) / Duration::from_secs(1).as_nanos();
        if due > 0 {
            self.left = u32::try_from(due).unwrap_or(u32::MAX).min(self.burst);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_ends_and_a_steady_rate_does_not() {
        let began = Instant::now();
        let mut burst = Allowance::new(1000, 1000, 100, began);
        let spent = (0..5000).take_while(|_| burst.spend(|| began)).count();
        assert_eq!(spent, 1000);

        let mut steady = Allowance::new(1000, 1000, 100, began);
        for n in 0..100_000 {
            assert!(
                steady.spend(|| began + Duration::from_millis(10) * n),
                "{n}"
            );
        }

        let mut hasty = Allowance::new(1000, 1000, 100, began);
        let spent = (0..100_000)
            .take_while(|&n| hasty.spend(|| began + Duration::from_millis(5) * n))
            .count();
        assert!((1900..=2100).contains(&spent), "{spent}");
    }

    #[test]
    fn earnings_outlast_the_burst_and_are_bounded() {
        let now = Instant::now();
        let mut rich = Allowance::new(10, 50, 1, now);
        rich.earn(30);
        assert_eq!((0..100).take_while(|_| rich.spend(|| now)).count(), 40);
        for _ in 0..1000 {
            rich.earn(u32::MAX);
        }
        assert_eq!((0..100).take_while(|_| rich.spend(|| now)).count(), 50);
    }

    #[test]
    fn time_that_is_no_token_yet_is_not_lost() {
        let began = Instant::now();
        let mut slow = Allowance::new(1, 1, 10, began);
        assert!(slow.spend(|| began));
        assert!(!slow.spend(|| began + Duration::from_millis(60)));
        assert!(slow.spend(|| began + Duration::from_millis(120)));
    }
}
