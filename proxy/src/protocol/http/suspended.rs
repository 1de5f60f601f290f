//! The effects of a suspended call: from the words of the contract to those of [`effects`](super::effects), and back.

use super::call::{CallError, CallRequest, CallResponse, Caller};
use super::effects::{self, Effect, EffectResult, Effects};
use crate::chain::Suspension;
use crate::head::Fields;
use crate::store::{StoreAnswer, StoreError, StoreOp};
use crate::wasm::{self, EffectError};
use bytes::Bytes;
use std::time::Duration;

/// The results, one for each effect in order.
pub type Results = Vec<wasm::EffectResult>;

/// Performs what the call waits for, side by side. What needs no waiting is done within the first poll; dropping the
/// future ends what still runs.
pub async fn perform(caller: &Caller<'_>, suspension: &Suspension) -> Results {
    let service = caller.service;
    let Some(store) = service.stores.get(suspension.at()) else {
        // The chain and the stores were made of the same list.
        return Vec::new();
    };
    let mut wanted = Effects::new();
    for effect in suspension.effects() {
        wanted.push(match effect {
            wasm::Effect::Sleep { ms } => Effect::Sleep(Duration::from_millis(ms.into())),
            wasm::Effect::Call(call) => {
                let pools = &service.generation.pools;
                match suspension.pool(&call).and_then(|index| pools.get(index)) {
                    Some(pool) => Effect::Call {
                        pool: pool.clone(),
                        request: Box::new(request(&call)),
                    },
                    None => return Vec::new(),
                }
            }
            wasm::Effect::Get { key } => Effect::Store(StoreOp::Get { key }),
            wasm::Effect::Set { key, ttl_ms, value } => Effect::Store(StoreOp::Set {
                key,
                value,
                ttl: ttl(ttl_ms),
            }),
            wasm::Effect::CompareAndSet {
                key,
                ttl_ms,
                expected,
                value,
            } => Effect::Store(StoreOp::CompareAndSet {
                key,
                expected,
                value,
                ttl: ttl(ttl_ms),
            }),
            wasm::Effect::Increment { key, delta, ttl_ms } => Effect::Store(StoreOp::Increment {
                key,
                delta,
                ttl: ttl(ttl_ms),
            }),
            wasm::Effect::Delete { key } => Effect::Store(StoreOp::Delete { key }),
        });
    }
    let results = effects::perform(caller, store, wanted).await;
    results.into_iter().map(told).collect()
}

/// A call as it is sent. What the contract bounds fits what calls may be.
fn request(call: &wasm::Call<'_>) -> CallRequest {
    let mut fields = Fields::default();
    for (name, value) in call.fields() {
        match name.iter().any(u8::is_ascii_uppercase) {
            true => fields.append(&name.to_ascii_lowercase(), value),
            false => fields.append(name, value),
        }
    }
    CallRequest {
        method: Bytes::copy_from_slice(call.method),
        target: Bytes::copy_from_slice(call.target),
        authority: Bytes::copy_from_slice(call.authority.unwrap_or_default()),
        fields,
        body: Bytes::copy_from_slice(call.body),
        timeout: Duration::from_millis(call.timeout_ms.into()),
        response_bytes_max: call.response_bytes as usize,
    }
}

fn ttl(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn told(result: EffectResult) -> wasm::EffectResult {
    match result {
        EffectResult::Slept => wasm::EffectResult::Done,
        EffectResult::Store(Ok(answer)) => match answer {
            StoreAnswer::Done => wasm::EffectResult::Done,
            StoreAnswer::Value(value) => wasm::EffectResult::Value(value),
            StoreAnswer::Absent => wasm::EffectResult::NoValue,
            StoreAnswer::Number(sum) => {
                wasm::EffectResult::Value(Bytes::copy_from_slice(&sum.to_le_bytes()))
            }
        },
        EffectResult::Call(Ok(CallResponse {
            status,
            fields,
            body,
        })) => wasm::EffectResult::Response {
            status,
            fields,
            body,
        },
        EffectResult::Store(Err(error)) => {
            let kind = match &error {
                StoreError::KeyLength | StoreError::NotANumber | StoreError::Overflow => {
                    EffectError::Invalid
                }
                StoreError::ValueTooLarge => EffectError::TooLarge,
                StoreError::Unavailable(_) => EffectError::Unavailable,
                StoreError::Timeout => EffectError::Timeout,
            };
            wasm::EffectResult::Failed(kind, error.to_string().into())
        }
        EffectResult::Call(Err(error)) => {
            let kind = match error {
                CallError::Invalid => EffectError::Invalid,
                CallError::NoEndpoint | CallError::Overload => EffectError::Unavailable,
                CallError::Refused | CallError::Tls | CallError::Broken => EffectError::Refused,
                CallError::Timeout => EffectError::Timeout,
                CallError::Malformed => EffectError::Malformed,
                CallError::TooLarge => EffectError::TooLarge,
            };
            wasm::EffectResult::Failed(kind, error.to_string().into())
        }
        EffectResult::Refused => {
            wasm::EffectResult::Failed(EffectError::Invalid, "it was not begun".into())
        }
    }
}
