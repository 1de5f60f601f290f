//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// How long anything may take on a slow, busy machine before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Polls `condition` until it holds; false when it did not within `deadline`.
#[must_use]
pub fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    until(deadline, || condition().then_some(())).is_some()
}

/// Polls `probe` until it answers something; none when it did not within `deadline`.
pub fn until<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_until_it_holds_or_gives_up() {
        let mut calls = 0;
        assert!(eventually(DEADLINE, || {
            calls += 1;
            calls == 3
        }));
        assert_eq!(calls, 3);
        assert!(!eventually(Duration::ZERO, || false));
    }
}
