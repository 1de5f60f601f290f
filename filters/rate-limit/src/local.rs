//! Buckets of one instance: a table with a bound, from which the longest unused go first.

use std::collections::HashMap;

/// Buckets of one half; there are two.
const HALF_MAX: usize = 8192;

/// Two halves: a bucket that is used moves to the young one; when that is full, the old one is dropped and the young one
/// grows old. What was used among the last `HALF_MAX` different keys is always there.
#[derive(Debug, Default)]
pub struct Buckets {
    young: HashMap<Vec<u8>, u64>,
    old: HashMap<Vec<u8>, u64>,
}

impl Buckets {
    /// When the bucket of `key` is full; 0 for one that is not there.
    pub fn get(&self, key: &[u8]) -> u64 {
        let found = self.young.get(key).or_else(|| self.old.get(key));
        found.copied().unwrap_or(0)
    }

    pub fn set(&mut self, key: &[u8], full_at: u64) {
        if let Some(known) = self.young.get_mut(key) {
            *known = full_at;
            return;
        }
        if self.young.len() >= HALF_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.to_vec(), full_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_table_is_bounded() {
        let mut buckets = Buckets::default();
        for n in 0..100_000u64 {
            buckets.set(b"used", n);
            buckets.set(&n.to_le_bytes(), n);
            assert_eq!(buckets.get(b"used"), n);
        }
        assert!(buckets.young.len() + buckets.old.len() <= 2 * HALF_MAX);
        assert_eq!(buckets.get(&0u64.to_le_bytes()), 0);
        assert_eq!(buckets.get(&99_999u64.to_le_bytes()), 99_999);
    }
}
