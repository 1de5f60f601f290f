//! What a filter costs: an exchange through a chain, a filter that does not match, the standard filters, a new instance.
//!
//! `cargo bench -p sluicegate --bench filters`. Where nothing else is said the guest is hand-written and does nothing, so
//! that the host is measured.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sluicegate::chain::{
    BodyPiece, Chain, ExchangeState, Filter, Link, Made, Message, Outcome, RequestFacts,
    ResponseFacts, Slot,
};
use sluicegate::config::{
    Capabilities, ConfigPath, FilterConfig, FilterLimits, Isolation, ModuleSource, OnError,
    StoreConfig,
};
use sluicegate::connection::Connection;
use sluicegate::head::{Fields, RequestHead, ResponseHead, Version};
use sluicegate::store::{Connections, Store, StoreAnswer, StoreOp};
use sluicegate::wasm::{Effect, EffectResult, Host, HostOptions, InstanceOptions, Module, Phase};

/// Answers `next` to requests and responses, in one crossing.
const GUEST: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "sluicegate:filter/http-request@0.1.0#on-request") (param i32 i32) (result i32) unreachable)
  (func (export "sluicegate:filter/http-response@0.1.0#on-response") (param i32 i32) (result i32) unreachable)
  (func (export "sluicegate:one-crossing@0.1.0#block") (param i32) (result i32) i32.const 65536)
  (func (export "sluicegate:one-crossing@0.1.0#configure") (param i32) (result i64)
    (i64.or (i64.const 3072) (i64.shl (i64.const %LENGTH%) (i64.const 32))))
  (func (export "sluicegate:one-crossing@0.1.0#call") (param i32 i32) (result i64) i64.const 0)
  (data (i32.const 3072) "%PLAN%"))"#;

/// The same as a component, with an empty plan: requests and responses, no fields.
const COMPONENT: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 65536)
  (func (export "sluicegate:filter/configuration@0.1.0#configure") (param i32 i32) (result i32)
    (i32.store8 (i32.const 1028) (i32.const 3))
    i32.const 1024)
  (func (export "sluicegate:filter/http-request@0.1.0#on-request") (param i32 i32) (result i32) i32.const 4096)
  (func (export "sluicegate:filter/http-response@0.1.0#on-response") (param i32 i32) (result i32) i32.const 4096))"#;

/// Suspends each request to read a key of the store, and says next when it is resumed.
const WAITS: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "sluicegate:filter/http-request@0.1.0#on-request") (param i32 i32) (result i32) unreachable)
  (func (export "sluicegate:filter/resume@0.1.0#on-resume") (param i32 i32) (result i32) unreachable)
  (func (export "sluicegate:one-crossing@0.1.0#block") (param i32) (result i32) i32.const 65536)
  (func (export "sluicegate:one-crossing@0.1.0#configure") (param i32) (result i64)
    (i64.or (i64.const 3072) (i64.shl (i64.const %LENGTH%) (i64.const 32))))
  (func (export "sluicegate:one-crossing@0.1.0#call") (param $function i32) (param i32) (result i64)
    (select (i64.const 0) (i64.or (i64.const 2048) (i64.shl (i64.const 26) (i64.const 32)))
      (i32.eq (local.get $function) (i32.const 13))))
  (data (i32.const 2048) "\04\54\00\01\00\00\00\00\00k\41\00\00\00\08\00\00\00\07\00\00\00\00\00\00\00")
  (data (i32.const 3072) "%PLAN%"))"#;

/// Takes request bodies, and answers each piece with 16 KiB when its plan is of the mode `transform`, else with next.
const BODIES: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "sluicegate:filter/http-request-body@0.1.0#on-request-body") (param i32 i32) (result i32) unreachable)
  (func (export "sluicegate:one-crossing@0.1.0#block") (param i32) (result i32) i32.const 65536)
  (func (export "sluicegate:one-crossing@0.1.0#configure") (param i32) (result i64)
    (i64.or (i64.const 3072) (i64.shl (i64.const %LENGTH%) (i64.const 32))))
  (func (export "sluicegate:one-crossing@0.1.0#call") (param i32 i32) (result i64)
    (i64.or (i64.const 8192) (i64.shl (i64.const %ANSWER%) (i64.const 32))))
  (data (i32.const 8192) "\00\31\00\00\00\00\40\00\00")
  (data (i32.const 3072) "%PLAN%"))"#;

/// A guest whose predicate is `matching` and that is shown `fields` and `facts`.
fn module(host: &Host, matching: &str, fields: &str, facts: &str) -> Arc<Module> {
    let plan = plan(matching, fields, facts, &[]);
    load(host, &with_plan(GUEST, &plan))
}

