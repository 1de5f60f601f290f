//! What a pool that has lost its last endpoint knows of it, and the patience of requests that wait for one to come back.
//!
//! A pool whose endpoints are restarted one after the other is without any for moments only: one has just gone, another
//! listens already and is about to be probed. A pool that has been without endpoints for longer keeps nobody waiting.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::set::EndpointSet;

/// How long one request waits, in all.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Requests of one pool that wait at one time.
const WAITERS_MAX: usize = 4096;
/// A pool that lost its last endpoint is waited for that long.
const HOPE_MS: u64 = 3000;
/// `hope_ends` while there are endpoints.
pub(super) const NOT_LOST: u64 = u64::MAX;
/// Times one request goes on after waiting.
const ROUNDS_MAX: u32 = 16;

/// What one request has waited.
#[derive(Debug, Default)]
pub struct Patience {
    ends: Option<Instant>,
    pub(super) rounds: u32,
}

impl Patience {
    pub(super) fn left(&mut self) -> Duration {
        let now = Instant::now();
        let ends = *self.ends.get_or_insert(now + WAIT_MAX);
        ends.saturating_duration_since(now)
    }

    pub(super) fn again(&mut self) -> bool {
        self.rounds += 1;
        self.rounds <= ROUNDS_MAX
    }
}

/// What a pool knows of its loss, and who waits for the end of it.
#[derive(Debug)]
pub(super) struct Comebacks {
    /// Until when the loss of the last endpoint is news, in the registry's milliseconds.
    pub(super) hope_ends: AtomicU64,
    /// An endpoint was sound since the last loss. Without, there is nothing that could come back.
    was_sound: AtomicBool,
    pub(super) waiting: AtomicUsize,
    /// A probe has ended, or other endpoints may be picked.
    pub(super) news: watch::Sender<()>,
}

pub(super) struct Seat<'a>(&'a AtomicUsize);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Comebacks {
    /// For a pool that begins with `set`.
    pub fn new(set: &EndpointSet, previous: Option<&Self>) -> Self {
        let before = previous.map_or(0, |p| p.hope_ends.load(Ordering::Relaxed));
        let was_sound = previous.is_some_and(|p| p.was_sound.load(Ordering::Relaxed));
        Self {
            hope_ends: AtomicU64::new(match (set.is_lost(), before) {
                (false, _) => NOT_LOST,
                (true, NOT_LOST) => 0,
                (true, ends) => ends,
            }),
            was_sound: AtomicBool::new(was_sound || set.is_sound()),
            waiting: AtomicUsize::new(0),
            news: watch::Sender::new(()),
        }
    }

    /// The pool's set is `set` from now on. Called by one thread at a time.
    pub fn follow(&self, set: &EndpointSet, now: u64) {
        if !set.is_lost() {
            self.hope_ends.store(NOT_LOST, Ordering::Relaxed);
            if set.is_sound() {
                self.was_sound.store(true, Ordering::Relaxed);
            }
        } else if self.hope_ends.load(Ordering::Relaxed) == NOT_LOST {
            let hope = self.was_sound.swap(false, Ordering::Relaxed);
            let ends = if hope { now + HOPE_MS } else { 0 };
            self.hope_ends.store(ends, Ordering::Relaxed);
            if hope {
                // Who was found down some time ago may be back.
                set.roster.members.iter().for_each(|m| {
                    m.endpoint.standing.schedule.prompt();
                });
            }
        }
        self.news.send_replace(());
    }

    pub(super) fn sit(&self) -> Option<Seat<'_>> {
        let more = |n: usize| (n < WAITERS_MAX).then_some(n + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let seated = self.waiting.fetch_update(set, fetch, more);
        seated.is_ok().then_some(Seat(&self.waiting))
    }
}
