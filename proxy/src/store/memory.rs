//! The store in memory: parts by the hash of the key, each under a lock that is held for one operation.

mod part;

use super::counts::{OpKind, OpResult, SharedCounts};
use super::{Sample, StoreAnswer, StoreError, StoreOp, VALUE_BYTES_MAX};
use part::Part;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Parts are this large where there are several, so that the largest value takes at most half of one.
const PART_BYTES: usize = 2 * VALUE_BYTES_MAX;
/// More would not make workers meet less often.
const PARTS_MAX: usize = 64;

/// Entries in memory, bounded in bytes and with them in number. What exceeds the bound makes room: expired entries
/// first, then such as were not asked for lately.
pub struct Memory {
    /// Keyed at random, so that nobody who chooses keys can make them meet.
    hasher: RandomState,
    /// A power of two of them.
    parts: Box<[Padded]>,
    value_bytes_max: usize,
    /// Operations that no part saw.
    refused: SharedCounts,
}

/// Two workers in two parts do not share a cache line.
#[repr(align(128))]
struct Padded(Mutex<Part>);

impl Memory {
    /// Holds at most `bytes`, what keeping the entries costs included.
    pub fn new(bytes: usize) -> Self {
        // The largest power of two whose parts are not smaller than they should be.
        let count = 1 << (bytes / PART_BYTES).clamp(1, PARTS_MAX).ilog2();
        let each = bytes / count;
        Self {
            hasher: RandomState::new(),
            parts: (0..count)
                .map(|_| Padded(Mutex::new(Part::new(each))))
                .collect(),
            value_bytes_max: VALUE_BYTES_MAX.min(each / 2),
            refused: SharedCounts::default(),
        }
    }

    /// Carries one operation out, at once.
    pub fn run(&self, op: &StoreOp<'_>) -> Result<StoreAnswer, StoreError> {
        self.run_at(op, Instant::now())
    }

    /// The same at a given time.
    pub(super) fn run_at(&self, op: &StoreOp<'_>, now: Instant) -> Result<StoreAnswer, StoreError> {
        if let Err(error) = op.check(self.value_bytes_max) {
            self.refused.count(OpKind::of(op), OpResult::Refused);
            return Err(error);
        }
        let hash = self.hasher.hash_one(op.key());
        // The table within the part uses the lowest and the highest bits.
        let index = (hash >> 32) as usize & (self.parts.len() - 1);
        match self.parts.get(index) {
            Some(part) => lock(part).run(op, hash, now),
            None => Err(StoreError::Unavailable(
                "no part of the store has the key".into(),
            )),
        }
    }

    pub fn sample(&self) -> Sample {
        let mut sample = Sample::default();
        self.refused.add_to(&mut sample);
        for part in &self.parts {
            lock(part).add_to(&mut sample);
        }
        sample
    }
}

fn lock(part: &Padded) -> MutexGuard<'_, Part> {
    part.0.lock().unwrap_or_else(PoisonError::into_inner)
}
