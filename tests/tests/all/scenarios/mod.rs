//! What Sluicegate stands in for, end to end: real processes, real sockets, real clients.

mod s3_sticky;
mod s4_ssh;
mod s5_user_agent;
mod s6_tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// How often each answer came.
fn shares(answers: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for answer in answers {
        *shares.entry(answer).or_default() += 1;
    }
    shares
}

/// Shares as a test writes them down.
fn expected(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares
        .iter()
        .map(|&(name, n)| (name.to_owned(), n))
        .collect()
}

/// `count` client addresses, all of this machine.
fn clients(count: u8) -> impl Iterator<Item = IpAddr> {
    (1..=count).map(|n| Ipv4Addr::new(127, 0, 7, n).into())
}
