//! One part of the store in memory: a table of entries and the hands that go over them.
//!
//! Eviction is CLOCK: an entry that was asked for since the hand came by last gets another round. A second hand removes
//! expired entries, a few with each write, so that no timer and no thread is needed.

use crate::store::counts::{Counts, OpKind, OpResult};
use crate::store::{Sample, StoreAnswer, StoreError, StoreOp, number, ttl_millis};
use bytes::Bytes;
use hashbrown::HashTable;
use slab::Slab;
use std::time::{Duration, Instant};

/// What an entry costs besides its key and value: the entry, its place in the table, and the allocator's own.
const ENTRY_BYTES: usize = 160;
/// Entries that each write looks at for expired ones.
const SWEEP_STEPS: usize = 4;
/// The same before one that is alive makes room.
const SWEEP_STEPS_FULL: usize = 16;
/// Entries that get another round before the next goes all the same, which bounds the time that the lock is held.
const ROUNDS_MAX: usize = 64;

pub(super) struct Part {
    /// Indices into `entries`.
    table: HashTable<usize>,
    entries: Slab<Entry>,
    bytes: usize,
    bytes_max: usize,
    /// Entries that will expire.
    timed: usize,
    /// Where eviction goes on.
    hand: usize,
    /// Where the search for expired entries goes on.
    broom: usize,
    evictions: u64,
    counts: Counts,
}

struct Entry {
    hash: u64,
    key: Box<[u8]>,
    value: Value,
    expires: Option<Instant>,
    /// Asked for since the hand was here.
    used: bool,
}

enum Value {
    Bytes(Bytes),
    /// Written by an increment; read as its decimal digits.
    Number(i64),
}

impl Value {
    fn to_bytes(&self) -> Bytes {
        match self {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Number(n) => Bytes::copy_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
        }
    }

    fn equals(&self, expected: &[u8]) -> bool {
        match self {
            Value::Bytes(bytes) => bytes == expected,
            Value::Number(n) => itoa::Buffer::new().format(*n).as_bytes() == expected,
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Value::Bytes(bytes) => number(bytes),
            Value::Number(n) => Some(*n),
        }
    }

    /// As counted: a number takes what its longest text does.
    fn len(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Number(_) => 20,
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.key.len() + self.value.len()
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

impl Part {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            table: HashTable::new(),
            entries: Slab::new(),
            bytes: 0,
            bytes_max,
            timed: 0,
            hand: 0,
            broom: 0,
            evictions: 0,
            counts: Counts::default(),
        }
    }

    /// Carries out an operation whose key has `hash`.
    pub(super) fn run(
        &mut self,
        op: &StoreOp<'_>,
        hash: u64,
        now: Instant,
    ) -> Result<StoreAnswer, StoreError> {
        let result = self.carry_out(op, hash, now);
        let kind = OpKind::of(op);
        self.counts.count(kind, OpResult::of(kind, &result));
        result
    }

    fn carry_out(
        &mut self,
        op: &StoreOp<'_>,
        hash: u64,
        now: Instant,
    ) -> Result<StoreAnswer, StoreError> {
        let found = self.find(op.key(), hash, now);
        match *op {
            StoreOp::Get { .. } => Ok(self.read(found)),
            StoreOp::Set { key, value, ttl } => {
                let value = Value::Bytes(Bytes::copy_from_slice(value));
                self.write(found, key, hash, value, deadline(ttl, now), now);
                Ok(StoreAnswer::Done)
            }
            StoreOp::CompareAndSet {
                key,
                expected,
                value,
                ttl,
            } => {
                let there = found.and_then(|at| self.entries.get(at));
                let holds = match (there, expected) {
                    (None, None) => true,
                    (Some(entry), Some(expected)) => entry.value.equals(expected),
                    _ => false,
                };
                if !holds {
                    return Ok(self.read(found));
                }
                let value = Value::Bytes(Bytes::copy_from_slice(value));
                self.write(found, key, hash, value, deadline(ttl, now), now);
                Ok(StoreAnswer::Done)
            }
            StoreOp::Increment { key, delta, ttl } => {
                let there = found.and_then(|at| self.entries.get(at));
                let (before, expires) = match there {
                    Some(entry) => {
                        let before = entry.value.number().ok_or(StoreError::NotANumber)?;
                        (before, entry.expires)
                    }
                    None => (0, deadline(ttl, now)),
                };
                let sum = before.checked_add(delta).ok_or(StoreError::Overflow)?;
                self.write(found, key, hash, Value::Number(sum), expires, now);
                Ok(StoreAnswer::Number(sum))
            }
            StoreOp::Delete { .. } => Ok(match found {
                Some(at) => {
                    self.remove(at);
                    StoreAnswer::Done
                }
                None => StoreAnswer::Absent,
            }),
        }
    }

