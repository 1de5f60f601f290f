//! One read buffer for all connections of a worker, so that an idle connection owns none.

use std::cell::RefCell;
use std::rc::Rc;

/// What one read takes at most: large enough that a bulk transfer wakes its receiver seldom, small enough to stay in the
/// processor's second-level cache.
pub const SCRATCH_BYTES: usize = 256 * 1024;
/// What a connection may keep an allocation of, and what a read takes of a sender whose receiver is slower: what the
/// receiver does not take at once is the connection's to hold.
pub const PIECE_BYTES: usize = 64 * 1024;

/// A worker's scratch buffer. Clones share it. What it holds is gone once [`Scratch::with`] returns.
#[derive(Debug, Clone)]
pub struct Scratch {
    bytes: Rc<RefCell<Box<[u8]>>>,
}

impl Scratch {
    pub fn new() -> Self {
        Self::with_size(SCRATCH_BYTES)
    }

    /// `size` is at least one byte: an empty buffer would make every read look like the end of the stream.
    pub fn with_size(size: usize) -> Self {
        Self {
            bytes: Rc::new(RefCell::new(vec![0; size.max(1)].into_boxed_slice())),
        }
    }

    /// Lends the buffer to `work`, which cannot await and so cannot keep it from others. A use within a use
    /// gets a buffer of its own instead of a panic.
    pub fn with<R>(&self, work: impl FnOnce(&mut [u8]) -> R) -> R {
        match self.bytes.try_borrow_mut() {
            Ok(mut bytes) => work(&mut bytes),
            Err(_) => work(&mut vec![0; PIECE_BYTES]),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_use_does_not_see_the_outer_bytes() {
        let scratch = Scratch::with_size(4);
        scratch.with(|outer| {
            outer.copy_from_slice(b"abcd");
            scratch.clone().with(|nested| nested.fill(b'x'));
            assert_eq!(outer, b"abcd");
        });
    }
}
