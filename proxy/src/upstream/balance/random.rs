//! A turn drawn by lot; weights are in the schedule.

use super::claim::{Claim, DRAWS_MAX};

pub fn choose(claim: &mut Claim<'_>) -> Option<u16> {
    let set = claim.set;
    for _ in 0..DRAWS_MAX {
        let index = *set.schedule.get(fastrand::usize(..set.schedule.len()))?;
        if claim.take(index) {
            return Some(index);
        }
    }
    claim.take_any(fastrand::usize(..set.eligible.len()))
}
