//! All slots of a worker.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::filter::Filter;
use super::handover::hand_over;
use super::slot::Slot;

/// The slots of one worker: a filter that survives a reload keeps its slot, one that went is forgotten with its last
/// chain.
#[derive(Default)]
pub struct Slots {
    worker: usize,
    slots: RefCell<Vec<Weak<Slot>>>,
}

impl Slots {
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            slots: RefCell::default(),
        }
    }

    /// The worker's slot of `filter`, made when there is none; then a filter of the same name that is still there hands
    /// its state over to it.
    pub fn slot(&self, filter: &Arc<Filter>) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        slots.retain(|slot| slot.strong_count() > 0);
        let known = slots
            .iter()
            .filter_map(Weak::upgrade)
            .find(|slot| Arc::ptr_eq(slot.filter(), filter));
        known.unwrap_or_else(|| {
            let slot = Slot::new(filter.clone(), self.worker);
            // The last made is the one that a reload replaces: earlier ones only finish what they began.
            let replaced = slots.iter().rev().filter_map(Weak::upgrade);
            let mut replaced = replaced.filter(|old| old.filter().name() == filter.name());
            if let Some(old) = replaced.next() {
                hand_over(&old, &slot);
            }
            slots.push(Rc::downgrade(&slot));
            slot
        })
    }
}