fn plan(matching: &str, fields: &str, facts: &str, effects: &[&str]) -> String {
    serde_json::json!({"plan": {
        "phases": ["request", "response"],
        "match": serde_json::from_str::<serde_json::Value>(matching).expect("JSON"),
        "request-fields": fields,
        "response-fields": fields,
        "pools": [],
        "first-bytes": 0,
        "facts": serde_json::from_str::<serde_json::Value>(facts).expect("JSON"),
        "request-body": "skip",
        "response-body": "skip",
        "effects": effects,
        "tick-ms": 0,
    }})
    .to_string()
}

fn with_plan(guest: &str, plan: &str) -> String {
    guest
        .replace("%LENGTH%", &plan.len().to_string())
        .replace("%PLAN%", &plan.replace('"', "\\\""))
}

fn load(host: &Host, text: &str) -> Arc<Module> {
    let bytes = wat::parse_str(text).expect("valid text");
    Module::load(host, "bench", &bytes).expect("a filter")
}

fn limits() -> FilterLimits {
    FilterLimits {
        // A router of 100,000 rules is configured.
        memory: 512 * 1024 * 1024,
        configure_deadline: Duration::from_secs(10),
        ..FilterLimits::default()
    }
}

fn chain(module: Arc<Module>) -> Chain {
    Chain::new(vec![link(module, serde_json::Value::Null)])
}

fn link(module: Arc<Module>, settings: serde_json::Value) -> Link {
    isolated(module, settings, Isolation::Worker)
}

fn isolated(module: Arc<Module>, settings: serde_json::Value, isolation: Isolation) -> Link {
    let config = FilterConfig {
        name: "bench".into(),
        at: ConfigPath::default(),
        module: ModuleSource::Builtin("bench".into()),
        sha256: None,
        settings,
        limits: limits(),
        capabilities: Capabilities {
            key_value: true,
            clock: true,
            ..Capabilities::default()
        },
        store: StoreConfig::Memory { bytes: 1 << 20 },
        on_error: OnError::Fail,
        isolation,
        handler: None,
    };
    let filter =
        Filter::load(module, Arc::new(config), 1, Arc::new(|_| {})).expect("a configured filter");
    // The pools are not looked at before an exchange is sent.
    let pools = filter.plan().pools.iter().map(|_| 0).collect();
    Link {
        slot: Slot::new(filter, 0),
        pools,
    }
}

/// One of the standard filters, with settings.
fn standard(host: &Host, name: &str, settings: serde_json::Value) -> Link {
    let bytes = sluicegate::builtin::builtin(name).expect("a standard filter");
    link(Module::load(host, name, bytes).expect("it loads"), settings)
}

/// Rules of which the last matches what [`request`] asks for.
fn rules(count: usize) -> serde_json::Value {
    let rule = |n: usize| {
        let path = match n + 1 == count {
            true => "/a/page".to_owned(),
            false => format!("/s-{n}"),
        };
        serde_json::json!({"match": {"path-prefix": path}, "pool": "web"})
    };
    serde_json::json!({"rules": (0..count).map(rule).collect::<Vec<_>>()})
}

/// What a browser sends, roughly: ten fields, six hundred bytes.
fn request() -> RequestHead {
    let mut fields = Fields::default();
    for (name, value) in [
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        ),
        (
            "accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("referer", "https://www.example.com/a/page/that/links/here"),
        (
            "cookie",
            "session=0123456789abcdef0123456789abcdef; theme=dark",
        ),
        ("sec-fetch-dest", "document"),
        ("sec-fetch-mode", "navigate"),
        ("cache-control", "max-age=0"),
        ("x-request-start", "1764000000.123"),
    ] {
        fields.append(name.as_bytes(), value.as_bytes());
    }
    RequestHead::new(
        Version::Http11,
        b"GET",
        b"www.example.com",
        b"/a/page?with=a&query=string",
        fields,
    )
}

fn request_with(count: usize) -> RequestHead {
    let mut fields = Fields::default();
    for n in 0..count {
        let name = format!("x-field-{n}");
        fields.append(name.as_bytes(), b"a value of a usual length, 32 by");
    }
    RequestHead::new(
        Version::Http11,
        b"GET",
        b"www.example.com",
        b"/a/page",
        fields,
    )
}

fn response() -> ResponseHead {
    let mut fields = Fields::default();
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("date", "Mon, 23 Nov 2026 10:00:00 GMT"),
        ("server", "nginx"),
        ("cache-control", "no-store"),
    ] {
        fields.append(name.as_bytes(), value.as_bytes());
    }
    ResponseHead {
        version: Version::Http11,
        status: 200,
        fields,
    }
}

