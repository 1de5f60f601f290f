//! Resolves a pool's host names again and again, and decides what becomes of addresses that are no longer answered.
//!
//! An answer is believed: an address that is missing from it gets no more traffic. But some name servers give only a part
//! of the addresses each time. So an address that went and came back once stays when it is missing again, until it has
//! been missing for long. And an answer that there is nothing (the name does not exist, or has no address) is an answer,
//! but a grave one: it must hold for a grace time. No answer at all changes nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::config::PoolConfig;
use crate::discovery::{ADDRESSES_MAX, Answer, Resolve, ResolveError};
use crate::upstream::Pool;

/// Names of one pool that are asked for at one time.
const CONCURRENT: usize = 8;
/// One answer may take this long.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Answers that claim to hold for less are believed to hold for this long.
const TTL_MIN: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The grace time where none is configured: as many times the last answer's validity, but no less than `GRACE_MIN`.
const GRACE_TTLS: u32 = 3;
const GRACE_MIN: Duration = Duration::from_secs(30);
/// An address that comes and goes is remembered for so many answers without it.
const MISSED_MAX: u32 = 16;

/// What a pool's resolution remembers from round to round.
#[derive(Default)]
pub struct NameWatch {
    failed_rounds: u32,
}

/// What is known of one host name. It survives a reload.
#[derive(Debug, Default)]
pub struct NameState {
    addresses: BTreeMap<IpAddr, Sighting>,
    /// How long the last answer with addresses held.
    ttl: Duration,
    /// Since when the answer is that there is no address.
    gone_since: Option<Instant>,
    gone: bool,
}

#[derive(Debug)]
struct Sighting {
    last: Instant,
    /// Answers since then.
    missed: u32,
    /// It went and came back.
    returned: bool,
}

/// What an answer means for a pool.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    /// Those that get traffic.
    addresses: Vec<IpAddr>,
    /// Those that may come back, besides.
    absent: Vec<IpAddr>,
}

impl NameState {
    /// An answer with addresses came at `now`.
    fn answered(
        &mut self,
        addresses: &[IpAddr],
        ttl: Duration,
        now: Instant,
        grace: Duration,
    ) -> Meaning {
        (self.gone_since, self.gone, self.ttl) = (None, false, ttl);
        for sighting in self.addresses.values_mut() {
            sighting.missed = sighting.missed.saturating_add(1);
        }
        for &ip in addresses {
            let before = self.addresses.get(&ip);
            let returned = before.is_some_and(|s| s.returned || s.missed > 1);
            let sighting = Sighting {
                last: now,
                missed: 0,
                returned,
            };
            self.addresses.insert(ip, sighting);
        }
        let crowded = self.addresses.len() > ADDRESSES_MAX;
        self.addresses.retain(|_, s| {
            let remembered =
                s.missed <= MISSED_MAX || now.saturating_duration_since(s.last) < grace;
            s.missed == 0 || remembered && !crowded
        });
        let (present, absent): (Vec<_>, Vec<_>) =
            (self.addresses.iter()).partition(|(_, s)| s.missed == 0 || s.returned);
        let ips = |of: Vec<(&IpAddr, &Sighting)>| of.into_iter().map(|(&ip, _)| ip).collect();
        Meaning {
            addresses: ips(present),
            absent: ips(absent),
        }
    }

    /// The answer at `now` was that there is no address. True when that has held for the grace time, once; else how much
    /// of it is left.
    fn denied(&mut self, now: Instant, grace: Duration) -> Result<bool, Duration> {
        let since = *self.gone_since.get_or_insert(now);
        let left = grace.saturating_sub(now.saturating_duration_since(since));
        if !left.is_zero() {
            return Err(left);
        }
        self.addresses.clear();
        Ok(!std::mem::replace(&mut self.gone, true))
    }

    fn grace(&self, config: &PoolConfig) -> Duration {
        let usual = || self.ttl.saturating_mul(GRACE_TTLS).max(GRACE_MIN);
        config.resolve_grace.unwrap_or_else(usual)
    }
}

