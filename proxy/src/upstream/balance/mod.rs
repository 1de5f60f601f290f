//! Which endpoint is next: one file for each algorithm. They choose among the eligible members of a set and claim
//! what they choose; none of them locks or allocates.

mod hash;
mod least_request;
mod maglev;
mod random;
mod round_robin;
mod schedule;

pub(super) use maglev::{Maglev, hash};
pub(super) use schedule::interleave;

use super::endpoint::EndpointId;
use super::registry::Lineage;
use super::set::EndpointSet;
use crate::config::Balance;

/// Draws by an algorithm before every eligible endpoint is tried in order.
const DRAWS_MAX: usize = 4;

/// One attempt to find an endpoint. An endpoint that is claimed counts one more running exchange.
pub(super) struct Claim<'a> {
    pub set: &'a EndpointSet,
    pub lineage: &'a Lineage,
    /// Endpoints that were tried before.
    pub exclude: &'a [EndpointId],
    pub limit: Option<u32>,
    /// An endpoint was at its limit.
    pub found_full: bool,
    /// An endpoint was passed over because it is excluded.
    pub found_excluded: bool,
}

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

    /// Takes member `index` unless it is excluded or full.
    pub fn take(&mut self, index: u16) -> bool {
        let Some(member) = self.set.member(index) else {
            return false;
        };
        if self.exclude.contains(&member.endpoint.id) {
            self.found_excluded = true;
            return false;
        }
        let taken = member.endpoint.begin(self.limit);
        self.found_full |= !taken;
        taken
    }

    /// Takes the first eligible member that can be had, from position `start` on.
    fn take_any(&mut self, start: usize) -> Option<u16> {
        let set = self.set;
        let start = start % set.eligible.len().max(1);
        let (before, from) = set.eligible.split_at(start);
        from.iter().chain(before).copied().find(|&i| self.take(i))
    }
}
