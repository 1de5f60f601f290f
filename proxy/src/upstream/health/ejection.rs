//! Ejection: what takes failing endpoints out of pools that have no checks.

use super::standing::EJECTION_FALL;
use crate::upstream::set::Member;

/// Ends ejections whose time is over, and ejects who has failed too often while less than half the members with
/// weight are out. Answers when the next ejection ends.
pub fn judge(members: &[Member], now: u64) -> Option<u64> {
    for Member { endpoint, .. } in members {
        if endpoint.standing.return_if_due(now) {
            tracing::info!(pool = %endpoint.pool, endpoint = %endpoint.text, "ejection over");
        }
    }
    let counted = || members.iter().filter(|m| m.weight > 0);
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
