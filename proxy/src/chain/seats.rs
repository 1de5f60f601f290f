//! How many instances of one filter there are: one that keeps failing must not use up what all filters share.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::wasm::Instance;

/// The instances that a filter may have alive, wherever they are.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    taken: AtomicUsize,
}

/// Leave to have one instance; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Seats>);

/// An instance with its seat, which is free again when the instance is gone.
#[derive(Debug)]
pub(super) struct Seated {
    // Dropped in this order.
    instance: Instance,
    _seat: Seat,
}

impl Seats {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: AtomicUsize::new(0),
        })
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// None when as many instances are alive as may be.
    pub(super) fn take(self: &Arc<Self>) -> Option<Seat> {
        let more = |taken: usize| (taken < self.max).then(|| taken + 1);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, more)
            .ok()
            .map(|_| Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Seated {
    pub(super) fn new(instance: Instance, seat: Seat) -> Self {
        Self {
            instance,
            _seat: seat,
        }
    }
}

impl Deref for Seated {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl DerefMut for Seated {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.instance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_are() {
        let seats = Seats::new(2);
        let first = seats.take().expect("the first");
        let second = seats.take().expect("the second");
        assert!(seats.take().is_none());
        drop(first);
        let third = seats.take().expect("the first's");
        assert_eq!(seats.taken(), 2);
        drop((second, third));
        assert_eq!(seats.taken(), 0);
    }
}
