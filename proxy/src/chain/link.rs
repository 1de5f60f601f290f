//! The filters of a chain and their order.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::slot::Slot;
use crate::wasm::Phase;

/// One filter of a chain.
#[derive(Clone)]
pub struct Link {
    pub slot: Rc<Slot>,
    /// From [`super::Filter::pool_table`], for this generation.
    pub pools: Arc<[usize]>,
}

/// A listener's filters on one worker, in order for requests.
#[derive(Clone, Default)]
pub struct Chain {
    pub(super) links: Box<[Link]>,
    wanted: [bool; Phase::ALL.len()],
    first_bytes: usize,
}

/// Measures calls: the time between two calls is the next one's, which spares a clock reading each.
pub(super) struct Stopwatch {
    begun: Instant,
    last: Instant,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            last: now,
        }
    }

    pub(super) fn lap(&mut self, slot: &Slot) {
        let now = Instant::now();
        slot.lapped(now - self.last, now);
        self.last = now;
    }

    pub(super) fn total(&self) -> Duration {
        self.last - self.begun
    }
}

impl Chain {
    pub fn new(links: Vec<Link>) -> Self {
        let wanted = Phase::ALL.map(|phase| links.iter().any(|link| link.slot.plan().wants(phase)));
        let first_bytes = links
            .iter()
            .map(|link| link.slot.plan().first_bytes)
            .max()
            .unwrap_or(0);
        Self {
            links: links.into(),
            wanted,
            first_bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Some filter is called in this phase, if its predicate matches: else the caller need not build facts for it.
    #[inline]
    pub fn wants(&self, phase: Phase) -> bool {
        self.wanted[phase as usize]
    }

    /// How many first bytes of a connection to wait for; 0 when nobody asks.
    pub fn first_bytes(&self) -> usize {
        self.first_bytes
    }
}
