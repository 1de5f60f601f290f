//! Bytes between two stages.

/// What is shown of a passing body at one time, and given to its taker.
pub(super) const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Bytes between two stages.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
    /// Nothing comes behind what is there.
    pub(super) ended: bool,
}

impl Queue {
    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.at += count;
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.at = 0;
        self.bytes.clear();
        // A body that once had a large block should not own it to its end.
        if self.bytes.capacity() > 2 * PIECE_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }

    /// The piece that is next, and whether it is the last.
    pub(super) fn piece(&self) -> (&[u8], bool) {
        let waiting = self.waiting();
        match waiting.split_at_checked(PIECE_BYTES_MAX) {
            Some((piece, rest)) => (piece, rest.is_empty() && self.ended),
            None => (waiting, self.ended),
        }
    }

    /// Moves everything, and the end; whether there was any of it.
    pub(super) fn move_to(&mut self, next: &mut Queue) -> bool {
        let moved = !self.is_empty() || self.ended && !next.ended;
        if next.is_empty() {
            std::mem::swap(&mut self.bytes, &mut next.bytes);
            next.at = self.at;
        } else {
            next.push(self.waiting());
        }
        self.clear();
        next.ended |= self.ended;
        moved
    }
}
