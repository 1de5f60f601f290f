//! Filters that misbehave end their own exchange and nothing else.

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::proxy::Start;

use super::guest::{BODY, Guest, NEXT, Phase, REPLY, SET, STATUS, op, verdict};
use super::rig::{Plan, Rig};

fn rig(backend: &Backend, guest: Vec<u8>, options: &str) -> Rig {
    Plan::new(&[backend.address()])
        .listener(&format!("filters: [{{module: guest.wasm{options}}}]"))
        .run_with(Start::new().file("guest.wasm", guest))
}

/// Runs `bad` for targets of one byte (`/`), and `next` for all others: slot 3 is the path.
fn bad_for_root(bad: &str) -> Vec<u8> {
    let mut guest = Guest::default();
    let next = guest.pair(&[]);
    let body = format!(
        "(if (result i32) (i32.eq (i32.load (i32.add (local.get $head) (i32.const 92))) (i32.const 1))
           (then {bad}) (else (i32.const {next})))"
    );
    guest.runs(Phase::Request, &body).build()
}

const HOSTILE: [(&str, &str); 8] = [
    ("trap", "unreachable"),
    ("endless loop", "(loop $l br $l) (i32.const 0)"),
    ("memory out of bounds", "(i32.load (i32.const -8))"),
    (
        "memory growth",
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
    ),
    (
        "pointer out of bounds",
        "(i32.store (i32.const 512) (i32.const -16)) (i32.store (i32.const 516) (i32.const 64)) (i32.const 512)",
    ),
    (
        "oversized output",
        "(drop (memory.grow (i32.const 64))) (i32.store (i32.const 512) (i32.const 65536)) (i32.store (i32.const 516) (i32.const 3000000)) (i32.const 512)",
    ),
    (
        "unknown verdict",
        "(i32.store8 (i32.const 600) (i32.const 77)) (i32.store (i32.const 512) (i32.const 600)) (i32.store (i32.const 516) (i32.const 1)) (i32.const 512)",
    ),
    (
        "truncated operation",
        "(i32.store8 (i32.const 600) (i32.const 0)) (i32.store8 (i32.const 601) (i32.const 1)) (i32.store (i32.const 512) (i32.const 600)) (i32.store (i32.const 516) (i32.const 2)) (i32.const 512)",
    ),
];

