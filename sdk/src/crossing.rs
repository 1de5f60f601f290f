//! The guest's side of "One crossing" (PACKED.md): room for the block, a plan as JSON, and answers that stay in place.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::plan::{BodyMode, Diagnostic, Fact, Facts, Interest, OverCap, Phase, Plan};
use crate::predicate::Test;

/// What the host and the guest pass each other, kept from call to call so that a call allocates nothing for it.
#[derive(Debug)]
pub struct Crossing {
    /// Written by the host.
    room: RefCell<Vec<u8>>,
    /// Read by the host after a call.
    answer: RefCell<Vec<u8>>,
}

impl Crossing {
    pub const fn new() -> Self {
        Self {
            room: RefCell::new(Vec::new()),
            answer: RefCell::new(Vec::new()),
        }
    }

    /// Where the host may write so many bytes.
    pub fn block(&self, size: usize) -> *mut u8 {
        let mut room = self.room.borrow_mut();
        if room.len() < size {
            room.resize(size, 0);
        }
        room.as_mut_ptr()
    }

    /// Gives the room back: what is written next is much smaller.
    pub fn clear(&self) {
        self.room.take();
    }

    /// Runs `f` over what the host wrote and keeps its answer; says where that is.
    pub fn answer(&self, length: usize, f: impl FnOnce(&[u8]) -> Vec<u8>) -> (*const u8, usize) {
        let room = self.room.borrow();
        let written = room.get(..length).unwrap_or(&room);
        // What the last answer was written into serves for the next one.
        crate::verdict::give_back(self.answer.take());
        let answer = f(written);
        let place = (answer.as_ptr(), answer.len());
        self.answer.replace(answer);
        place
    }
}

impl Default for Crossing {
    fn default() -> Self {
        Self::new()
    }
}

/// What the last panic said, at a place that the host reads when the instance trapped.
#[repr(C)]
#[derive(Debug)]
pub struct PanicText {
    length: AtomicU32,
    bytes: [AtomicU8; PANIC_BYTES_MAX],
}

/// Bytes of a panic that the host is told.
const PANIC_BYTES_MAX: usize = 1020;

impl PanicText {
    pub const fn new() -> Self {
        Self {
            length: AtomicU32::new(0),
            bytes: [const { AtomicU8::new(0) }; PANIC_BYTES_MAX],
        }
    }

    /// Has panics of this instance written down from now on, before whatever else is done about them.
    pub fn watch(&'static self) {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            self.write(info);
            before(info);
        }));
    }

    fn write(&self, info: &PanicHookInfo<'_>) {
        let text = info.to_string();
        for (byte, place) in text.bytes().zip(&self.bytes) {
            place.store(byte, Ordering::Relaxed);
        }
        let length = text.len().min(PANIC_BYTES_MAX);
        self.length.store(length as u32, Ordering::Release);
    }
}

impl Default for PanicText {
    fn default() -> Self {
        Self::new()
    }
}