impl NameWatch {
    /// Asks for every name once and hands the answers to `pool`.
    /// Answers when the next round is due: after the pool's interval, or when the first answer expires before that,
    /// or soon when a name failed.
    pub async fn round(&mut self, pool: &Pool, resolver: &dyn Resolve) -> Duration {
        let interval = pool.config.resolve_interval;
        let mut next = interval;
        let mut failed = false;
        let mut answers = futures_util::stream::iter(pool.hosts.clone())
            .map(|host| async move {
                let asked = tokio::time::timeout(TIMEOUT, resolver.resolve(&host));
                let answer = asked.await.unwrap_or(Err(ResolveError::Timeout));
                (host, answer)
            })
            .buffer_unordered(CONCURRENT);
        while let Some((host, answer)) = answers.next().await {
            let now = Instant::now();
            let mut names = pool.lineage.names();
            let state = names.entry(Arc::clone(&host)).or_default();
            match answer {
                Ok(Answer { addresses, ttl }) => {
                    let holds = ttl.unwrap_or(interval);
                    state.ttl = holds;
                    let grace = state.grace(&pool.config);
                    let meaning = state.answered(&addresses, holds, now, grace);
                    pool.resolved(&host, &meaning.addresses, &meaning.absent);
                    next = next.min(holds.max(TTL_MIN));
                }
                Err(error) => {
                    failed = true;
                    if error == ResolveError::NoAddress && pool.knows(&host) {
                        match state.denied(now, state.grace(&pool.config)) {
                            Ok(first) => self.drop_name(pool, &host, first),
                            Err(left) => {
                                next = next.min(left.max(Duration::from_millis(10)));
                                self.complain(pool, &host, &error);
                            }
                        }
                    } else {
                        self.complain(pool, &host, &error);
                    }
                }
            }
        }
        drop(answers);
        pool.resolution_done();
        if !failed {
            self.failed_rounds = 0;
            return next;
        }
        let soon = RETRY_MIN.saturating_mul(1 << self.failed_rounds.min(16));
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        next.min(soon)
    }

    /// Also when another pool of this line did it before, from which this one has taken over.
    fn drop_name(&self, pool: &Pool, host: &Arc<str>, first: bool) {
        if first {
            pool.lineage.count_gone();
            let pool = &*pool.config.name;
            tracing::warn!(pool, %host, "name is gone: its addresses are no longer used");
        }
        pool.resolved(host, &[], &[]);
    }

    /// Loud the first time, quiet while it lasts.
    fn complain(&self, pool: &Pool, host: &Arc<str>, error: &ResolveError) {
        let pool = &*pool.config.name;
        if self.failed_rounds == 0 {
            tracing::warn!(pool, %host, %error, "name not resolved; its last addresses stay");
        } else {
            tracing::debug!(pool, %host, %error, "name still not resolved");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ips(last: &[u8]) -> Vec<IpAddr> {
        last.iter().map(|&n| IpAddr::from([10, 0, 0, n])).collect()
    }

    #[test]
    fn an_answer_is_believed_and_what_comes_and_goes_stays() {
        let (mut state, start) = (NameState::default(), Instant::now());
        let mut second = 0;
        let mut answer = |last: &[u8]| {
            second += 1;
            let meaning = state.answered(&ips(last), SECOND, start + SECOND * second, 5 * SECOND);
            (meaning.addresses, meaning.absent)
        };
        assert_eq!(answer(&[1, 2]), (ips(&[1, 2]), ips(&[])));
        assert_eq!(answer(&[2, 3]), (ips(&[2, 3]), ips(&[1])));
        assert_eq!(answer(&[1, 3]), (ips(&[1, 3]), ips(&[2])));
        assert_eq!(
            answer(&[2, 3]),
            (ips(&[1, 2, 3]), ips(&[])),
            "1 is known for it"
        );
        for _ in 0..MISSED_MAX - 1 {
            assert_eq!(answer(&[2, 3]), (ips(&[1, 2, 3]), ips(&[])));
        }
        assert_eq!(
            answer(&[2, 3]),
            (ips(&[2, 3]), ips(&[])),
            "missing for long"
        );
    }

    #[test]
    fn a_random_part_of_the_addresses_settles() {
        let (mut state, start) = (NameState::default(), Instant::now());
        let mut random = fastrand::Rng::with_seed(7);
        let mut sizes = Vec::new();
        for round in 0..200 {
            let mut all: Vec<u8> = (1..=20).collect();
            random.shuffle(&mut all);
            let now = start + SECOND * round;
            let meaning = state.answered(&ips(&all[..8]), SECOND, now, 30 * SECOND);
            assert!(meaning.addresses.len() + meaning.absent.len() <= 20);
            sizes.push(meaning.addresses.len());
        }
        assert!(sizes[60..].iter().all(|&n| n == 20), "{sizes:?}");
    }

    #[test]
    fn that_there_is_nothing_must_hold_for_a_while() {
        let (mut state, start) = (NameState::default(), Instant::now());
        state.answered(&ips(&[1]), SECOND, start, 5 * SECOND);
        assert_eq!(state.denied(start, 5 * SECOND), Err(5 * SECOND));
        assert_eq!(
            state.denied(start + 3 * SECOND, 5 * SECOND),
            Err(2 * SECOND)
        );
        state.answered(&ips(&[1]), SECOND, start + 4 * SECOND, 5 * SECOND);
        assert_eq!(
            state.denied(start + 5 * SECOND, 5 * SECOND),
            Err(5 * SECOND)
        );
        assert_eq!(state.denied(start + 10 * SECOND, 5 * SECOND), Ok(true));
        assert_eq!(state.denied(start + 11 * SECOND, 5 * SECOND), Ok(false));
    }
}
