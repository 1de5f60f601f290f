//! Everybody in turn. One cursor for all workers makes it exact: the n-th pick takes the n-th turn.

use super::claim::{Claim, DRAWS_MAX};

pub fn choose(claim: &mut Claim<'_>) -> Option<u16> {
    let set = claim.set;
    let mut turn = 0;
    for _ in 0..DRAWS_MAX {
        // An endpoint that cannot be had loses its turn to the next one, and the cursor moves on: were the turn
        // given away without that, the neighbour of a failing endpoint would get all its traffic.
        turn = claim.lineage.turn(set.schedule.len());
        let index = *set.schedule.get(turn)?;
        if claim.take(index) {
            return Some(index);
        }
    }
    claim.take_any(turn)
}
