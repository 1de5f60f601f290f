//! What a suspended call asks for, in words.

use crate::chain::Suspension;
use crate::generation::Generation;
use crate::wasm::{Call, Effect};

use super::compare::lossy;

/// Characters shown of a key.
const KEY_SHOWN: usize = 120;

/// One line for each effect.
pub(super) fn told(generation: &Generation, suspension: &Suspension) -> Vec<String> {
    let effects = suspension.effects();
    effects
        .map(|effect| match effect {
            Effect::Sleep { ms } => format!("sleep {ms} ms"),
            Effect::Call(call) => called(generation, suspension, &call),
            Effect::Get { key } => format!("get {} from the store", shown(key)),
            Effect::Set { key, value, ttl_ms } => format!(
                "set {} in the store to {} bytes{}",
                shown(key),
                value.len(),
                lives(ttl_ms)
            ),
            Effect::CompareAndSet {
                key, value, ttl_ms, ..
            } => format!(
                "compare and set {} in the store to {} bytes{}",
                shown(key),
                value.len(),
                lives(ttl_ms)
            ),
            Effect::Increment { key, delta, .. } => {
                format!("increment {} in the store by {delta}", shown(key))
            }
            Effect::Delete { key } => format!("delete {} from the store", shown(key)),
        })
        .collect()
}

fn called(generation: &Generation, suspension: &Suspension, call: &Call<'_>) -> String {
    let pool = suspension
        .pool(call)
        .and_then(|index| generation.config.pools.get(index))
        .map_or("", |pool| &*pool.name);
    format!(
        "call {} {} of pool \"{pool}\", for {} ms at most",
        lossy(call.method),
        lossy(call.target),
        call.timeout_ms
    )
}

fn lives(ttl_ms: u64) -> String {
    match ttl_ms {
        0 => String::new(),
        ms => format!(" for {ms} ms"),
    }
}

fn shown(key: &[u8]) -> String {
    let text = lossy(key);
    match text.char_indices().nth(KEY_SHOWN) {
        Some((at, _)) => format!("\"{}…\"", &text[..at]),
        None => format!("\"{text}\""),
    }
}