#[test]
fn a_hostile_guest_ends_its_own_exchange_and_is_replaced() {
    let backend = Backend::http("web1");
    for (name, body) in HOSTILE {
        let rig = rig(&backend, bad_for_root(body), "");
        let mut kept = rig.raw();
        for _ in 0..3 {
            kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("send");
            let answer = kept
                .response()
                .unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(answer.status, 500, "{name}");
            let said = answer.field("proxy-status").unwrap_or_default();
            assert!(said.contains("proxy_internal_error"), "{name}: {said}");
            // The same connection and the same worker, with an instance that is sound.
            kept.send("GET /good HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("send");
            assert_eq!(kept.response().expect("response").text(), "web1", "{name}");
        }
        assert_eq!(rig.record("/")["reason"], "filter-fault", "{name}");
        drop(kept);
        rig.settles();
    }
    assert!(backend.received().iter().all(|r| r.target() == "/good"));
}

#[test]
fn bypass_goes_on_as_if_the_filter_had_said_next() {
    let backend = Backend::http("web1");
    for (name, body) in HOSTILE {
        let rig = rig(&backend, bad_for_root(body), ", on-error: bypass");
        for _ in 0..2 {
            assert_eq!(rig.get("/").text(), "web1", "{name}");
        }
    }
}

#[test]
fn response_phase_faults_are_500_and_bypass_leaves_the_response() {
    let backend = Backend::http("web1");
    let guest = Guest::default()
        .runs(Phase::Response, "unreachable")
        .build();
    let strict = rig(&backend, guest.clone(), "");
    assert_eq!(strict.get("/").status, 500);
    // The log's line leads to the record.
    let id = strict.record("/")["request_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let told = strict.proxy.stderr();
    assert!(told.contains(&format!("request_id={id}")), "{told}");
    let lenient = rig(&backend, guest, ", on-error: bypass");
    assert_eq!(lenient.get("/").text(), "web1");
}

#[test]
fn what_a_guest_writes_is_held_to_what_a_client_may_send() {
    let backend = Backend::http("web1");
    for (name, value) in [
        ("x-a", &b"b\r\nset-cookie: c"[..]),
        ("x-a", b"b\0"),
        ("x a", b"b"),
        ("x-a:", b"b"),
        ("", b"b"),
        ("content-length", b"5"),
        ("transfer-encoding", b"chunked"),
        ("connection", b"close"),
        ("host", b"evil"),
    ] {
        for phase in [Phase::Request, Phase::Response] {
            let block = verdict(NEXT, &[op(SET, name, value)]);
            let rig = rig(
                &backend,
                Guest::default().answers(phase, &block).build(),
                "",
            );
            assert_eq!(rig.get("/").status, 500, "{phase:?} {name:?}");
        }
    }
}

#[test]
fn a_reply_is_the_whole_answer_and_the_connection_goes_on() {
    let backend = Backend::http("web1");
    let status = |s: u16| op(STATUS, "", &s.to_le_bytes());
    let block = verdict(
        REPLY,
        &[
            status(403),
            op(SET, "x-why", b"because"),
            op(BODY, "", b"no"),
        ],
    );
    let rig = rig(
        &backend,
        Guest::default().answers(Phase::Request, &block).build(),
        "",
    );
    let mut raw = rig.raw();
    for _ in 0..2 {
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
        let answer = raw.response().expect("response");
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
        assert_eq!(answer.field("x-why"), Some("because"));
    }
    raw.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    let head = raw.head().expect("head");
    assert!(head.contains("content-length: 2"), "{head}");
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    assert_eq!(raw.response().expect("the next answer").text(), "no");
    assert_eq!(rig.record("/")["reason"], "filter-reply");
    assert!(backend.received().is_empty());
}

#[test]
fn a_status_that_a_filter_changes_keeps_the_framing_right() {
    let backend = Backend::http_with(|r| match r.target() {
        "/empty" => b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => response(200, "a body"),
    });
    for (to, target, body) in [
        (204u16, "/full", ""),
        (304, "/full", ""),
        (200, "/empty", ""),
        (404, "/full", "a body"),
    ] {
        let block = verdict(NEXT, &[op(STATUS, "", &to.to_le_bytes())]);
        let rig = rig(
            &backend,
            Guest::default().answers(Phase::Response, &block).build(),
            "",
        );
        let mut raw = rig.raw();
        for _ in 0..2 {
            raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .expect("send");
            let answer = raw
                .response()
                .unwrap_or_else(|why| panic!("{to} {target}: {why}"));
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (to, body),
                "{target}"
            );
        }
    }
}

#[test]
fn replies_pass_the_response_filters() {
    let status = op(STATUS, "", &403u16.to_le_bytes());
    let guest = Guest::default()
        .answers(Phase::Request, &verdict(REPLY, &[status]))
        .build();
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(
            "filters: [{module: \"builtin:headers\", settings: {response: [{set: x-seen, value: yes}]}}, {module: guest.wasm}]",
        )
        .run_with(Start::new().file("guest.wasm", guest));
    let answer = rig.get("/");
    assert_eq!((answer.status, answer.field("x-seen")), (403, Some("yes")));
}

#[test]
fn the_log_phase_is_called_once_for_every_exchange() {
    let backend = Backend::http("web1");
    // Writes a line through the capability; traps in the request phase for one target.
    let guest = r#"(module
      (import "sluicegate:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))
      (memory (export "memory") 4)
      (global $heap (mut i32) (i32.const 65536))
      (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (local $at i32)
        (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
        (global.set $heap (i32.add (local.get $at) (local.get 3)))
        (local.get $at))
      (func (export "sluicegate:filter/configuration@0.1.0#configure") (param i32 i32) (result i32)
        (i32.store8 (i32.const 1028) (i32.const 4)) (i32.const 1024))
      (func (export "sluicegate:filter/http-log@0.1.0#on-log") (param i32 i32)
        (global.set $heap (i32.const 65536))
        (call $log (i32.const 2) (i32.const 2048) (i32.const 16)))
      (data (i32.const 2048) "an exchange ends"))"#;
    let rig = rig(
        &backend,
        wat::parse_str(guest).expect("a guest"),
        ", capabilities: [log]",
    );
    for n in 0..5 {
        rig.get(&format!("/{n}"));
    }
    rig.record("/4");
    let lines = rig.proxy.stderr().matches("an exchange ends").count();
    assert_eq!(lines, 5, "{}", rig.proxy.stderr());
}

#[test]
fn a_log_phase_that_fails_changes_nothing() {
    let backend = Backend::http("web1");
    let guest = Guest::default().runs(Phase::Log, "unreachable").build();
    let rig = rig(&backend, guest, "");
    let mut raw = rig.raw();
    for _ in 0..3 {
        raw.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        assert_eq!(raw.response().expect("response").text(), "web1");
    }
    assert!(rig.record("/x")["reason"].is_null());
}

#[test]
fn a_module_that_imports_what_was_not_granted_is_refused_by_name() {
    let guest = r#"(module (import "sluicegate:filter/log@0.1.0" "log" (func (param i32 i32 i32))) (memory (export "memory") 1)
      (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
      (func (export "sluicegate:filter/configuration@0.1.0#configure") (param i32 i32) (result i32) unreachable))"#;
    let dir = tempfile::tempdir().expect("directory");
    std::fs::write(
        dir.path().join("guest.wasm"),
        wat::parse_str(guest).expect("a guest"),
    )
    .expect("file");
    let config = dir.path().join("sluicegate.yaml");
    let yaml = "listeners: [{name: web, bind: \"127.0.0.1:1\", protocol: http, filters: [{module: guest.wasm}]}]\n";
    std::fs::write(&config, yaml).expect("file");
    let output =
        sluicegate_tests::proxy::sluicegate(&["check", "-c", &config.display().to_string()]);
    assert_eq!(output.code, 78, "{output:?}");
    let said = output.stderr + &output.stdout;
    assert!(
        said.contains("guest.wasm") && said.contains("log"),
        "{said}"
    );
}

#[test]
fn the_readable_world_takes_the_same_way() {
    let backend = Backend::http("web1");
    // Answers every request with the record of a reply: status 403, no fields, body "no".
    let guest = Guest::default()
        .item(
            r#"(func (export "sluicegate:filter/readable-http-request@0.1.0#on-request") (param i32) (result i32)
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 256))
              (i32.store8 (i32.const 512) (i32.const 2))
              (i32.store16 (i32.const 520) (i32.const 403))
              (i32.store (i32.const 532) (i32.const 800))
              (i32.store (i32.const 536) (i32.const 2))
              (i32.store16 (i32.const 800) (i32.const 0x6f6e))
              (global.set $heap (i32.const 65536))
              i32.const 512)"#,
        )
        .wants(Phase::Request)
        .build();
    let rig = rig(&backend, guest, "");
    for _ in 0..3 {
        let answer = rig.get("/a?b");
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    }
}