fn facts(connection: &Connection) -> RequestFacts<'_> {
    RequestFacts {
        connection,
        client: connection.peer.ip(),
        client_text: &connection.peer_text,
        client_port: connection.peer.port(),
        scheme: "http",
        request_id: "0198c2f0-0000-7000-8000-000000000000",
        has_body: false,
    }
}

/// One piece of 16 KiB of a request's body, in each mode.
fn bodies(criterion: &mut Criterion) {
    let host = host();
    let connection = connection();
    let facts = RequestFacts {
        has_body: true,
        ..facts(&connection)
    };
    let bytes = vec![b'x'; 16 * 1024];
    let modes = [
        ("first", serde_json::json!({"first": 16384}), 0),
        (
            "whole",
            serde_json::json!({"whole": {"max": 16384, "over": "refuse"}}),
            0,
        ),
        ("watch", serde_json::json!("watch"), 0),
        (
            "transform, replaced",
            serde_json::json!("transform"),
            16_393,
        ),
    ];
    for (name, mode, answer) in modes {
        let mut plan: serde_json::Value =
            serde_json::from_str(&plan("[]", "none", "[]", &[])).expect("JSON");
        plan["plan"]["phases"] = serde_json::json!(["request-body"]);
        plan["plan"]["request-body"] = mode;
        let text = with_plan(BODIES, &plan.to_string()).replace("%ANSWER%", &answer.to_string());
        let chain = chain(load(&host, &text));
        let mut head = request();
        let mut state = ExchangeState::default();
        chain.request(&mut state, &facts, &mut head);
        let stage = chain.body_stages(&state, Phase::RequestBody)[0];
        criterion.bench_function(&format!("body, 16 KiB, {name}"), |bencher| {
            bencher.iter(|| {
                let mut message = Message::Request {
                    facts,
                    head: &mut head,
                };
                let piece = BodyPiece {
                    bytes: &bytes,
                    last: true,
                    more: false,
                };
                let made = chain.piece(&mut state, stage, &mut message, piece);
                assert!(matches!(
                    (&made, answer),
                    (Made::Same, 0) | (Made::Instead(_), 16_393)
                ));
                black_box(made)
            });
        });
    }
}

fn host() -> Host {
    Host::new(HostOptions {
        cache: Some(concat!(env!("CARGO_TARGET_TMPDIR"), "/modules").into()),
        ..HostOptions::default()
    })
    .expect("a host")
}

fn connection() -> Connection {
    Connection::new(
        "web".into(),
        "10.0.0.9:4000".parse().expect("an address"),
        "10.0.0.1:80".parse().expect("an address"),
    )
}

