//! Request ids.

use std::cell::Cell;

/// Makes request ids: a random part for the worker, then a counter, so that no two in a fleet are likely to meet.
pub struct RequestIds {
    prefix: u64,
    next: Cell<u64>,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self {
            prefix: fastrand::u64(..),
            next: Cell::new(fastrand::u32(..) as u64),
        }
    }

    pub fn next(&self) -> RequestId {
        let n = self.next.get();
        self.next.set(n.wrapping_add(1));
        let mut text = [0; 64];
        hex(self.prefix, &mut text[..16]);
        hex(n, &mut text[16..32]);
        RequestId { text, len: 32 }
    }
}

fn hex(n: u64, out: &mut [u8]) {
    for (i, digit) in out.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(n >> (60 - 4 * i)) as usize & 15];
    }
}

/// Names one exchange in logs, in `X-Request-Id` and for filters.
#[derive(Debug, Clone, Copy)]
pub struct RequestId {
    text: [u8; 64],
    len: u8,
}

impl RequestId {
    /// Takes a trusted peer's id when it is short and plain; else a new one is made.
    pub fn from_client(value: &[u8]) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if value.is_empty() || value.len() > 64 || !value.iter().all(plain) {
            return None;
        }
        let mut text = [0; 64];
        text[..value.len()].copy_from_slice(value);
        Some(Self {
            text,
            len: value.len() as u8,
        })
    }

    pub fn as_str(&self) -> &str {
        // Only ASCII was put in.
        std::str::from_utf8(&self.text[..self.len as usize]).unwrap_or("")
    }
}
