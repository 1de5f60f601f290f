//! Fewest running exchanges in proportion to weight. A failure counts as a running exchange for some seconds, or an
//! endpoint that refuses at once would look idle and attract everything.

use super::claim::{Claim, DRAWS_MAX};
use crate::upstream::health::LOAD_UNIT;
use crate::upstream::set::Member;

pub fn choose(claim: &mut Claim<'_>) -> Option<u16> {
    let set = claim.set;
    // Ties go to whose turn it is, so that an idle pool rotates.
    let turn = *set.schedule.get(claim.lineage.turn(set.schedule.len()))?;
    let start = set.eligible.binary_search(&turn).unwrap_or(0);
    for _ in 0..DRAWS_MAX {
        let index = least(claim, start)?;
        // Another worker may have filled it meanwhile.
        if claim.take(index) {
            return Some(index);
        }
    }
    claim.take_any(start)
}

fn least(claim: &mut Claim<'_>, start: usize) -> Option<u16> {
    let set = claim.set;
    let (before, from) = set.eligible.split_at(start.min(set.eligible.len()));
    let mut best: Option<(u16, u64, u64)> = None;
    for &index in from.iter().chain(before) {
        let Some(member) = set.member(index) else {
            continue;
        };
        if claim.exclude.contains(&member.endpoint.id) {
            claim.found_excluded = true;
            continue;
        }
        if claim
            .limit
            .is_some_and(|limit| member.endpoint.active() >= limit)
        {
            claim.found_full = true;
            continue;
        }
        let (load, weight) = (load(claim, member), u64::from(member.weight));
        // load / weight < best_load / best_weight, without dividing.
        if best.is_none_or(|(_, best_load, best_weight)| load * best_weight < best_load * weight) {
            best = Some((index, load, weight));
        }
    }
    best.map(|(index, ..)| index)
}

/// Below 2^38, so that the products above cannot overflow.
fn load(claim: &Claim<'_>, member: &Member) -> u64 {
    let registry = &claim.lineage.registry;
    let penalty = member.endpoint.standing.penalty(|| registry.now_ms());
    u64::from(member.endpoint.active()) * LOAD_UNIT + penalty
}
