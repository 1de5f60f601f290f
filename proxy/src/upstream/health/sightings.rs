//! What is known of a host name: which addresses it has had, and what an answer means beside that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::PoolConfig;
use crate::discovery::ADDRESSES_MAX;

/// The grace time where none is configured: as many times the last answer's validity, but no less than `GRACE_MIN`.
const GRACE_TTLS: u32 = 3;
const GRACE_MIN: Duration = Duration::from_secs(30);
/// An address that comes and goes is remembered for so many answers without it.
const MISSED_MAX: u32 = 16;

/// What is known of one host name. It survives a reload.
#[derive(Debug, Default)]
pub struct NameState {
    addresses: BTreeMap<IpAddr, Sighting>,
    /// How long the last answer with addresses held.
    pub(super) ttl: Duration,
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
pub(super) struct Meaning {
    /// Those that get traffic.
    pub(super) addresses: Vec<IpAddr>,
    /// Those that may come back, besides.
    pub(super) absent: Vec<IpAddr>,
}

impl NameState {
    /// An answer with addresses came at `now`.
    pub(super) fn answered(
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
    pub(super) fn denied(&mut self, now: Instant, grace: Duration) -> Result<bool, Duration> {
        let since = *self.gone_since.get_or_insert(now);
        let left = grace.saturating_sub(now.saturating_duration_since(since));
        if !left.is_zero() {
            return Err(left);
        }
        self.addresses.clear();
        Ok(!std::mem::replace(&mut self.gone, true))
    }

    pub(super) fn grace(&self, config: &PoolConfig) -> Duration {
        let usual = || self.ttl.saturating_mul(GRACE_TTLS).max(GRACE_MIN);
        config.resolve_grace.unwrap_or_else(usual)
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
