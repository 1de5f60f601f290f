//! What failures of exchanges do to endpoints: ejection for a time in pools without checks, doubt in pools with checks,
//! which holds until these have passed again. Neither ever empties a pool.

use super::{EJECTION_FALL, Verdict};
use crate::upstream::endpoint::AdminState;
use crate::upstream::set::Member;

/// Doubts who has failed `fall` times, while less than half the members that get traffic are doubted and another one
/// is sound.
pub fn doubt(members: &[Member], fall: u32, now: u64) {
    let is_sound =
        |m: &Member| m.endpoint.verdict() == Verdict::Up && !m.endpoint.standing.is_doubted();
    let mut sound = serving(members).filter(|m| is_sound(m)).count();
    let mut doubted = (serving(members))
        .filter(|m| m.endpoint.standing.is_doubted())
        .count();
    let doubted_max = serving(members).count() / 2;
    for member in serving(members) {
        if sound <= 1 || doubted >= doubted_max {
            return;
        }
        let standing = &member.endpoint.standing;
        if is_sound(member) && standing.failures() >= fall && standing.doubt(now) {
            sound -= 1;
            doubted += 1;
            tracing::warn!(
                pool = %member.endpoint.pool,
                endpoint = %member.endpoint.text,
                "endpoint is doubted: exchanges fail, though its checks have passed"
            );
        }
    }
}

/// The members that get new traffic as far as the operator goes.
fn serving(members: &[Member]) -> impl Iterator<Item = &Member> {
    let serves = |m: &&Member| m.weight > 0 && m.endpoint.admin_state() == AdminState::Enabled;
    members.iter().filter(serves)
}

/// Ends ejections whose time is over, and ejects who has failed too often while less than half the members with
/// weight are out. Answers when the next ejection ends.
pub fn judge(members: &[Member], now: u64) -> Option<u64> {
    for Member { endpoint, .. } in members {
        if endpoint.standing.return_if_due(now) {
            tracing::info!(pool = %endpoint.pool, endpoint = %endpoint.text, "ejection over");
        }
    }
    let counted = || serving(members);
    let is_out = |m: &&Member| m.endpoint.standing.ejected_until().is_some();
    let mut out = counted().filter(is_out).count();
    let out_max = counted().count() / 2;
    for Member { endpoint, .. } in counted().filter(|m| !is_out(m)) {
        if out >= out_max || endpoint.standing.passive_failures() < EJECTION_FALL {
            continue;
        }
        if let Some(lasts) = endpoint.standing.eject(now) {
            out += 1;
            tracing::warn!(
                pool = %endpoint.pool,
                endpoint = %endpoint.text,
                seconds = lasts.as_secs(),
                "endpoint ejected: exchanges fail"
            );
        }
    }
    let ends = members.iter().map(|m| m.endpoint.standing.ejected_until());
    ends.flatten().min()
}
