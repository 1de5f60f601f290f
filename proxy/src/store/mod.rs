//! A key-value store for filters: bytes under names, shared by all workers, in memory or in Redis.
//!
//! A [`Store`] is one namespace, which is a filter's name, and survives reloads. Each worker uses it through a [`Handle`] of its own. Both kinds answer alike, which one table of cases holds.
//! This room does not know what filters are.

mod counts;
mod memory;
mod redis;
mod stores;
#[cfg(test)]
mod tests;

pub use counts::{OpKind, OpResult, Sample};
pub use memory::Memory;
pub use stores::{Connections, Handle, Store};

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one key; at least one.
pub const KEY_BYTES_MAX: usize = 1024;
/// Bytes of one value. A store in memory that is smaller than 2 MiB takes half of what it holds.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// What a time to live is brought into: Redis counts milliseconds, and its clock ends somewhere.
const TTL_MIN: Duration = Duration::from_millis(1);
const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// One operation. Each is atomic. A time to live is rounded up to a millisecond, and at most a hundred years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOp<'a> {
    /// Answers `Value` or `Absent`.
    Get { key: &'a [u8] },
    /// Answers `Done`. Without `ttl` the key stays until it is deleted or makes room for others.
    Set {
        key: &'a [u8],
        value: &'a [u8],
        ttl: Option<Duration>,
    },
    /// Sets `value` if the key holds `expected` (none: if it is absent) and answers `Done`; else answers what is there,
    /// `Value` or `Absent`.
    CompareAndSet {
        key: &'a [u8],
        expected: Option<&'a [u8]>,
        value: &'a [u8],
        ttl: Option<Duration>,
    },
    /// Adds `delta` to a decimal number, which is 0 where there is none, and answers the sum as `Number`. `ttl` counts
    /// when the key is created by this; else the key keeps the time it had.
    Increment {
        key: &'a [u8],
        delta: i64,
        ttl: Option<Duration>,
    },
    /// Answers `Done`, or `Absent` when there was nothing.
    Delete { key: &'a [u8] },
}

impl<'a> StoreOp<'a> {
    pub fn key(&self) -> &'a [u8] {
        match *self {
            StoreOp::Get { key }
            | StoreOp::Set { key, .. }
            | StoreOp::CompareAndSet { key, .. }
            | StoreOp::Increment { key, .. }
            | StoreOp::Delete { key } => key,
        }
    }

    /// Checks what both kinds of store check alike.
    fn check(&self, value_bytes_max: usize) -> Result<(), StoreError> {
        let value = match *self {
            StoreOp::Set { value, .. } | StoreOp::CompareAndSet { value, .. } => value,
            _ => &[],
        };
        if !(1..=KEY_BYTES_MAX).contains(&self.key().len()) {
            Err(StoreError::KeyLength)
        } else if value.len() > value_bytes_max {
            Err(StoreError::ValueTooLarge)
        } else {
            Ok(())
        }
    }
}

/// What a store says to an operation that it carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAnswer {
    Done,
    Value(Bytes),
    Absent,
    Number(i64),
}

/// Why an operation was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes")]
    KeyLength,
    #[error("the value is larger than the store takes")]
    ValueTooLarge,
    /// What is there is not a whole decimal number of 64 bits, as [`StoreOp::Increment`] writes it.
    #[error("the value is not a number")]
    NotANumber,
    #[error("the sum does not fit into 64 bits")]
    Overflow,
    /// The store cannot be reached. An operation that was on its way may have been carried out.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// No answer in time. The operation may have been carried out.
    #[error("the store did not answer in time")]
    Timeout,
}

/// A time to live as both kinds of store count it: whole milliseconds, rounded up.
fn ttl_millis(ttl: Duration) -> u64 {
    let ttl = ttl.clamp(TTL_MIN, TTL_MAX);
    // At most a hundred years: it fits.
    ttl.as_nanos().div_ceil(1_000_000) as u64
}

/// The number that `text` is, if it is written as [`StoreOp::Increment`] writes numbers.
fn number(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(number).as_bytes() == text).then_some(number)
}
