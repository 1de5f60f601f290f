//! When an endpoint is probed next: written by the loop that probes it, read by requests that wait for it, and moved
//! forward by whoever changes how it stands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::upstream::registry::Registry;

/// `next` when no probe is due.
const NEVER: u64 = u64::MAX;
/// Probes that are prompted come no faster than this, since what prompts them may be what clients do.
const PROMPTED_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct Schedule {
    /// In the registry's milliseconds.
    next: AtomicU64,
    prompt: Notify,
    passed: AtomicU64,
    failed: AtomicU64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(NEVER),
            prompt: Notify::new(),
            passed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

impl Schedule {
    /// Probe now rather than when it is due: something has changed.
    pub fn prompt(&self) {
        self.prompt.notify_one();
    }

    /// Whether a probe is out, or begins before `by`.
    pub fn is_due(&self, by: u64) -> bool {
        self.next.load(Ordering::Acquire) <= by
    }

    /// A probe begins.
    pub fn begin(&self) {
        self.next.store(0, Ordering::Release);
    }

    /// A probe ended.
    pub fn count(&self, passed: bool) {
        let counter = if passed { &self.passed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Probes so far that passed, and that failed.
    pub fn counts(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.passed), read(&self.failed))
    }

    /// Waits for `wait`, or less when it is prompted; but after one prompt at `last` the next is not followed at once.
    pub async fn wait(&self, wait: Duration, last: &mut Option<Instant>, registry: &Registry) {
        let sleep = async |wait: Duration| {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(NEVER);
            let next = registry.now_ms().saturating_add(wait_ms);
            self.next.store(next, Ordering::Release);
            tokio::time::sleep(wait).await;
        };
        let due = Instant::now().checked_add(wait);
        tokio::select! {
            () = sleep(wait) => return,
            () = self.prompt.notified() => {}
        }
        let now = Instant::now();
        let left = due.map_or(wait, |due| due.saturating_duration_since(now));
        let pause = last.map_or(Duration::ZERO, |last| {
            (last + PROMPTED_EVERY).saturating_duration_since(now)
        });
        *last = Some(now + pause.min(left));
        sleep(pause.min(left)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_prompt_ends_the_wait_and_the_next_one_soon_after() {
        let (schedule, registry) = (Schedule::default(), Registry::new());
        assert!(!schedule.is_due(u64::MAX - 1));
        let (start, mut last) = (Instant::now(), None);
        for n in 0..3 {
            schedule.prompt();
            schedule.prompt();
            schedule.wait(HOUR, &mut last, &registry).await;
            // Timers go by milliseconds.
            assert!(start.elapsed() + Duration::from_millis(5) >= PROMPTED_EVERY * n);
        }
        assert!(schedule.is_due(registry.now_ms()));
        schedule.begin();
        assert!(schedule.is_due(0));
        schedule.prompt();
        let soon = Duration::from_millis(3);
        schedule.wait(soon, &mut last, &registry).await;
        schedule.count(true);
        assert_eq!(schedule.counts(), (1, 0));
        assert!(start.elapsed() < HOUR);
    }
}
