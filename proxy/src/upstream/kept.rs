//! Idle upstream connections that a worker keeps for reuse.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use super::endpoint::EndpointId;

/// Connections of one worker, newest first out, so that a fall in load lets the oldest age away.
/// Bounded for each endpoint by the pool's setting and altogether by `total_max`.
#[derive(Debug)]
pub struct Kept<T> {
    idle: HashMap<EndpointId, VecDeque<Idle<T>>, BuildHasherDefault<IdHasher>>,
    total: usize,
    total_max: usize,
}

#[derive(Debug)]
struct Idle<T> {
    connection: T,
    expires: Instant,
}

impl<T> Kept<T> {
    pub fn new(total_max: usize) -> Self {
        Self {
            idle: HashMap::default(),
            total: 0,
            total_max,
        }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.total
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The connection to `endpoint` that was used last, among those that have not expired and that `lives` says are
    /// still open. Those found dead on the way are dropped.
    pub fn take(
        &mut self,
        endpoint: EndpointId,
        now: Instant,
        mut lives: impl FnMut(&mut T) -> bool,
    ) -> Option<T> {
        let idle = self.idle.get_mut(&endpoint)?;
        while let Some(mut candidate) = idle.pop_back() {
            self.total -= 1;
            if now < candidate.expires && lives(&mut candidate.connection) {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Keeps `connection` for `timeout` at most. At `endpoint_max` the oldest of the endpoint makes room; at the
    /// worker's own limit the connection is dropped instead.
    pub fn put(
        &mut self,
        endpoint: EndpointId,
        connection: T,
        now: Instant,
        endpoint_max: usize,
        timeout: Duration,
    ) {
        if endpoint_max == 0 || timeout.is_zero() {
            return;
        }
        let idle = self.idle.entry(endpoint).or_default();
        while idle.len() >= endpoint_max {
            idle.pop_front();
            self.total -= 1;
        }
        if self.total >= self.total_max {
            return;
        }
        idle.push_back(Idle {
            connection,
            expires: now + timeout,
        });
        self.total += 1;
    }

    /// Drops what has expired or died; called now and then by the worker. Answers how many.
    pub fn sweep(&mut self, now: Instant, mut lives: impl FnMut(&mut T) -> bool) -> usize {
        let before = self.total;
        self.total = 0;
        self.idle.retain(|_, idle| {
            idle.retain_mut(|kept| now < kept.expires && lives(&mut kept.connection));
            self.total += idle.len();
            !idle.is_empty()
        });
        before - self.total
    }

    /// Drops the connections to endpoints that `serves` knows no more, as after a reload.
    pub fn retain(&mut self, serves: impl Fn(EndpointId) -> bool) {
        self.idle.retain(|endpoint, _| serves(*endpoint));
        self.total = self.idle.values().map(VecDeque::len).sum();
    }

    /// Drops everything, as at the end of a drain.
    pub fn clear(&mut self) {
        self.idle.clear();
        self.total = 0;
    }
}

/// Ids are small numbers of our own making, so one multiplication spreads them well enough.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EndpointId = EndpointId(1);
    const B: EndpointId = EndpointId(2);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn newest_first_and_only_the_living() {
        let (mut kept, now) = (Kept::new(100), Instant::now());
        for n in 0..4 {
            kept.put(A, n, now, 10, LONG);
        }
        assert_eq!(kept.take(A, now, |_| true), Some(3));
        assert_eq!(kept.take(A, now, |n| *n != 2), Some(1));
        assert_eq!(kept.take(B, now, |_| true), None);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept.take(A, now + LONG, |_| true), None, "expired");
        assert!(kept.is_empty());
    }

    #[test]
    fn limits_hold() {
        let (mut kept, now) = (Kept::new(3), Instant::now());
        for n in 0..5 {
            kept.put(A, n, now, 2, LONG);
        }
        assert_eq!(kept.len(), 2);
        kept.put(B, 10, now, 2, LONG);
        kept.put(B, 11, now, 2, LONG);
        assert_eq!(kept.len(), 3, "the worker's limit");
        assert_eq!(kept.take(B, now, |_| true), Some(10));
        assert_eq!(kept.take(A, now, |_| true), Some(4));
        assert_eq!(kept.take(A, now, |_| true), Some(3));
        kept.put(A, 1, now, 0, LONG);
        kept.put(A, 1, now, 2, Duration::ZERO);
        assert!(kept.is_empty());
    }

    #[test]
    fn sweep_drops_old_and_dead() {
        let (mut kept, now) = (Kept::new(100), Instant::now());
        kept.put(A, 1, now, 10, LONG);
        kept.put(A, 2, now, 10, LONG / 2);
        kept.put(B, 3, now, 10, LONG);
        assert_eq!(kept.sweep(now + LONG / 2, |n| *n != 3), 2);
        assert_eq!(kept.len(), 1);
        kept.clear();
        assert!(kept.is_empty());
    }
}
