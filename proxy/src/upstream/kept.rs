//! Idle upstream connections that a worker keeps for reuse.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use super::registry::EndpointId;

/// The shortest rest, for connections that should be left alone for a while; see [`Kept::put_to_rest`].
pub const REST: Duration = Duration::from_millis(100);

/// Connections of one worker, newest first out, so that a fall in load lets the oldest age away.
/// Bounded for each endpoint by the pool's setting and altogether by `total_max`.
#[derive(Debug)]
pub struct Kept<T> {
    all: HashMap<EndpointId, Endpoint<T>, BuildHasherDefault<IdHasher>>,
    total: usize,
    total_max: usize,
}

#[derive(Debug)]
struct Endpoint<T> {
    idle: VecDeque<Idle<T>>,
    /// Those that are not to be used before a time of their own, oldest first.
    resting: VecDeque<Resting<T>>,
}

#[derive(Debug)]
struct Idle<T> {
    connection: T,
    expires: Instant,
}

#[derive(Debug)]
struct Resting<T> {
    idle: Idle<T>,
    since: Instant,
    until: Instant,
}

impl<T> Endpoint<T> {
    fn len(&self) -> usize {
        self.idle.len() + self.resting.len()
    }

    /// One that has rested enough. When there is no room for more, the shortest rest is.
    fn rested(&mut self, now: Instant, endpoint_max: usize) -> Option<Idle<T>> {
        let full = self.len() >= endpoint_max;
        let rested = |r: &Resting<T>| r.until <= now || full && r.since + REST <= now;
        let at = self.resting.iter().position(rested)?;
        self.resting.remove(at).map(|resting| resting.idle)
    }
}

impl<T> Default for Endpoint<T> {
    fn default() -> Self {
        Self {
            idle: VecDeque::new(),
            resting: VecDeque::new(),
        }
    }
}

