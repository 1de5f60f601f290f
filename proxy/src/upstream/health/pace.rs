//! How long to wait for the next check of an endpoint: `interval` while all is steady, less while something changes.

use std::time::Duration;

use super::{Standing, Verdict};
use crate::config::CheckConfig;

/// Quick checks of an endpoint that is down, before they come more seldom.
const QUICK_MAX: u32 = 10;

/// The checks that one endpoint has had since it went down.
#[derive(Debug, Default)]
pub struct Pace {
    down: u32,
}

impl Pace {
    /// Asked once after each check. A result that contradicts the verdict is confirmed quickly. An endpoint that is down
    /// is checked quickly ten times, because most that come back do so soon; then each wait is twice the last.
    /// When the pool has just lost its last endpoint (`lost`), each may be the one that ends it: four times as often.
    pub fn next(&mut self, standing: &Standing, check: &CheckConfig, lost: bool) -> Duration {
        let is_down = standing.verdict() == Verdict::Down;
        if lost && is_down {
            // These do not count: what has to be waited for afterwards is the same.
            return check.fast_interval / 4;
        }
        self.down = match is_down {
            true => self.down.saturating_add(1),
            false => 0,
        };
        if standing.is_contested() {
            return check.fast_interval;
        }
        match self.down {
            0 => check.interval,
            n => {
                // Two thousand million times the shortest duration is beyond any interval of use.
                let doublings = n.saturating_sub(QUICK_MAX).min(31);
                let wait = check.fast_interval.saturating_mul(1 << doublings);
                wait.min(check.interval)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckKind;
    use crate::upstream::tests::check;

    #[test]
    fn checks_are_quick_while_something_changes() {
        let check = CheckConfig {
            interval: Duration::from_secs(10),
            fast_interval: Duration::from_secs(1),
            ..check(CheckKind::Tcp)
        };
        let (standing, mut pace) = (Standing::new(), Pace::default());
        let mut after = |passed: bool| {
            match passed {
                true => standing.check_passed(false, 2, 1),
                false => standing.check_failed(false, 3, "refused"),
            };
            pace.next(&standing, &check, false).as_secs()
        };
        let never_up: Vec<u64> = (0..15).map(|_| after(false)).collect();
        assert_eq!(never_up, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 10, 10]);
        assert_eq!(after(true), 10, "the first success decided");
        assert_eq!([after(false), after(false)], [1, 1], "to be confirmed");
        assert_eq!(after(true), 10, "refuted");
        let falls: Vec<u64> = (0..17).map(|_| after(false)).collect();
        assert_eq!(falls[2..], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 10, 10]);
        assert_eq!([after(true), after(true)], [1, 10], "up again");
        assert_eq!([after(false), after(false), after(false)], [1, 1, 1]);
        let mut pace = Pace::default();
        let mut urgent = |lost| pace.next(&standing, &check, lost);
        for _ in 0..20 {
            assert_eq!(urgent(true), Duration::from_millis(250));
        }
        assert_eq!(urgent(false), Duration::from_secs(1));
    }
}