/// Exports what the host calls in place of the interfaces, on the same instance.
#[doc(hidden)]
#[macro_export]
macro_rules! __one_crossing {
    ($filter:ty, $instance:ident, $call:path) => {
        #[allow(unsafe_code)]
        // SAFETY: the names are those of the contract, which no library has.
        mod one_crossing {
            use super::*;
            use $crate::__crossing::{Crossing, PanicText, outcome};
            use $crate::__private as sdk;

            ::std::thread_local! {
                static CROSSING: Crossing = const { Crossing::new() };
            }

            #[unsafe(export_name = "sluicegate:one-crossing@0.1.0#panic")]
            static PANIC: PanicText = PanicText::new();

            fn packed((at, length): (*const u8, usize)) -> i64 {
                (at as usize as u64 | (length as u64) << 32) as i64
            }

            #[unsafe(export_name = "sluicegate:one-crossing@0.1.0#block")]
            extern "C" fn export_block(size: i32) -> i32 {
                sdk::wit_bindgen::rt::run_ctors_once();
                CROSSING.with(|crossing| crossing.block(size as u32 as usize)) as usize as i32
            }

            #[unsafe(export_name = "sluicegate:one-crossing@0.1.0#configure")]
            extern "C" fn export_configure(length: i32) -> i64 {
                PANIC.watch();
                packed(CROSSING.with(|crossing| {
                    let answer = crossing.answer(length as u32 as usize, |settings| {
                        let settings = ::std::string::String::from_utf8_lossy(settings);
                        match sdk::configure::<$filter>(&settings) {
                            Ok((filter, plan)) => {
                                $instance.with(|instance| instance.put(filter));
                                outcome(Ok(&plan))
                            }
                            Err(problems) => outcome(Err(&problems)),
                        }
                    });
                    crossing.clear();
                    answer
                }))
            }

            #[unsafe(export_name = "sluicegate:one-crossing@0.1.0#call")]
            extern "C" fn export_call(function: i32, length: i32) -> i64 {
                packed(CROSSING.with(|crossing| {
                    crossing.answer(length as u32 as usize, |block| $call(function, block))
                }))
            }
        }
    };
}

/// What `configure` came to, as JSON.
pub fn outcome(configured: Result<&Plan, &[Diagnostic]>) -> Vec<u8> {
    let value = match configured {
        Ok(plan) => json!({ "plan": plan_of(plan) }),
        Err(problems) => {
            let problems: Vec<Value> = problems
                .iter()
                .map(|p| json!({"path": p.path, "message": p.message, "help": p.help}))
                .collect();
            json!({ "diagnostics": problems })
        }
    };
    value.to_string().into_bytes()
}

fn plan_of(plan: &Plan) -> Value {
    let phases: Vec<&str> = PHASES
        .iter()
        .filter(|(phase, _)| plan.phases.contains(*phase))
        .map(|(_, name)| *name)
        .collect();
    let mut effects = Vec::new();
    if plan.effects.http_call {
        effects.push("http-call");
    }
    if plan.effects.key_value {
        effects.push("key-value");
    }
    let pools: Vec<Value> = plan
        .pools
        .iter()
        .map(|pool| json!({"name": pool.name, "path": pool.path, "called": pool.called}))
        .collect();
    json!({
        "phases": phases,
        "match": plan.matches.iter().map(test).collect::<Vec<_>>(),
        "request-fields": interest(&plan.request_fields),
        "response-fields": interest(&plan.response_fields),
        "pools": pools,
        "first-bytes": plan.first_bytes,
        "facts": facts(plan.facts),
        "request-body": body(plan.request_body),
        "response-body": body(plan.response_body),
        "effects": effects,
        "tick-ms": plan.tick_ms,
    })
}

const PHASES: [(Phase, &str); 13] = [
    (Phase::Request, "request"),
    (Phase::Response, "response"),
    (Phase::Log, "log"),
    (Phase::Connect, "connect"),
    (Phase::ClientHello, "client-hello"),
    (Phase::FirstBytes, "first-bytes"),
    (Phase::RequestBody, "request-body"),
    (Phase::ResponseBody, "response-body"),
    (Phase::RequestTrailers, "request-trailers"),
    (Phase::ResponseTrailers, "response-trailers"),
    (Phase::ClientData, "client-data"),
    (Phase::ServerData, "server-data"),
    (Phase::Tick, "tick"),
];

const FACTS: [(Fact, &str); 20] = [
    (Fact::Method, "method"),
    (Fact::Scheme, "scheme"),
    (Fact::Authority, "authority"),
    (Fact::Path, "path"),
    (Fact::Query, "query"),
    (Fact::ClientAddress, "client-address"),
    (Fact::PeerAddress, "peer-address"),
    (Fact::LocalAddress, "local-address"),
    (Fact::Listener, "listener"),
    (Fact::RequestId, "request-id"),
    (Fact::Sni, "sni"),
    (Fact::Alpn, "alpn"),
    (Fact::TlsVersion, "tls-version"),
    (Fact::ClientSubject, "client-subject"),
    (Fact::Endpoint, "endpoint"),
    (Fact::Pool, "pool"),
    (Fact::Protocol, "protocol"),
    (Fact::Reason, "reason"),
    (Fact::FirstBytes, "first-bytes"),
    (Fact::OfferedAlpn, "offered-alpn"),
];

