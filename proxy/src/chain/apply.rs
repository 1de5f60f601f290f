//! What the operations of a verdict do to heads, replies and routes. They were checked as a whole before.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::state::{Part, Reply, Route};
use crate::head::{Fields, RequestHead, ResponseHead};
use crate::wasm::{Op, Verdict};

/// What `retries` of a pool may be at most, too: every further try takes the client's time and an endpoint's.
const RETRIES_MAX: u32 = 16;
/// A reply that says no status.
const STATUS_DEFAULT: u16 = 200;

/// `pools` turns the plan's indices into those of the configuration.
pub(super) fn request(
    verdict: &Verdict,
    head: &mut RequestHead,
    route: &mut Route,
    pools: &[usize],
    part: &mut Part,
) {
    for op in verdict.ops() {
        match op {
            Op::Target(target) => head.set_target(target),
            Op::Authority(authority) => head.set_authority(authority),
            Op::State(value) => part.state = value,
            Op::SkipRequestBody => part.skips_request_body = true,
            Op::SkipResponseBody => part.skips_response_body = true,
            op if field(op, &mut head.fields) => {}
            op => routed(op, route, pools),
        }
    }
}

pub(super) fn response(verdict: &Verdict, head: &mut ResponseHead, part: &mut Part) {
    for op in verdict.ops() {
        match op {
            Op::Status(status) => head.status = status,
            Op::State(value) => part.state = value,
            Op::SkipResponseBody => part.skips_response_body = true,
            op => {
                field(op, &mut head.fields);
            }
        }
    }
}

pub(super) fn stream(verdict: &Verdict, route: &mut Route, pools: &[usize], state: &mut u64) {
    for op in verdict.ops() {
        match op {
            Op::State(value) => *state = value,
            op => routed(op, route, pools),
        }
    }
}

/// Of a verdict that says nothing else that can be applied.
pub(super) fn state(verdict: &Verdict, state: &mut u64) {
    for op in verdict.ops() {
        if let Op::State(value) = op {
            *state = value;
        }
    }
}

pub(super) fn reply(verdict: &Verdict, state: &mut u64) -> Reply {
    let mut reply = Reply {
        status: STATUS_DEFAULT,
        ..Reply::default()
    };
    for op in verdict.ops() {
        match op {
            Op::Status(status) => reply.status = status,
            Op::Body(body) => reply.body = Bytes::copy_from_slice(body),
            Op::State(value) => *state = value,
            op => {
                field(op, &mut reply.fields);
            }
        }
    }
    reply
}

pub(super) fn trailers(verdict: &Verdict, trailers: &mut Fields, state: &mut u64) {
    for op in verdict.ops() {
        match op {
            Op::State(value) => *state = value,
            op => {
                field(op, trailers);
            }
        }
    }
}

/// True when the operation concerns a field.
fn field(op: Op<'_>, fields: &mut Fields) -> bool {
    let mut copy = SmallVec::new();
    match op {
        Op::Set(name, value) => fields.set(lower(name, &mut copy), value),
        Op::Append(name, value) => fields.append(lower(name, &mut copy), value),
        Op::Add(name, value) => {
            let name = lower(name, &mut copy);
            if !fields.contains(name) {
                fields.append(name, value);
            }
        }
        Op::Remove(name) => {
            fields.remove(lower(name, &mut copy));
        }
        _ => return false,
    }
    true
}

fn routed(op: Op<'_>, route: &mut Route, pools: &[usize]) {
    let ms = |ms: u32| Some(Duration::from_millis(ms.into()));
    match op {
        Op::Pool(index) => route.pool = pools.get(index).copied(),
        Op::StickyKey(key) => route.sticky_key = Some(SmallVec::from_slice(key)),
        Op::Endpoint(endpoint) => route.endpoint = Some(endpoint.into()),
        Op::TryTimeoutMs(timeout) => route.try_timeout = ms(timeout),
        Op::TotalTimeoutMs(timeout) => route.total_timeout = ms(timeout),
        Op::Retries(retries) => route.retries = Some(retries.min(RETRIES_MAX)),
        _ => {}
    }
}

/// Heads hold names in lower case; guests may write them as they like, and the SDK writes them so already.
fn lower<'a>(name: &'a [u8], copy: &'a mut SmallVec<[u8; 64]>) -> &'a [u8] {
    if !name.iter().any(u8::is_ascii_uppercase) {
        return name;
    }
    copy.extend_from_slice(name);
    copy.make_ascii_lowercase();
    copy
}
