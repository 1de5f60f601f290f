//! What a filter did, counted without contention: each worker adds to its own shard, readers sum them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wasm::FaultKind;

/// Verdicts as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum VerdictKind {
    Next = 0,
    /// Next with operations.
    Edit = 1,
    Reply = 2,
    Drop = 3,
    Reset = 4,
    Suspend = 5,
}

impl VerdictKind {
    pub const ALL: [VerdictKind; 6] = [
        VerdictKind::Next,
        VerdictKind::Edit,
        VerdictKind::Reply,
        VerdictKind::Drop,
        VerdictKind::Reset,
        VerdictKind::Suspend,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            VerdictKind::Next => "next",
            VerdictKind::Edit => "edit",
            VerdictKind::Reply => "reply",
            VerdictKind::Drop => "drop",
            VerdictKind::Reset => "reset",
            VerdictKind::Suspend => "suspend",
        }
    }
}

/// One worker's share. Padded so that two workers' shards lie in no common cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Shard {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    verdicts: [AtomicU64; VerdictKind::ALL.len()],
    faults: [AtomicU64; FaultKind::ALL.len()],
    /// The worker leaves the filter alone until then: milliseconds after the filter was made.
    suspended_until_ms: AtomicU64,
}

impl Shard {
    pub(super) fn call(&self, took: Duration) {
        add(&self.calls, 1);
        add(&self.nanoseconds, took.as_nanos() as u64);
    }

    pub(super) fn verdict(&self, kind: VerdictKind) {
        add(&self.verdicts[kind as usize], 1);
    }

    pub(super) fn fault(&self, kind: FaultKind) {
        add(&self.faults[position(kind)], 1);
    }

    pub(super) fn suspend(&self, until_ms: u64) {
        self.suspended_until_ms.store(until_ms, Ordering::Relaxed);
    }

    pub(super) fn is_suspended(&self, now_ms: u64) -> bool {
        self.suspended_until_ms.load(Ordering::Relaxed) > now_ms
    }
}

/// The worker is the only writer of its shard, so that no locked instruction is needed.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

fn position(kind: FaultKind) -> usize {
    FaultKind::ALL.iter().position(|k| *k == kind).unwrap_or(0)
}

/// The sums at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u64,
    /// Time spent in calls.
    pub nanoseconds: u64,
    verdicts: [u64; VerdictKind::ALL.len()],
    faults: [u64; FaultKind::ALL.len()],
}

impl Counts {
    pub(super) fn sum(shards: &[Shard]) -> Self {
        let mut counts = Self::default();
        for shard in shards {
            counts.calls += shard.calls.load(Ordering::Relaxed);
            counts.nanoseconds += shard.nanoseconds.load(Ordering::Relaxed);
            for (sum, counter) in counts.verdicts.iter_mut().zip(&shard.verdicts) {
                *sum += counter.load(Ordering::Relaxed);
            }
            for (sum, counter) in counts.faults.iter_mut().zip(&shard.faults) {
                *sum += counter.load(Ordering::Relaxed);
            }
        }
        counts
    }

    /// Adds what another filter of the same name did.
    pub fn add(&mut self, other: &Counts) {
        self.calls += other.calls;
        self.nanoseconds += other.nanoseconds;
        for (sum, n) in self.verdicts.iter_mut().zip(other.verdicts) {
            *sum += n;
        }
        for (sum, n) in self.faults.iter_mut().zip(other.faults) {
            *sum += n;
        }
    }

    pub fn verdicts(&self, kind: VerdictKind) -> u64 {
        self.verdicts[kind as usize]
    }

    pub fn faults(&self, kind: FaultKind) -> u64 {
        self.faults[position(kind)]
    }
}