fn facts(wanted: Facts) -> Value {
    FACTS
        .iter()
        .filter(|(fact, _)| wanted.contains(*fact))
        .map(|(_, name)| Value::from(*name))
        .collect()
}

fn interest(interest: &Interest) -> Value {
    match interest {
        Interest::None => "none".into(),
        Interest::Some(names) => json!({ "some": names }),
        Interest::All => "all".into(),
    }
}

fn body(mode: BodyMode) -> Value {
    match mode {
        BodyMode::Skip => "skip".into(),
        BodyMode::First(bytes) => json!({ "first": bytes }),
        BodyMode::Whole { max, over } => {
            let over = match over {
                OverCap::Fail => "fail",
                OverCap::Bypass => "bypass",
                OverCap::Refuse => "refuse",
            };
            json!({"whole": {"max": max, "over": over}})
        }
        BodyMode::Watch => "watch".into(),
        BodyMode::Transform => "transform".into(),
    }
}

fn test(test: &Test) -> Value {
    match test {
        Test::Method(methods) => json!({ "method": methods }),
        Test::Path(path) => json!({ "path": path }),
        Test::PathPrefix(prefix) => json!({ "path-prefix": prefix }),
        Test::PathGlob(glob) => json!({ "path-glob": glob }),
        Test::Host(glob) => json!({ "host": glob }),
        Test::HeaderPresent(name) => json!({ "header-present": name }),
        Test::HeaderEquals(name, value) => json!({"header-equals": [name, value]}),
        Test::HeaderPrefix(name, value) => json!({"header-prefix": [name, value]}),
        Test::HeaderContains(name, values) => json!({"header-contains": [name, values]}),
        Test::Client(networks) => json!({ "client": networks }),
        Test::All(n) => json!({ "all": n }),
        Test::Any(n) => json!({ "any": n }),
        Test::Negate => "negate".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_and_answer_stay_where_they_are() {
        let crossing = Crossing::new();
        let at = crossing.block(100);
        assert_eq!(crossing.block(50), at);
        let (first, length) = crossing.answer(3, |block| {
            assert_eq!(block, [0; 3]);
            vec![1, 2, 3, 4]
        });
        assert_eq!(length, 4);
        assert!(!first.is_null());
        // More than there is room for is cut, not read.
        let (_, length) = crossing.answer(1000, |block| block.to_vec());
        assert_eq!(length, 100);
    }

    #[test]
    fn plans_are_written_as_the_document_says() {
        let plan = Plan {
            phases: crate::Phases::NONE.with(Phase::Request).with(Phase::Tick),
            matches: vec![
                Test::HeaderContains("a".into(), vec!["b".into()]),
                Test::Negate,
            ],
            request_fields: Interest::some(["x"]),
            response_fields: Interest::None,
            pools: Vec::new(),
            first_bytes: 0,
            facts: [Fact::Path].into_iter().collect(),
            request_body: BodyMode::Whole {
                max: 9,
                over: OverCap::Refuse,
            },
            response_body: BodyMode::First(3),
            effects: crate::Effects {
                http_call: false,
                key_value: true,
            },
            tick_ms: 100,
        };
        let text = outcome(Ok(&plan));
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            value,
            json!({"plan": {
                "phases": ["request", "tick"],
                "match": [{"header-contains": ["a", ["b"]]}, "negate"],
                "request-fields": {"some": ["x"]},
                "response-fields": "none",
                "pools": [],
                "first-bytes": 0,
                "facts": ["path"],
                "request-body": {"whole": {"max": 9, "over": "refuse"}},
                "response-body": {"first": 3},
                "effects": ["key-value"],
                "tick-ms": 100,
            }})
        );
    }
}
