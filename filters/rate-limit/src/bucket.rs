//! A token bucket as one number: the generic cell rate algorithm (ITU-T I.371), with time in nanoseconds.
//!
//! The number is the time at which the bucket will be full again. A request moves it on by the time that one token takes to
//! come back, and passes if that lies no further ahead than a full bucket takes.

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that one token takes to come back.
    interval: u64,
    /// Tokens of a full bucket.
    burst: u32,
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The bucket afterwards; a refused request takes nothing from it.
    pub full_at: u64,
    pub passes: bool,
    /// Tokens that are left.
    pub remaining: u32,
    /// Nanoseconds until a request would pass.
    pub retry_after: u64,
    /// Nanoseconds until the bucket is full.
    pub reset_after: u64,
}

impl Rate {
    /// `count` requests in `period` nanoseconds, and at most `burst` at once; all of them at least 1.
    pub fn new(count: u32, period: u64, burst: u32) -> Self {
        Self {
            interval: (period / u64::from(count.max(1))).max(1),
            burst: burst.max(1),
        }
    }

    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Nanoseconds in which an empty bucket fills.
    pub fn window(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.burst))
    }

    /// Takes a token at `now` from a bucket that will be full at `full_at`, which may lie in the past. A clock that went
    /// back leaves nobody waiting for longer than an empty bucket takes to fill.
    pub fn take(&self, full_at: u64, now: u64) -> Decision {
        let window = self.window();
        let latest = now.saturating_add(window);
        let full_at = full_at.clamp(now, latest);
        let taken = full_at.saturating_add(self.interval);
        let passes = taken <= latest;
        let full_at = if passes { taken } else { full_at };
        let reset_after = full_at - now;
        Decision {
            full_at,
            passes,
            remaining: u32::try_from((window - reset_after) / self.interval).unwrap_or(u32::MAX),
            retry_after: if passes { 0 } else { taken - latest },
            reset_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::new(10, SECOND, 5);
        let (mut full_at, mut passed) = (0, 0);
        for _ in 0..20 {
            let decision = rate.take(full_at, SECOND);
            full_at = decision.full_at;
            passed += u32::from(decision.passes);
        }
        assert_eq!(passed, 5);
        let refused = rate.take(full_at, SECOND);
        assert_eq!((refused.remaining, refused.retry_after), (0, SECOND / 10));
        assert_eq!(refused.reset_after, SECOND / 2);
        assert!(!rate.take(full_at, SECOND + SECOND / 10 - 1).passes);
        let one = rate.take(full_at, SECOND + SECOND / 10);
        assert!(one.passes && one.remaining == 0);
        let rested = rate.take(full_at, 10 * SECOND);
        assert!(rested.passes && rested.remaining == 4);
    }

    #[test]
    fn one_a_day_and_clocks_that_go_back() {
        let day = 86_400 * SECOND;
        let rate = Rate::new(1, day, 1);
        let first = rate.take(0, 5 * day);
        assert!(first.passes);
        assert!(!rate.take(first.full_at, 6 * day - 1).passes);
        assert!(rate.take(first.full_at, 6 * day).passes);
        // Back by years: nobody waits for more than a day.
        assert_eq!(rate.take(first.full_at, day).retry_after, day);
    }

    proptest! {
        /// In no stretch of time pass more than a burst and what comes back meanwhile.
        #[test]
        fn never_more_than_burst_and_rate(
            count in 1u32..50, burst in 1u32..20, steps in proptest::collection::vec(0u64..300_000_000, 1..200),
        ) {
            let rate = Rate::new(count, SECOND, burst);
            let (mut now, mut full_at, mut passed) = (SECOND, 0, Vec::new());
            for step in steps {
                now += step;
                let decision = rate.take(full_at, now);
                full_at = decision.full_at;
                if decision.passes {
                    passed.push(now);
                }
            }
            for (i, from) in passed.iter().enumerate() {
                for (j, to) in passed.iter().enumerate().skip(i) {
                    let allowed = u64::from(burst) + (to - from) / (SECOND / u64::from(count));
                    prop_assert!((j - i + 1) as u64 <= allowed);
                }
            }
        }

        #[test]
        fn nothing_overflows(full_at: u64, now: u64, count: u32, period: u64, burst: u32) {
            let rate = Rate::new(count, period, burst);
            let decision = rate.take(full_at, now);
            prop_assert!(decision.reset_after <= rate.window());
        }
    }
}
