//! Calls without an exchange, at the interval of a filter's plan.

use super::http::Watch;
use super::own::Own;
use super::slot::Slot;
use crate::wasm::{Facts, Phase, Shown};

impl Slot {
    /// Milliseconds between two ticks, when the filter wants some and this worker is the one of the process that gives
    /// them to it.
    pub fn tick_ms(&self) -> Option<u32> {
        let ms = self.plan().tick_ms;
        (ms > 0 && self.is_elected()).then_some(ms)
    }

    /// One tick. A fault is counted, told, and costs the instance, as in any phase; there is no exchange to fail.
    ///
    /// Whoever lets ticks suspend awaits the effects in the caller's loop, which gives no tick meanwhile.
    pub fn tick(&self) {
        let mut watch = Watch::start();
        let _no_exchange = self.call(
            &mut Own::default(),
            Phase::Tick,
            &Facts::default(),
            Shown::NOTHING,
        );
        watch.lap(self);
    }
}
