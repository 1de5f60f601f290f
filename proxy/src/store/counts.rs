//! What is counted of a store: operations by kind and result, and what it holds.

use super::{StoreAnswer, StoreError, StoreOp};
use crate::telemetry::StoreSample;
use std::sync::atomic::{AtomicU64, Ordering};

/// Operations as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    Get = 0,
    Set = 1,
    CompareAndSet = 2,
    Increment = 3,
    Delete = 4,
}

impl OpKind {
    pub const ALL: [OpKind; 5] = [
        OpKind::Get,
        OpKind::Set,
        OpKind::CompareAndSet,
        OpKind::Increment,
        OpKind::Delete,
    ];

    pub fn of(op: &StoreOp<'_>) -> Self {
        match op {
            StoreOp::Get { .. } => OpKind::Get,
            StoreOp::Set { .. } => OpKind::Set,
            StoreOp::CompareAndSet { .. } => OpKind::CompareAndSet,
            StoreOp::Increment { .. } => OpKind::Increment,
            StoreOp::Delete { .. } => OpKind::Delete,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            OpKind::Get => "get",
            OpKind::Set => "set",
            OpKind::CompareAndSet => "compare-and-set",
            OpKind::Increment => "increment",
            OpKind::Delete => "delete",
        }
    }
}

/// Results as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpResult {
    /// It was carried out: done, a value, a number.
    Ok = 0,
    Absent = 1,
    /// A compare found something else than was expected.
    Differs = 2,
    /// The filter's mistake: a key, a value or a number that cannot be.
    Refused = 3,
    Unavailable = 4,
    Timeout = 5,
}

impl OpResult {
    pub const ALL: [OpResult; 6] = [
        OpResult::Ok,
        OpResult::Absent,
        OpResult::Differs,
        OpResult::Refused,
        OpResult::Unavailable,
        OpResult::Timeout,
    ];

    pub fn of(kind: OpKind, result: &Result<StoreAnswer, StoreError>) -> Self {
        match result {
            Ok(StoreAnswer::Value(_) | StoreAnswer::Absent) if kind == OpKind::CompareAndSet => {
                OpResult::Differs
            }
            Ok(StoreAnswer::Absent) => OpResult::Absent,
            Ok(_) => OpResult::Ok,
            Err(StoreError::Unavailable(_)) => OpResult::Unavailable,
            Err(StoreError::Timeout) => OpResult::Timeout,
            Err(_) => OpResult::Refused,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            OpResult::Ok => "ok",
            OpResult::Absent => "absent",
            OpResult::Differs => "differs",
            OpResult::Refused => "refused",
            OpResult::Unavailable => "unavailable",
            OpResult::Timeout => "timeout",
        }
    }
}

/// Counters that are written under a lock, or by one thread.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts([[u64; OpResult::ALL.len()]; OpKind::ALL.len()]);

impl Counts {
    pub(super) fn count(&mut self, kind: OpKind, result: OpResult) {
        self.0[kind as usize][result as usize] += 1;
    }

    pub(super) fn add_to(&self, sample: &mut Sample) {
        for (sums, row) in sample.operations.iter_mut().zip(&self.0) {
            for (sum, n) in sums.iter_mut().zip(row) {
                *sum += n;
            }
        }
    }
}

/// Counters that several threads write, where an operation costs far more than that.
#[derive(Debug, Default)]
pub(super) struct SharedCounts([[AtomicU64; OpResult::ALL.len()]; OpKind::ALL.len()]);

impl SharedCounts {
    pub(super) fn count(&self, kind: OpKind, result: OpResult) {
        self.0[kind as usize][result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_to(&self, sample: &mut Sample) {
        for (sums, row) in sample.operations.iter_mut().zip(&self.0) {
            for (sum, n) in sums.iter_mut().zip(row) {
                *sum += n.load(Ordering::Relaxed);
            }
        }
    }
}

/// A store at one moment. What is in Redis is not counted here: Redis tells that of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    pub entries: u64,
    /// What entries take, with what keeping them costs.
    pub bytes: u64,
    /// Entries that made room for others before their time.
    pub evictions: u64,
    operations: [[u64; OpResult::ALL.len()]; OpKind::ALL.len()],
}

impl Sample {
    pub fn operations(&self, kind: OpKind, result: OpResult) -> u64 {
        self.operations[kind as usize][result as usize]
    }

    /// The same as metrics tell it.
    pub fn told(&self, in_memory: bool) -> StoreSample {
        let each = OpKind::ALL
            .iter()
            .flat_map(|&kind| OpResult::ALL.map(|result| (kind, result)));
        StoreSample {
            in_memory,
            entries: self.entries,
            bytes: self.bytes,
            evictions: self.evictions,
            operations: each
                .map(|(kind, result)| {
                    (
                        kind.as_str(),
                        result.as_str(),
                        self.operations(kind, result),
                    )
                })
                .filter(|&(_, _, count)| count > 0)
                .collect(),
        }
    }
}
