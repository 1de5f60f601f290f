//! The ticks that one worker gives: a task for each filter of its chains that wants some and that elected this worker.

use crate::chain::Slot;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Filters being ticked. Dropping it ends all.
#[derive(Default)]
pub struct Ticks(RefCell<Vec<Ticking>>);

struct Ticking {
    slot: Rc<Slot>,
    task: JoinHandle<()>,
}

impl Ticks {
    /// These are the slots of the worker's chains from now on. A filter that stays keeps its rhythm; one that went, or was
    /// replaced, is ticked no more.
    pub fn follow<'a>(&self, slots: impl Iterator<Item = &'a Rc<Slot>>) {
        let mut before = std::mem::take(&mut *self.0.borrow_mut());
        let mut now: Vec<Ticking> = Vec::new();
        for slot in slots {
            let Some(ms) = slot.tick_ms() else { continue };
            let is_same = |ticking: &Ticking| Rc::ptr_eq(&ticking.slot, slot);
            if now.iter().any(is_same) {
                continue;
            }
            let ticking = match before.iter().position(is_same) {
                Some(at) => before.swap_remove(at),
                None => Ticking::start(slot.clone(), Duration::from_millis(ms.into())),
            };
            now.push(ticking);
        }
        *self.0.borrow_mut() = now;
    }

    pub fn stop(&self) {
        self.0.borrow_mut().clear();
    }
}

impl Ticking {
    fn start(slot: Rc<Slot>, every: Duration) -> Self {
        let ticked = slot.clone();
        let task = tokio::task::spawn_local(async move {
            let mut interval = interval_at(Instant::now() + every, every);
            // A worker that was busy gives one tick late, not several at once.
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                interval.tick().await;
                ticked.tick();
            }
        });
        Self { slot, task }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.task.abort();
    }
}
