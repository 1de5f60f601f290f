//! One attempt to find an endpoint.

use crate::upstream::registry::{EndpointId, Lineage};
use crate::upstream::set::EndpointSet;

/// Draws by an algorithm before every eligible endpoint is tried in order.
pub(super) const DRAWS_MAX: usize = 4;

/// One attempt to find an endpoint. An endpoint that is claimed counts one more running exchange.
pub struct Claim<'a> {
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
    pub(super) fn take_any(&mut self, start: usize) -> Option<u16> {
        let set = self.set;
        let start = start % set.eligible.len().max(1);
        let (before, from) = set.eligible.split_at(start);
        from.iter().chain(before).copied().find(|&i| self.take(i))
    }
}