impl<T> Kept<T> {
    pub fn new(total_max: usize) -> Self {
        Self {
            all: HashMap::default(),
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
    /// still open. Those found dead on the way are dropped. `endpoint_max` is that of [`Kept::put`].
    pub fn take(
        &mut self,
        endpoint: EndpointId,
        now: Instant,
        endpoint_max: usize,
        mut lives: impl FnMut(&mut T) -> bool,
    ) -> Option<T> {
        let kept = self.all.get_mut(&endpoint)?;
        loop {
            let idle = kept.idle.pop_back();
            let mut candidate = idle.or_else(|| kept.rested(now, endpoint_max))?;
            self.total -= 1;
            if now < candidate.expires && lives(&mut candidate.connection) {
                return Some(candidate.connection);
            }
        }
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
        if let Some(kept) = self.room(endpoint, endpoint_max, timeout) {
            let expires = now + timeout;
            kept.idle.push_back(Idle {
                connection,
                expires,
            });
        }
    }

    /// The same, but the connection is not given to anybody before it has rested for `rest`: what its peer may still send
    /// unasked shall arrive while nobody waits for an answer. When there is no room for more, those that rest are
    /// given out after [`REST`] already.
    pub fn put_to_rest(
        &mut self,
        endpoint: EndpointId,
        connection: T,
        now: Instant,
        endpoint_max: usize,
        timeout: Duration,
        rest: Duration,
    ) {
        // In place of those that rest it would be the next to go, and none would ever have rested enough.
        let is_full = self.all.get(&endpoint).is_some_and(|kept| {
            kept.idle.is_empty() && endpoint_max > 0 && kept.len() >= endpoint_max
        });
        if is_full {
            return;
        }
        if let Some(kept) = self.room(endpoint, endpoint_max, timeout) {
            let expires = now + timeout;
            kept.resting.push_back(Resting {
                idle: Idle {
                    connection,
                    expires,
                },
                since: now,
                until: now + rest,
            });
        }
    }

    /// Where one connection more is kept, for which room was made. It is counted already.
    fn room(
        &mut self,
        endpoint: EndpointId,
        endpoint_max: usize,
        timeout: Duration,
    ) -> Option<&mut Endpoint<T>> {
        if endpoint_max == 0 || timeout.is_zero() {
            return None;
        }
        let kept = self.all.entry(endpoint).or_default();
        while kept.len() >= endpoint_max {
            if kept.idle.pop_front().is_none() {
                kept.resting.pop_front();
            }
            self.total -= 1;
        }
        if self.total >= self.total_max {
            return None;
        }
        self.total += 1;
        Some(kept)
    }

    /// Drops what has expired or died; called now and then by the worker. Answers how many.
    pub fn sweep(
        &mut self,
        now: Instant,
        mut lives: impl FnMut(EndpointId, &mut T) -> bool,
    ) -> usize {
        let before = self.total;
        self.total = 0;
        self.all.retain(|&endpoint, kept| {
            let mut stays =
                |idle: &mut Idle<T>| now < idle.expires && lives(endpoint, &mut idle.connection);
            kept.idle.retain_mut(&mut stays);
            kept.resting.retain_mut(|resting| stays(&mut resting.idle));
            self.total += kept.len();
            kept.len() > 0
        });
        before - self.total
    }

    /// Drops the connections to endpoints that `serves` knows no more, as after a reload.
    pub fn retain(&mut self, serves: impl Fn(EndpointId) -> bool) {
        self.all.retain(|endpoint, _| serves(*endpoint));
        self.total = self.all.values().map(Endpoint::len).sum();
    }

    /// Drops everything, as at the end of a drain.
    pub fn clear(&mut self) {
        self.all.clear();
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
        assert_eq!(kept.take(A, now, 10, |_| true), Some(3));
        assert_eq!(kept.take(A, now, 10, |n| *n != 2), Some(1));
        assert_eq!(kept.take(B, now, 10, |_| true), None);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept.take(A, now + LONG, 10, |_| true), None, "expired");
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
        assert_eq!(kept.take(B, now, 10, |_| true), Some(10));
        assert_eq!(kept.take(A, now, 10, |_| true), Some(4));
        assert_eq!(kept.take(A, now, 10, |_| true), Some(3));
        kept.put(A, 1, now, 0, LONG);
        kept.put(A, 1, now, 2, Duration::ZERO);
        assert!(kept.is_empty());
    }

    #[test]
    fn what_rests_is_given_to_nobody() {
        let (mut kept, now) = (Kept::new(100), Instant::now());
        let second = Duration::from_secs(1);
        kept.put_to_rest(A, 1, now, 3, LONG, second);
        assert_eq!(kept.take(A, now, 3, |_| true), None);
        kept.put(A, 2, now, 3, LONG);
        assert_eq!(kept.take(A, now + second, 3, |_| true), Some(2));
        assert_eq!(kept.take(A, now + second, 3, |_| true), Some(1));
        // Without room for more the newcomer goes, and the shortest rest is enough.
        (0..4).for_each(|n| kept.put_to_rest(A, n, now, 3, LONG, second));
        assert_eq!(kept.len(), 3);
        assert_eq!(kept.take(A, now + REST / 2, 3, |_| true), None);
        assert_eq!(kept.take(A, now + REST, 3, |_| true), Some(0));
        assert_eq!(kept.take(A, now + REST, 3, |_| true), None, "there is room");
        assert_eq!(kept.sweep(now + REST, |_, n| *n != 2), 1);
        kept.put(A, 9, now, 1, LONG);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept.take(A, now + second, 1, |_| true), Some(9));
        assert!(kept.is_empty());
    }

    #[test]
    fn sweep_drops_old_and_dead() {
        let (mut kept, now) = (Kept::new(100), Instant::now());
        kept.put(A, 1, now, 10, LONG);
        kept.put(A, 2, now, 10, LONG / 2);
        kept.put(B, 3, now, 10, LONG);
        assert_eq!(kept.sweep(now + LONG / 2, |_, n| *n != 3), 2);
        assert_eq!(kept.len(), 1);
        kept.clear();
        assert!(kept.is_empty());
    }
}
