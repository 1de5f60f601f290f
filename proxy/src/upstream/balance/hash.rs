//! The same key, the same endpoint.

use super::claim::Claim;

pub fn choose(claim: &mut Claim<'_>, key: u64) -> Option<u16> {
    let set = claim.set;
    let maglev = set.roster.maglev();
    maglev
        .find(key, |index| set.is_usable(index) && claim.take(index))
        // Almost nobody is usable: any stable order will do.
        .or_else(|| claim.take_any((key % set.eligible.len().max(1) as u64) as usize))
}
