//! Which endpoint is next: one file for each algorithm. They choose among the eligible members of a set and claim
//! what they choose; none of them locks or allocates.

mod claim;
mod hash;
mod least_request;
mod maglev;
mod random;
mod round_robin;
mod schedule;

pub(super) use claim::Claim;
pub(super) use maglev::{Maglev, hash};
pub(super) use schedule::interleave;

use crate::config::Balance;

impl Claim<'_> {
    /// By `key` when there is one, else by `balance`.
    pub fn choose(&mut self, balance: Balance, key: Option<u64>) -> Option<u16> {
        if self.set.eligible.is_empty() {
            return None;
        }
        match (key, balance) {
            (Some(key), _) => hash::choose(self, key),
            (None, Balance::RoundRobin | Balance::Hash) => round_robin::choose(self),
            (None, Balance::Random) => random::choose(self),
            (None, Balance::LeastRequest) => least_request::choose(self),
        }
    }
}
