//! What every kind of store answers.

use super::super::{KEY_BYTES_MAX, StoreAnswer, StoreError, StoreOp, VALUE_BYTES_MAX};
use bytes::Bytes;
use std::time::Duration;

/// A time to live that no test outlives.
pub const LONG: Option<Duration> = Some(Duration::from_secs(3600));

pub fn get(key: &str) -> StoreOp<'_> {
    StoreOp::Get {
        key: key.as_bytes(),
    }
}

pub fn set<'a>(key: &'a str, value: &'a str, ttl: Option<Duration>) -> StoreOp<'a> {
    StoreOp::Set {
        key: key.as_bytes(),
        value: value.as_bytes(),
        ttl,
    }
}

pub fn swap<'a>(key: &'a str, expected: Option<&'a str>, value: &'a str) -> StoreOp<'a> {
    StoreOp::CompareAndSet {
        key: key.as_bytes(),
        expected: expected.map(str::as_bytes),
        value: value.as_bytes(),
        ttl: None,
    }
}

pub fn add(key: &str, delta: i64, ttl: Option<Duration>) -> StoreOp<'_> {
    StoreOp::Increment {
        key: key.as_bytes(),
        delta,
        ttl,
    }
}

pub fn delete(key: &str) -> StoreOp<'_> {
    StoreOp::Delete {
        key: key.as_bytes(),
    }
}

pub fn value(text: &str) -> Result<StoreAnswer, StoreError> {
    Ok(StoreAnswer::Value(Bytes::copy_from_slice(text.as_bytes())))
}

/// Operations in order, each with what it answers. The store is empty before.
pub fn cases() -> Vec<(StoreOp<'static>, Result<StoreAnswer, StoreError>)> {
    const KEY: &[u8] = &[b'k'; KEY_BYTES_MAX + 1];
    static VALUE: [u8; VALUE_BYTES_MAX + 1] = [0; VALUE_BYTES_MAX + 1];
    let sized = |key, value| StoreOp::Set {
        key: &KEY[..key],
        value: &VALUE[..value],
        ttl: None,
    };
    let (done, absent) = (Ok(StoreAnswer::Done), Ok(StoreAnswer::Absent));
    let number = |n| Ok(StoreAnswer::Number(n));
    let not_a_number = Err(StoreError::NotANumber);
    let swap_in_time = StoreOp::CompareAndSet {
        key: b"s",
        expected: Some(b"two"),
        value: b"three",
        ttl: LONG,
    };
    vec![
        // Values are bytes.
        (get("a"), absent.clone()),
        (set("a", "one\r\n\0\u{e9}", None), done.clone()),
        (get("a"), value("one\r\n\0\u{e9}")),
        (set("a", "", LONG), done.clone()),
        (get("a"), value("")),
        (delete("a"), done.clone()),
        (delete("a"), absent.clone()),
        (get("a"), absent.clone()),
        // A time to live is at least a moment and at most an age.
        (set("a", "x", Some(Duration::MAX)), done.clone()),
        (get("a"), value("x")),
        (set("a", "x", Some(Duration::ZERO)), done.clone()),
        // Compare and set.
        (swap("s", Some("one"), "two"), absent.clone()),
        (swap("s", Some(""), "two"), absent.clone()),
        (swap("s", None, "one"), done.clone()),
        (swap("s", None, "two"), value("one")),
        (swap("s", Some("other"), "two"), value("one")),
        (swap("s", Some("one"), "two"), done.clone()),
        (swap_in_time, done.clone()),
        (get("s"), value("three")),
        // Numbers are text, and exact.
        (add("n", 5, None), number(5)),
        (add("n", -7, LONG), number(-2)),
        (get("n"), value("-2")),
        (swap("n", Some("-2"), "9007199254740993"), done.clone()),
        (add("n", 2, LONG), number(9_007_199_254_740_995)),
        (add("t", i64::MAX, LONG), number(i64::MAX)),
        (add("t", 1, LONG), Err(StoreError::Overflow)),
        (add("t", 1, None), Err(StoreError::Overflow)),
        (add("t", i64::MIN, None), number(-1)),
        (add("t", i64::MIN, None), Err(StoreError::Overflow)),
        (get("t"), value("-1")),
        (set("w", "1 ", None), done.clone()),
        (add("w", 1, None), not_a_number.clone()),
        (add("w", 1, LONG), not_a_number.clone()),
        (set("w", "01", None), done.clone()),
        (add("w", 1, None), not_a_number.clone()),
        (set("w", "+1", None), done.clone()),
        (add("w", 1, None), not_a_number.clone()),
        (set("w", "", None), done.clone()),
        (add("w", 1, None), not_a_number.clone()),
        (set("w", "9223372036854775808", None), done.clone()),
        (add("w", 1, None), not_a_number),
        // Sizes.
        (get(""), Err(StoreError::KeyLength)),
        (sized(KEY_BYTES_MAX + 1, 0), Err(StoreError::KeyLength)),
        (
            sized(1, VALUE_BYTES_MAX + 1),
            Err(StoreError::ValueTooLarge),
        ),
        (sized(KEY_BYTES_MAX, VALUE_BYTES_MAX), done),
    ]
}
