//! Failures of exchanges since one went well: what traffic has against an endpoint.
//!
//! A client that found a request which makes an endpoint fail must not be able to take it from the others. What a client
//! cannot have caused, a connection that does not come about, counts each time; everything else counts once for each
//! client, within a time, and says nothing until a second client has seen it; unless the endpoint has never served anybody,
//! nor passed a check: then there is nothing that speaks for it. Any exchange that goes well forgives all.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Failures of clients are forgotten after this time.
const WITHIN_MS: u64 = 60_000;
/// Clients that are told apart; `fall` is no larger.
const CLIENTS_MAX: usize = 1000;
/// Clients that must have seen a failure before it says anything.
const CLIENTS_MIN: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Row {
    /// It has served, or passed a check.
    has_served: AtomicBool,
    /// Connections that did not come about, and exchanges that failed before it has served.
    dials: AtomicU32,
    /// The length of `clients`, to be read without the lock.
    distinct: AtomicU32,
    /// Who saw other failures, and when last.
    clients: Mutex<Vec<(IpAddr, u64)>>,
}

impl Row {
    /// What stands against the endpoint.
    pub fn failures(&self) -> u32 {
        let clients = match self.distinct.load(Ordering::Relaxed) {
            CLIENTS_MIN.. => self.distinct.load(Ordering::Relaxed),
            _ => 0,
        };
        self.dials.load(Ordering::Relaxed).saturating_add(clients)
    }

    /// A connection did not come about.
    pub fn dial_failed(&self) {
        count(&self.dials);
    }

    /// An exchange of `client` failed at `now`, in the registry's milliseconds.
    pub fn exchange_failed(&self, client: IpAddr, now: u64) {
        if !self.has_served.load(Ordering::Relaxed) {
            return self.dial_failed();
        }
        let client = network(client);
        // Workers do not wait for each other. What is missed here comes again, if it means anything.
        let Some(mut clients) = self.clients() else {
            return;
        };
        clients.retain(|&(other, at)| other != client && now.saturating_sub(at) < WITHIN_MS);
        if clients.len() < CLIENTS_MAX {
            clients.push((client, now));
        }
        let distinct = u32::try_from(clients.len()).unwrap_or(u32::MAX);
        self.distinct.store(distinct, Ordering::Relaxed);
    }

    fn clients(&self) -> Option<MutexGuard<'_, Vec<(IpAddr, u64)>>> {
        match self.clients.try_lock() {
            Ok(clients) => Some(clients),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// An exchange went well, or a check passed: forgives everything.
    pub fn served(&self) {
        if !self.has_served.load(Ordering::Relaxed) {
            self.has_served.store(true, Ordering::Relaxed);
        }
        self.forgive_all_but(0);
    }

    /// Forgives everything but `dials` connections.
    pub fn forgive_all_but(&self, dials: u32) {
        // Read first: the line stays shared between workers while all is well.
        if self.dials.load(Ordering::Relaxed) != dials {
            self.dials.store(dials, Ordering::Relaxed);
        }
        if self.distinct.load(Ordering::Relaxed) != 0 {
            let Some(mut clients) = self.clients() else {
                return;
            };
            clients.clear();
            self.distinct.store(0, Ordering::Relaxed);
        }
    }
}

/// The client as far as its address tells clients apart: one of IPv6 has more addresses than anybody can count.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 80 << 80).into()),
        ip => ip,
    }
}

/// Adds one without ever wrapping to zero; answers the new count.
pub(super) fn count(counter: &AtomicU32) -> u32 {
    let before = counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            Some(n.saturating_add(1))
        })
        .unwrap_or_default();
    before.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_says_nothing_and_each_counts_once() {
        let row = Row::default();
        row.exchange_failed(ip("192.0.2.1"), 0);
        row.exchange_failed(ip("192.0.2.1"), 0);
        assert_eq!(row.failures(), 2, "it has never served");
        row.served();
        for n in 0..100 {
            row.exchange_failed(ip("192.0.2.1"), n);
            row.exchange_failed(ip("::ffff:192.0.2.1"), n);
        }
        assert_eq!(row.failures(), 0);
        for n in 0..100u16 {
            row.exchange_failed(ip(&format!("2001:db8:1:{n:x}::{n:x}")), 100);
        }
        assert_eq!(row.failures(), 2);
        row.exchange_failed(ip("192.0.2.2"), 100);
        assert_eq!(row.failures(), 3);
        row.exchange_failed(ip("192.0.2.3"), 100 + WITHIN_MS);
        assert_eq!(row.failures(), 0, "the others are forgotten");
    }

    #[test]
    fn connections_that_fail_count_whoever_asked() {
        let row = Row::default();
        row.served();
        row.dial_failed();
        row.dial_failed();
        assert_eq!(row.failures(), 2);
        row.exchange_failed(ip("192.0.2.1"), 0);
        assert_eq!(row.failures(), 2);
        row.forgive_all_but(1);
        assert_eq!(row.failures(), 1);
        row.forgive_all_but(0);
        assert_eq!(row.failures(), 0);
    }

    #[test]
    fn clients_are_bounded() {
        let row = Row::default();
        row.served();
        for n in 0..3000u32 {
            row.exchange_failed(IpAddr::from(n.to_be_bytes()), 0);
        }
        assert_eq!(row.failures(), CLIENTS_MAX as u32);
    }
}