#[test]
fn a_standard_filter_loads_from_a_path_as_well() {
    let backend = Backend::http("web1");
    let module = sluicegate::builtin::builtin("ua-block").expect("a standard filter");
    let rig = rig(
        &backend,
        module.to_vec(),
        ", settings: {deny: [badcurl], action: {reply: {status: 418}}}",
    );
    let status = |agent: &str| {
        let mut raw = rig.raw();
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\n\r\n");
        raw.send(&request).expect("send");
        raw.response().expect("response").status
    };
    assert_eq!(status("badcurl"), 418);
    assert_eq!(status("badcurl/1.0"), 200);
}

/// Counts its calls in its memory; from the second on, requests are answered with 403.
fn refuses_the_second() -> Vec<u8> {
    let mut guest = Guest::default();
    let next = guest.pair(&[]);
    let refuse = guest.pair(&verdict(REPLY, &[op(STATUS, "", &403u16.to_le_bytes())]));
    let body = format!(
        "(i32.store (i32.const 600) (i32.add (i32.const 1) (i32.load (i32.const 600))))
         (select (i32.const {next}) (i32.const {refuse})
           (i32.eq (i32.load (i32.const 600)) (i32.const 1)))"
    );
    guest.runs(Phase::Request, &body).build()
}

#[test]
fn an_exchange_may_have_an_instance_of_its_own() {
    let backend = Backend::http("web1");
    let shared = rig(&backend, refuses_the_second(), "");
    let mut kept = shared.raw();
    let statuses = |kept: &mut sluicegate_tests::client::Raw| {
        let mut statuses = Vec::new();
        for _ in 0..3 {
            kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("send");
            statuses.push(kept.response().expect("response").status);
        }
        statuses
    };
    assert_eq!(statuses(&mut kept), [200, 403, 403]);
    let isolated = rig(
        &backend,
        refuses_the_second(),
        ", isolation: request, limits: {deadline: 1s}",
    );
    assert_eq!(statuses(&mut isolated.raw()), [200, 200, 200]);
}