    pub(super) fn add_to(&self, sample: &mut Sample) {
        sample.entries += self.entries.len() as u64;
        sample.bytes += self.bytes as u64;
        sample.evictions += self.evictions;
        self.counts.add_to(sample);
    }

    // ------------------------------------------------------------ entries

    /// Where `key` is. One that has expired is removed instead.
    fn find(&mut self, key: &[u8], hash: u64, now: Instant) -> Option<usize> {
        let entries = &self.entries;
        let same = |at: &usize| entries.get(*at).is_some_and(|entry| *entry.key == *key);
        let at = *self.table.find(hash, same)?;
        if entries.get(at).is_some_and(|entry| entry.is_expired(now)) {
            self.remove(at);
            return None;
        }
        Some(at)
    }

    fn read(&mut self, found: Option<usize>) -> StoreAnswer {
        match found.and_then(|at| self.entries.get_mut(at)) {
            Some(entry) => {
                entry.used = true;
                StoreAnswer::Value(entry.value.to_bytes())
            }
            None => StoreAnswer::Absent,
        }
    }

    fn write(
        &mut self,
        found: Option<usize>,
        key: &[u8],
        hash: u64,
        value: Value,
        expires: Option<Instant>,
        now: Instant,
    ) {
        match found.and_then(|at| self.entries.get_mut(at)) {
            Some(entry) => {
                self.bytes = self.bytes - entry.value.len() + value.len();
                self.timed = self.timed - usize::from(entry.expires.is_some())
                    + usize::from(expires.is_some());
                (entry.value, entry.expires, entry.used) = (value, expires, true);
            }
            None => {
                let entry = Entry {
                    hash,
                    key: key.into(),
                    value,
                    expires,
                    used: false,
                };
                // Room first, so that the newest is not what has to go.
                self.make_room(entry.bytes(), now);
                self.bytes += entry.bytes();
                self.timed += usize::from(expires.is_some());
                let at = self.entries.insert(entry);
                let entries = &self.entries;
                self.table.insert_unique(hash, at, |at| {
                    entries.get(*at).map_or(0, |entry| entry.hash)
                });
            }
        }
        self.sweep(SWEEP_STEPS, now);
        // A value that grew in its place.
        self.make_room(0, now);
    }

    fn remove(&mut self, at: usize) {
        let Some(entry) = self.entries.try_remove(at) else {
            return;
        };
        self.bytes -= entry.bytes();
        self.timed -= usize::from(entry.expires.is_some());
        if let Ok(place) = self.table.find_entry(entry.hash, |&other| other == at) {
            place.remove();
        }
    }

    // ------------------------------------------------------------ room

    /// Removes entries until `more` bytes fit. One entry alone always fits: it was checked.
    fn make_room(&mut self, more: usize, now: Instant) {
        if self.bytes + more > self.bytes_max {
            self.sweep(SWEEP_STEPS_FULL, now);
        }
        while self.bytes + more > self.bytes_max && !self.entries.is_empty() {
            let at = self.least_used(now);
            let expired = self.entries.get(at).is_some_and(|e| e.is_expired(now));
            self.evictions += u64::from(!expired);
            self.remove(at);
        }
    }

    /// The entry that goes next. There is one.
    fn least_used(&mut self, now: Instant) -> usize {
        let (mut seen, mut at) = (0, 0);
        // Vacant places are stepped over: at most once round.
        for _ in 0..2 * self.entries.capacity() {
            let place = self.hand;
            self.hand = if place + 1 >= self.entries.capacity() {
                0
            } else {
                place + 1
            };
            let Some(entry) = self.entries.get_mut(place) else {
                continue;
            };
            at = place;
            seen += 1;
            if !entry.used || entry.is_expired(now) || seen > ROUNDS_MAX {
                break;
            }
            entry.used = false;
        }
        at
    }

    /// Looks at the next places for entries that have expired.
    fn sweep(&mut self, steps: usize, now: Instant) {
        for _ in 0..steps {
            if self.timed == 0 {
                return;
            }
            let place = self.broom;
            self.broom = if place + 1 >= self.entries.capacity() {
                0
            } else {
                place + 1
            };
            if self.entries.get(place).is_some_and(|e| e.is_expired(now)) {
                self.remove(place);
            }
        }
    }
}

/// When an entry written `now` expires.
fn deadline(ttl: Option<Duration>, now: Instant) -> Option<Instant> {
    now.checked_add(Duration::from_millis(ttl_millis(ttl?)))
}
