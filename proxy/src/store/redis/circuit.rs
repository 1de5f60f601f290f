//! Whether it is worth asking: after a failure nobody waits, and one operation a second tries again.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after a failure the next operation tries again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Closed while the last operation was answered.
#[derive(Debug, Default)]
pub(super) struct Circuit(RefCell<Option<Open>>);

#[derive(Debug)]
struct Open {
    until: Instant,
    reason: Arc<str>,
}

impl Circuit {
    /// May an operation try? It is the only one for the next second when the last had failed. `Err` is why that failed.
    pub(super) fn enter(&self, now: Instant) -> Result<(), Arc<str>> {
        match &mut *self.0.borrow_mut() {
            Some(open) if now < open.until => Err(open.reason.clone()),
            Some(open) => {
                open.until = now + RETRY_AFTER;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// An operation failed. True when the one before had not.
    pub(super) fn open(&self, now: Instant, reason: Arc<str>) -> bool {
        let open = Open {
            until: now + RETRY_AFTER,
            reason,
        };
        self.0.borrow_mut().replace(open).is_none()
    }

    /// An operation was answered. True when the one before had failed.
    pub(super) fn close(&self) -> bool {
        self.0.borrow_mut().take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_a_second_tries_again() {
        let circuit = Circuit::default();
        let now = Instant::now();
        assert_eq!(circuit.enter(now), Ok(()));
        assert!(circuit.open(now, "refused".into()));
        assert_eq!(circuit.enter(now), Err("refused".into()));
        let later = now + RETRY_AFTER;
        assert_eq!(circuit.enter(later), Ok(()));
        assert_eq!(circuit.enter(later), Err("refused".into()));
        assert!(!circuit.open(later, "silent".into()));
        assert_eq!(circuit.enter(later), Err("silent".into()));
        assert_eq!(circuit.enter(later + RETRY_AFTER), Ok(()));
        assert!(circuit.close());
        assert_eq!(circuit.enter(later + RETRY_AFTER), Ok(()));
        assert!(!circuit.close());
    }
}
