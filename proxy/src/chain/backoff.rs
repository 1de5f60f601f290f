//! When a worker leaves a filter alone: it fails for everybody, and each failure costs a call and an instance.
//!
//! A client that found a request which makes the filter fail must not be able to switch it off for the others: with
//! `on-error: fail` that would be a denial of service, with `bypass` a way around the filter. So faults count only in an
//! unbroken row (any call that ends well forgives them all), only once for each client, and only within a time. What is
//! switched off then answered nobody anyway. Faults that one client causes are met, one by one, with another instance.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::FaultLimit;

/// How long the first time, and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// A slot's memory of its faults.
pub(super) struct Backoff {
    /// None: never left alone.
    limit: Option<FaultLimit>,
    /// Left alone until then. Stays when that has passed, until somebody asks.
    until: Cell<Option<Instant>>,
    /// Faults since a call last ended well; no more than `limit.count`.
    row: RefCell<Vec<(Client, Instant)>>,
    /// The last time it was left alone: when that ended, and how long it was.
    last: Cell<Option<(Instant, Duration)>>,
}

/// Who asked, as far as it tells clients apart: an IPv6 client has more addresses than anybody can count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client(Option<IpAddr>);

impl Client {
    /// From the text of an address. Clients whose address is none are all the same.
    pub(super) fn of(address: Option<&[u8]>) -> Self {
        let text = address.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let ip = text.and_then(|text| text.parse::<IpAddr>().ok());
        Self(ip.map(|ip| match ip.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 80 << 80).into()),
            ip => ip,
        }))
    }
}

impl Backoff {
    pub(super) fn new(limit: Option<FaultLimit>) -> Self {
        Self {
            limit,
            until: Cell::new(None),
            row: RefCell::default(),
            last: Cell::new(None),
        }
    }

    /// Whether the filter is to be left alone at `now`, which is asked for only when it matters.
    #[inline]
    pub(super) fn is_on(&self, now: impl FnOnce() -> Instant) -> bool {
        match self.until.get() {
            None => false,
            Some(until) if now() < until => true,
            Some(_) => {
                self.until.set(None);
                false
            }
        }
    }

    /// A call ended well.
    #[inline]
    pub(super) fn well(&self) {
        if let Ok(mut row) = self.row.try_borrow_mut() {
            row.clear();
        }
    }

    /// A call for `client` failed. Answers for how long the filter is to be left alone, if it is now.
    pub(super) fn fault(&self, client: Client, now: Instant) -> Option<Duration> {
        let limit = self.limit?;
        {
            let mut row = self.row.borrow_mut();
            row.retain(|&(other, at)| {
                other != client && now.saturating_duration_since(at) < limit.within
            });
            row.push((client, now));
            if row.len() < limit.count as usize {
                return None;
            }
            row.clear();
        }
        let length = match self.last.get() {
            Some((ended, last)) if now.saturating_duration_since(ended) < last + limit.within => {
                (last * 2).min(LONGEST)
            }
            _ => FIRST,
        };
        self.until.set(Some(now + length));
        self.last.set(Some((now + length, length)));
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn client(text: &str) -> Client {
        Client::of(Some(text.as_bytes()))
    }

    fn backoff() -> Backoff {
        Backoff::new(Some(FaultLimit {
            count: 3,
            within: 10 * SECOND,
        }))
    }

    /// Three faults of three clients at `now`.
    fn three(backoff: &Backoff, now: Instant) -> Option<Duration> {
        assert_eq!(backoff.fault(client("192.0.2.1"), now), None);
        assert_eq!(backoff.fault(client("192.0.2.2"), now), None);
        backoff.fault(client("192.0.2.3"), now)
    }

    #[test]
    fn faults_of_different_clients_in_a_row_count() {
        let (backoff, now) = (backoff(), Instant::now());
        assert!(!backoff.is_on(|| now));
        assert_eq!(three(&backoff, now), Some(SECOND));
        assert!(backoff.is_on(|| now));
        assert!(backoff.is_on(|| now + SECOND / 2));
        assert!(!backoff.is_on(|| now + SECOND));
    }

    #[test]
    fn one_client_does_not_switch_a_filter_off() {
        let (backoff, now) = (backoff(), Instant::now());
        for n in 0..1000 {
            assert_eq!(backoff.fault(client("192.0.2.1"), now + SECOND * n), None);
            // All of one network, which is one client's.
            let address = format!("2001:db8:1:{n:x}::{n:x}");
            assert_eq!(backoff.fault(client(&address), now + SECOND * n), None);
        }
        // Mapped addresses are the IPv4 client's.
        let mapped = client("::ffff:192.0.2.1");
        assert_eq!(mapped, client("192.0.2.1"));
        assert_ne!(client("2001:db8:1::1"), client("2001:db8:2::1"));
        assert_eq!(client("unix"), Client::of(None));
    }

    #[test]
    fn a_call_that_ends_well_forgives_and_so_does_time() {
        let (backoff, now) = (backoff(), Instant::now());
        let two = |now| {
            assert_eq!(backoff.fault(client("192.0.2.1"), now), None);
            assert_eq!(backoff.fault(client("192.0.2.2"), now), None);
        };
        for _ in 0..10 {
            two(now);
            backoff.well();
        }
        two(now);
        assert_eq!(backoff.fault(client("192.0.2.3"), now + 10 * SECOND), None);
    }

    #[test]
    fn it_doubles_up_to_a_minute_and_starts_over_after_a_quiet_time() {
        let (backoff, mut now) = (backoff(), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let length = SECOND * seconds;
            assert_eq!(three(&backoff, now), Some(length));
            now += length;
            assert!(!backoff.is_on(|| now));
        }
        assert_eq!(three(&backoff, now + 70 * SECOND), Some(SECOND));
    }

    #[test]
    fn it_can_be_off() {
        let (backoff, now) = (Backoff::new(None), Instant::now());
        for n in 0..=255 {
            assert_eq!(backoff.fault(client(&format!("192.0.2.{n}")), now), None);
        }
    }
}
