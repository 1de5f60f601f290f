//! From the instance of a filter that a reload replaces to the one that takes its place, on the same worker. Nothing here
//! fails a reload: what cannot be handed over is told once, and the filter starts empty.

use super::slot::Slot;
use crate::wasm::FaultKind;

/// Gives what `old` saves to `new`. The old instance goes on serving what runs in it.
pub(super) fn hand_over(old: &Slot, new: &Slot) {
    let (from, to) = (old.filter().module(), new.filter().module());
    if !(from.hands_over() && to.hands_over()) {
        return;
    }
    let saved = match old.with_instance(|instance| instance.save()) {
        Some(Ok(Some(state))) => state,
        Some(Ok(None)) | None => return,
        Some(Err(fault)) => {
            if fault.kind != FaultKind::Output {
                old.renew();
            }
            return new.filter().starts_empty("save", &fault.message);
        }
    };
    if saved.len() > new.filter().config().limits.state {
        let why = "the limit `state` of its successor is smaller than what it saved";
        return new.filter().starts_empty("save", why);
    }
    match new.with_instance(|instance| instance.restore(&saved)) {
        Some(Ok(Ok(()))) | None => {}
        Some(Ok(Err(reason))) => new.filter().starts_empty("restore", &reason),
        Some(Err(fault)) => {
            // What it took in before it failed is gone with it.
            new.renew();
            new.filter().starts_empty("restore", &fault.message);
        }
    }
}
