//! The filter's store: keys and values that all its instances share, and that outlive them. Awaited inside of a verdict
//! that comes [later](crate::Verdict::later).
//!
//! [`Setup::uses_store`](crate::Setup::uses_store) announces it, and the YAML has to grant `key-value`. Keys have 1 to
//! 1024 bytes, values at most 1 MiB.

use std::time::Duration;

use crate::effect::executor::Outcome;
use crate::effect::{Effect, Error, operation};

/// Says in a compare-and-set that no value is expected.
const NO_VALUE: u32 = u32::MAX;

/// What a compare-and-set came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// It was as expected, and is set now.
    Set,
    /// It was not: this is what is there.
    Differs(Option<Vec<u8>>),
}

/// The value of `key`.
pub async fn get(key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
    Effect::new(asking(operation::GET, key.as_ref(), &[]), |outcome| {
        Some(match outcome {
            Outcome::Value(value) => Ok(Some(value)),
            Outcome::NoValue => Ok(None),
            other => Err(failed(other)),
        })
    })
    .await
}

/// Sets `key`, for as long as `ttl` says, for ever without one.
pub async fn set(
    key: impl AsRef<[u8]>,
    value: impl AsRef<[u8]>,
    ttl: impl Into<Option<Duration>>,
) -> Result<(), Error> {
    let ttl = millis(ttl.into()).to_le_bytes();
    let operation = asking(operation::SET, key.as_ref(), &[&ttl, value.as_ref()]);
    Effect::new(operation, done).await
}

/// Sets `key` if its value is `expected`; none means that there must be no value.
pub async fn compare_and_set(
    key: impl AsRef<[u8]>,
    expected: Option<&[u8]>,
    value: impl AsRef<[u8]>,
    ttl: impl Into<Option<Duration>>,
) -> Result<Swap, Error> {
    let ttl = millis(ttl.into()).to_le_bytes();
    let length = expected.map_or(NO_VALUE, |expected| expected.len() as u32);
    let parts = [
        &ttl[..],
        &length.to_le_bytes(),
        expected.unwrap_or_default(),
        value.as_ref(),
    ];
    let operation = asking(operation::COMPARE_AND_SET, key.as_ref(), &parts);
    Effect::new(operation, |outcome| {
        Some(match outcome {
            Outcome::Done => Ok(Swap::Set),
            Outcome::Value(value) => Ok(Swap::Differs(Some(value))),
            Outcome::NoValue => Ok(Swap::Differs(None)),
            other => Err(failed(other)),
        })
    })
    .await
}

/// Adds to the number at `key`, 0 where there is none, and answers the sum. `ttl` is for a key that is made by this; one
/// that was there keeps the time it has.
pub async fn increment(
    key: impl AsRef<[u8]>,
    by: i64,
    ttl: impl Into<Option<Duration>>,
) -> Result<i64, Error> {
    let ttl = millis(ttl.into()).to_le_bytes();
    let parts = [&by.to_le_bytes()[..], &ttl];
    let operation = asking(operation::INCREMENT, key.as_ref(), &parts);
    Effect::new(operation, |outcome| {
        Some(match outcome {
            Outcome::Value(sum) => match sum.try_into() {
                Ok(sum) => Ok(i64::from_le_bytes(sum)),
                Err(_) => Err(Error::Malformed),
            },
            other => Err(failed(other)),
        })
    })
    .await
}

/// Removes `key`, if it is there.
pub async fn delete(key: impl AsRef<[u8]>) -> Result<(), Error> {
    Effect::new(asking(operation::DELETE, key.as_ref(), &[]), done).await
}

fn done(outcome: Outcome) -> Option<Result<(), Error>> {
    Some(match outcome {
        Outcome::Done | Outcome::NoValue => Ok(()),
        other => Err(failed(other)),
    })
}

fn failed(outcome: Outcome) -> Error {
    match outcome {
        Outcome::Failed(error) => error,
        _ => Error::Malformed,
    }
}

fn asking(code: u8, key: &[u8], value: &[&[u8]]) -> Vec<u8> {
    let mut asking = Vec::new();
    operation::write(&mut asking, code, key, &value.concat());
    asking
}

/// 0 is for ever, so that the shortest time is a millisecond.
fn millis(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| {
        u64::try_from(ttl.as_nanos().div_ceil(1_000_000))
            .unwrap_or(u64::MAX)
            .max(1)
    })
}