fn filters(criterion: &mut Criterion) {
    let host = host();
    let connection = connection();
    let request_facts = facts(&connection);
    let response_facts = ResponseFacts {
        request: request_facts,
        version: Version::Http11,
        method: b"GET",
        authority: b"www.example.com",
        target: b"/a/page?with=a&query=string",
        endpoint: "10.0.0.2:80",
        pool: "web",
    };
    let (mut request, mut response) = (request(), response());

    let most = r#"["method", "scheme", "authority", "path", "query", "client-address", "peer-address",
        "local-address", "listener", "request-id", "protocol"]"#;
    let guests = [
        (
            "request, no facts, no fields",
            module(&host, "[]", "none", "[]"),
        ),
        (
            "request, facts, no fields",
            module(&host, "[]", "none", most),
        ),
        (
            "request, facts, ten fields",
            module(&host, "[]", "all", most),
        ),
        (
            "request, not matched",
            module(&host, r#"[{"path-prefix": "/api"}]"#, "all", most),
        ),
        (
            "request, no facts, no fields, as a component",
            load(&host, COMPONENT),
        ),
    ];
    for (name, module) in guests {
        let chain = chain(module);
        let mut state = ExchangeState::default();
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(chain.request(&mut state, &request_facts, &mut request)));
        });
    }

    let both = chain(module(&host, "[]", "none", "[]"));
    let mut state = ExchangeState::default();
    criterion.bench_function("request and response", |bencher| {
        bencher.iter(|| {
            black_box(both.request(&mut state, &request_facts, &mut request));
            black_box(both.response(&mut state, &response_facts, &mut response))
        });
    });
    for length in [1, 2, 4, 8] {
        let module = module(&host, "[]", "none", "[]");
        let links = (0..length).map(|_| link(module.clone(), serde_json::Value::Null));
        let chain = Chain::new(links.collect());
        criterion.bench_function(&format!("request, chain of {length}"), |bencher| {
            bencher.iter(|| black_box(chain.request(&mut state, &request_facts, &mut request)));
        });
    }

    let module_of_none = module(&host, "[]", "none", "[]");
    let own = isolated(module_of_none, serde_json::Value::Null, Isolation::Request);
    let own = Chain::new(vec![own]);
    criterion.bench_function("request, an instance of its own", |bencher| {
        bencher.iter(|| {
            let mut state = ExchangeState::default();
            black_box(own.request(&mut state, &request_facts, &mut request))
        });
    });
    for count in [0, 10, 20, 40, 80] {
        let chain = chain(module(&host, "[]", "all", most));
        let mut request = request_with(count);
        criterion.bench_function(&format!("request, facts, {count} fields"), |bencher| {
            bencher.iter(|| black_box(chain.request(&mut state, &request_facts, &mut request)));
        });
    }

    // As an exchange does it, but for the futures of what cannot be done at once.
    let waits = chain(load(
        &host,
        &with_plan(WAITS, &plan("[]", "none", "[]", &["key-value"])),
    ));
    let store = Store::open("bench", &StoreConfig::Memory { bytes: 1 << 20 }, None);
    let store = Connections::default().handle(&store);
    let value = StoreOp::Set {
        key: b"k",
        value: b"value",
        ttl: None,
    };
    assert!(matches!(store.at_once(&value), Some(Ok(_))));
    let read = |key: &[u8]| match store.at_once(&StoreOp::Get { key }) {
        Some(Ok(StoreAnswer::Value(value))) => EffectResult::Value(value),
        other => panic!("{other:?}"),
    };
    criterion.bench_function("suspend and resume, store get", |bencher| {
        bencher.iter(|| {
            let Outcome::Suspend(suspension) =
                waits.request(&mut state, &request_facts, &mut request)
            else {
                panic!("it does not wait");
            };
            let results: Vec<EffectResult> = suspension
                .effects()
                .map(|effect| match effect {
                    Effect::Get { key } => read(key),
                    other => panic!("{other:?}"),
                })
                .collect();
            let outcome = waits.resume_request(
                &mut state,
                &request_facts,
                &mut request,
                *suspension,
                &results,
            );
            assert!(matches!(outcome, Outcome::Continue));
        });
    });
    criterion.bench_function("store get, part of the above", |bencher| {
        bencher.iter(|| black_box(read(b"k")));
    });

    let policy = Chain::new(vec![
        standard(
            &host,
            "ua-block",
            serde_json::json!({"deny": ["*badcurl*"]}),
        ),
        standard(
            &host,
            "headers",
            serde_json::json!({"request": [
                {"append": "x-forwarded-for", "value": "${peer.address}"},
                {"append": "x-forwarded-by", "value": "lab"},
            ]}),
        ),
    ]);
    let original = request.clone();
    criterion.bench_function("ua-block and headers", |bencher| {
        bencher.iter(|| {
            request.fields.clone_from(&original.fields);
            black_box(policy.request(&mut state, &request_facts, &mut request))
        });
    });
    criterion.bench_function("copying the fields, part of the above", |bencher| {
        bencher.iter(|| {
            request.fields.clone_from(&original.fields);
            black_box(&mut request);
        });
    });
    for count in [10, 1_000, 10_000, 100_000] {
        let router = Chain::new(vec![standard(&host, "router", rules(count))]);
        criterion.bench_function(&format!("router, {count} rules"), |bencher| {
            bencher.iter(|| black_box(router.request(&mut state, &request_facts, &mut request)));
        });
    }

    let limit = serde_json::json!({"rate": "1000000/s", "scope": "worker"});
    let limiter = Chain::new(vec![standard(&host, "rate-limit", limit)]);
    criterion.bench_function("rate-limit, by client, each worker", |bencher| {
        bencher.iter(|| black_box(limiter.request(&mut state, &request_facts, &mut request)));
    });
    for (name, settings) in [
        ("sticky, by source", serde_json::json!({"by": "source"})),
        (
            "sticky, by header",
            serde_json::json!({"by": {"header": "cookie"}}),
        ),
    ] {
        let sticky = Chain::new(vec![standard(&host, "sticky", settings)]);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(sticky.request(&mut state, &request_facts, &mut request)));
        });
    }

    let module = module(&host, "[]", "all", most);
    let options = InstanceOptions {
        metrics: Default::default(),
        filter: "bench".into(),
        limits: limits(),
        capabilities: Capabilities::default(),
    };
    criterion.bench_function("new instance, configured", |bencher| {
        bencher.iter_batched(
            || (),
            |()| {
                let mut instance = module.instantiate(&options).expect("an instance");
                instance
                    .configure("null", Duration::from_secs(2))
                    .expect("a plan");
                instance
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, filters, bodies);
criterion_main!(benches);
