//! Filters that wait: for sleep, calls, the store, in requests, responses and sessions.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, refused, response};
use sluicegate_tests::client::{Raw, Response, curl, get};
use sluicegate_tests::proxy::{Proxy, Start, sluicegate};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::components;
use super::rig::{record, records};

const ALL: &str =
    "settings: {pool: auth, store: true}, capabilities: [log, key-value, {http-call: [auth]}]";

/// The guest of `tests/guests/waits`, built once.
fn waits() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| components::filter("waits", "wasm32-unknown-unknown"))
}

/// The service that is called. It does not answer `/hang`.
fn service() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let Ok(body) = raw.exactly("question".len()) else {
                return;
            };
            let asked = head.starts_with("POST /") && head.contains("\r\nx-asked-by: waits\r\n");
            let answer = match head.split(' ').nth(1) {
                Some("/hang") => {
                    let _ = raw.to_end();
                    return;
                }
                Some("/large") => response(200, &"x".repeat(1001)),
                Some("/malformed") => b"HTTP/1.1 200 OK\r\nno field\r\n\r\n".to_vec(),
                Some("/denied") => response(403, "no"),
                _ if asked && body == b"question" => response(200, "yes"),
                _ => response(400, &head),
            };
            if raw.send(answer).is_err() {
                return;
            }
        }
    })
}

/// A proxy on one worker, with the filter in front of `web`.
struct Rig {
    proxy: Proxy,
    bind: SocketAddr,
    yaml: String,
}

fn yaml(bind: SocketAddr, web: &Backend, auth: SocketAddr, filter: &str, listener: &str) -> String {
    format!(
        "workers: 1\npools:\n  web: {{endpoints: [\"{}\"]}}\n  auth: {{endpoints: [\"{auth}\"]}}\n\
         filters:\n  waits: {{module: waits.wasm, {filter}}}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: web, filters: [waits]{listener}}}\n\
         telemetry: {{access-log: {{format: json}}}}\n",
        web.address()
    )
}

impl Rig {
    fn new(web: &Backend, auth: SocketAddr, filter: &str, listener: &str) -> Self {
        let bind = Addresses::new().free();
        let yaml = yaml(bind, web, auth, filter, listener);
        let proxy = Start::new().file("waits.wasm", waits()).run(&yaml);
        Self { proxy, bind, yaml }
    }

    fn get(&self, target: &str) -> Response {
        get(self.bind, target).expect("a response")
    }

    /// What the script's reply says.
    fn said(&self, script: &str) -> String {
        let answer = self.get(&format!("/?{script};reply"));
        assert_eq!(answer.status, 200, "{script}: {}", answer.text());
        answer.text()
    }

    fn suspends(&self) -> f64 {
        self.proxy
            .metric("sluicegate_filter_verdicts_total{filter=\"waits\",verdict=\"suspend\"}")
    }

    fn faults(&self, kind: &str) -> f64 {
        let series = format!("sluicegate_filter_faults_total{{filter=\"waits\",kind=\"{kind}\"}}");
        self.proxy.metric(&series)
    }

    /// Sends a request whose filter waits, and waits until it does.
    fn waiting(&self, target: &str) -> Raw {
        let before = self.suspends();
        let mut raw = Raw::connect(self.bind);
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .expect("send");
        let more = || self.suspends() > before;
        assert!(eventually(DEADLINE, more), "{}", self.proxy.stderr());
        raw
    }

    /// Waits until no script waits but the one that asks.
    fn nothing_waits(&self) {
        let said = || self.said("live");
        assert!(eventually(DEADLINE, || said() == "live=1"), "{}", said());
    }
}

#[test]
fn sleep_is_waited_for_and_told_apart_from_the_filters_own_time() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, "");
    assert_eq!(rig.said("sleep:30;sleep:20"), "slept30 slept20");
    let one_after_the_other = record(&rig.proxy, |r| r["target"] == "/?sleep:30;sleep:20;reply");
    assert_eq!(rig.said("both:100"), "both");
    let side_by_side = record(&rig.proxy, |r| r["target"] == "/?both:100;reply");
    let waited = |record: &serde_json::Value| record["filter_wait_us"].as_u64().expect("a wait");
    assert!(
        waited(&one_after_the_other) >= 50_000,
        "{one_after_the_other}"
    );
    assert!(
        (100_000..180_000).contains(&waited(&side_by_side)),
        "{side_by_side}"
    );
    assert!(
        side_by_side["filter_us"].as_u64() < Some(50_000),
        "{side_by_side}"
    );
}

#[test]
fn calls_go_through_the_pool_and_fail_by_name() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, "");
    for (path, expected) in [
        ("/ok", "200:yes"),
        ("/denied", "403:no"),
        ("/large", "too-large"),
        ("/hang", "timeout"),
        ("/malformed", "malformed"),
    ] {
        assert_eq!(rig.said(&format!("call:{path}")), expected, "{path}");
    }
    let rig = Rig::new(&web, refused(), ALL, "");
    assert_eq!(rig.said("call:/ok"), "refused");
    assert!(web.received().is_empty());
}

#[test]
fn the_store_is_one_for_all_calls() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, "");
    assert_eq!(
        rig.said("get:k;set:k:v;get:k;del:k;get:k"),
        "none set v deleted none"
    );
    assert_eq!(
        rig.said("cas:c:-:a;cas:c:-:b;cas:c:a:b;get:c;incr:c"),
        "set a set b invalid"
    );
    for n in 1..=3 {
        assert_eq!(rig.said("incr:n"), n.to_string());
    }
}

#[test]
fn request_and_response_wait_and_go_on_with_the_other_filters() {
    let (web, auth) = (
        Backend::http_with(|r| response(200, r.field("x-said").unwrap_or("-"))),
        service(),
    );
    let rig = Rig::new(&web, auth.address(), ALL, "");
    let answer = rig.get("/?sleep:5;call:/ok|incr:n;sleep:5;call:/denied");
    assert_eq!(answer.text(), "slept5 200:yes");
    assert_eq!(answer.field("x-said"), Some("1 slept5 403:no"));
    // A reply in place of the response, and the end of it.
    let answer = rig.get("/?|sleep:5;reply");
    assert_eq!((answer.status, answer.text().as_str()), (200, "slept5"));
    assert_eq!(web.received().len(), 2);
    for end in ["drop", "reset"] {
        let mut raw = Raw::connect(rig.bind);
        raw.send(format!(
            "GET /?call:/denied;{end} HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .expect("send");
        assert!(raw.to_end().unwrap_or_default().is_empty());
        let reason = format!("filter-{end}");
        record(&rig.proxy, |r| r["reason"] == *reason);
    }
    // A body waits, and is forwarded whole.
    let mut raw = Raw::connect(rig.bind);
    raw.send("POST /?sleep:20 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
        .expect("send");
    assert_eq!(raw.response().expect("a response").text(), "slept20");
    assert_eq!(web.received().last().expect("a request").body, b"body");
}

#[test]
fn a_client_that_leaves_cancels_and_nothing_is_left() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, "");
    for _ in 0..10 {
        let clients: Vec<Raw> = (0..100)
            .map(|_| {
                let mut raw = Raw::connect(rig.bind);
                raw.send("GET /?sleep:60000 HTTP/1.1\r\nHost: x\r\n\r\n")
                    .expect("send");
                raw
            })
            .collect();
        drop(clients);
    }
    for _ in 0..10 {
        rig.waiting("/?call:/hang;call:/hang");
    }
    rig.nothing_waits();
    let told = || rig.proxy.stderr().matches("cancelled /hang").count();
    assert!(
        eventually(DEADLINE, || told() == 10),
        "{}",
        rig.proxy.stderr()
    );
    let left = || {
        let gone = |r: &&serde_json::Value| r["reason"] == "client-gone" && r["status"] == 499;
        records(&rig.proxy).iter().filter(gone).count()
    };
    assert!(eventually(DEADLINE, || left() == 1010), "{}", left());
    assert!(web.received().is_empty());
}

#[test]
fn an_exchange_that_is_out_of_time_cancels_too() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, ", timeouts: {total: 200ms}");
    for target in ["/?sleep:60000", "/?|sleep:60000"] {
        assert_eq!(rig.get(target).status, 504, "{target}");
        let record = record(&rig.proxy, |r| r["target"] == target);
        assert_eq!(record["reason"], "total-timeout");
        assert!(
            record["filter_wait_us"].as_u64() > Some(100_000),
            "{record}"
        );
    }
    rig.nothing_waits();
}

#[test]
fn streams_of_http2_wait_apart_and_are_cancelled_apart() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, "");
    let url = |script: &str| format!("http://{}/?{script}", rig.bind);
    let done = curl(&["--http2-prior-knowledge", &url("call:/ok;incr:n;reply")]);
    assert_eq!(done.body, "200:yes 1", "{}", done.stderr);
    let done = Command::new("nghttp")
        .args(["-n", "-t", "1", &url("sleep:60000"), &url("sleep:10")])
        .output()
        .expect("nghttp runs");
    drop(done);
    rig.nothing_waits();
}

#[test]
fn a_call_does_not_outlive_its_instance() {
    let (web, auth) = (Backend::http("web"), service());
    for (policy, status, text) in [("fail", 500, None), ("bypass", 200, Some("web"))] {
        let filter = format!("{ALL}, on-error: {policy}");
        let rig = Rig::new(&web, auth.address(), &filter, "");
        let mut waiting = rig.waiting("/?sleep:300;reply");
        rig.get("/panic");
        let answer = waiting.response().expect("a response");
        assert_eq!(answer.status, status, "{policy}");
        if let Some(text) = text {
            assert_eq!(answer.text(), text);
        }
        assert_eq!((rig.faults("trap"), rig.faults("instance")), (1.0, 1.0));
        assert_eq!(rig.said("sleep:1"), "slept1");
    }
}

#[test]
fn calls_that_wait_are_bounded_and_the_others_go_on() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(
        &web,
        auth.address(),
        &format!("{ALL}, limits: {{suspends: 2}}"),
        "",
    );
    let mut waiting = [
        rig.waiting("/?sleep:400;reply"),
        rig.waiting("/?sleep:400;reply"),
    ];
    assert_eq!(rig.get("/?sleep:1;reply").status, 500);
    assert_eq!(rig.faults("suspends"), 1.0);
    for raw in &mut waiting {
        assert_eq!(raw.response().expect("a response").text(), "slept400");
    }
    rig.nothing_waits();
    // And so is how often one may.
    assert_eq!(
        rig.get(&format!("/?{}reply", "sleep:0;".repeat(64))).status,
        200
    );
    assert_eq!(
        rig.get(&format!("/?{}reply", "sleep:0;".repeat(65))).status,
        500
    );
    assert_eq!(rig.faults("suspends"), 2.0);
    rig.nothing_waits();
}

#[test]
fn what_is_not_granted_is_refused_at_load() {
    let (web, auth) = (Backend::http("web"), service());
    let bind = "127.0.0.1:1".parse().expect("an address");
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("waits.wasm"), waits()).expect("written");
    let check = |filter: &str| {
        let path = dir.path().join("sluicegate.yaml");
        std::fs::write(&path, yaml(bind, &web, auth.address(), filter, "")).expect("written");
        let output = sluicegate(&["check", "-c", &path.display().to_string()]);
        (output.code, output.stderr)
    };
    assert_eq!(check(ALL), (0, String::new()));
    for (filter, code, help) in [
        (
            "settings: {store: true}, capabilities: [log]",
            "missing-capability",
            "`capabilities: [log, key-value]`",
        ),
        (
            "settings: {pool: auth}, capabilities: [log, {http-call: [web]}]",
            "missing-capability",
            "`capabilities: [log, {http-call: [web, auth]}]`",
        ),
        (
            "settings: {pool: auth}, capabilities: [log, {http-call: [aut]}]",
            "unknown-pool",
            "did you mean \"auth\"?",
        ),
    ] {
        let (exit, said) = check(filter);
        assert_eq!(exit, 78, "{filter}");
        assert!(said.contains(&format!("error[{code}]")), "{said}");
        assert!(said.contains(help), "{said}");
    }
}

#[test]
fn a_reload_leaves_what_waits_to_the_filter_it_began_with() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, "");
    let mut waiting = rig.waiting("/?sleep:300;live;reply");
    let other = rig.yaml.replace(ALL, "settings: {}, capabilities: [log]");
    let reloaded = rig.proxy.reload(&other);
    assert_eq!(reloaded.code, 0, "{}", reloaded.stderr);
    assert_eq!(rig.said("call:/ok;live"), "no-pool live=1");
    assert_eq!(
        waiting.response().expect("a response").text(),
        "slept300 live=1"
    );
}

#[test]
fn each_of_many_gets_its_own_answer() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, "");
    std::thread::scope(|scope| {
        for n in 0..200u64 {
            let rig = &rig;
            scope.spawn(move || {
                // Spread without a pattern.
                let (first, second) = (n * 7919 % 50, n * 104_729 % 50);
                let script = format!("sleep:{first};set:k{n}:v{n};sleep:{second};get:k{n}");
                let expected = format!("slept{first} set slept{second} v{n}");
                for _ in 0..3 {
                    assert_eq!(rig.said(&script), expected);
                }
            });
        }
    });
    rig.nothing_waits();
}

#[test]
fn sessions_wait_before_they_are_relayed() {
    let (hello, auth) = (Backend::tcp("hello"), service());
    for (script, expected) in [
        ("sleep:20;call:/ok;incr:n", &b"hello"[..]),
        ("call:/denied;drop", b""),
        ("sleep:1;reset", b""),
    ] {
        let bind = Addresses::new().free();
        let proxy = Start::new().file("waits.wasm", waits()).run(&format!(
            "pools:\n  hello: {{endpoints: [\"{}\"]}}\n  auth: {{endpoints: [\"{}\"]}}\n\
             listeners:\n  - name: relay\n    bind: \"{bind}\"\n    protocol: tcp\n    pool: hello\n    \
             filters: [{{module: waits.wasm, settings: {{pool: auth, store: true, connect: \"{script}\"}}, \
             capabilities: [log, key-value, {{http-call: [auth]}}]}}]\n\
             telemetry: {{access-log: {{format: json}}}}\n",
            hello.address(),
            auth.address()
        ));
        let got = Raw::connect(bind).to_end().unwrap_or_default();
        assert_eq!(got, expected, "{script}");
        let record = record(&proxy, |r| r["kind"] == "session");
        assert!(record["filter_wait_us"].as_u64() > Some(0), "{record}");
    }
}

#[test]
fn explain_tells_what_would_be_waited_for_and_asks_nobody() {
    let (web, auth) = (Backend::http("web"), service());
    let rig = Rig::new(&web, auth.address(), ALL, "");
    let path = rig.proxy.directory().join("explained.yaml");
    std::fs::write(&path, &rig.yaml).expect("written");
    let url = format!("http://{}/?call:/check", rig.bind);
    let output = sluicegate(&["explain", "-c", &path.display().to_string(), "GET", &url]);
    assert_eq!(output.code, 0, "{output:?}");
    for said in [
        "filter \"waits\", request: suspend",
        "call POST /check of pool \"auth\", for 300 ms at most",
        "nothing is asked of others here",
    ] {
        assert!(output.stdout.contains(said), "{}", output.stdout);
    }
    assert_eq!(auth.connections(), 0);
    let bodies = ALL.replace("store: true", "store: true, bodies: whole");
    std::fs::write(&path, rig.yaml.replace(ALL, &bodies)).expect("written");
    let output = sluicegate(&["explain", "-c", &path.display().to_string(), "POST", &url]);
    for said in [
        "these filters want the request's body: waits",
        "these want the response's body: waits",
    ] {
        assert!(output.stdout.contains(said), "{}", output.stdout);
    }
}

/// Sends a request with a body of three bytes in two chunks, a little apart.
fn post(rig: &Rig, target: &str) -> Raw {
    let mut raw = Raw::connect(rig.bind);
    raw.send(format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    ))
    .expect("send");
    raw
}

#[test]
fn bodies_wait_and_nothing_overtakes() {
    let auth = service();
    let web = Backend::http_with(|r| response(200, &String::from_utf8_lossy(&r.body)));
    let script = "/?call:/ok;sleep:5|incr:n;sleep:5";
    for (mode, sent, answer) in [
        (
            "whole",
            "[200:yes slept5]abc",
            "[1 slept5][200:yes slept5]abc",
        ),
        ("transform", "[200:yes slept5]a[200:yes slept5]bc", ""),
    ] {
        let filter = ALL.replace("store: true", &format!("store: true, bodies: {mode}"));
        let rig = Rig::new(&web, auth.address(), &filter, "");
        let before = rig.suspends();
        let mut raw = post(&rig, script);
        if mode == "transform" {
            // The second piece comes while the first one waits, or after it.
            assert!(eventually(DEADLINE, || rig.suspends() > before));
        }
        raw.send("2\r\nbc\r\n0\r\n\r\n").expect("send");
        let said = raw.response().expect("a response");
        assert_eq!(said.status, 200, "{mode}");
        let received = web.received().last().expect("a request").body.clone();
        assert_eq!(String::from_utf8_lossy(&received), sent, "{mode}");
        match answer {
            "" => assert!(said.text().contains("slept5]"), "{}", said.text()),
            answer => assert_eq!(said.text(), answer),
        }
        let record = record(&rig.proxy, |r| r["target"] == script);
        assert!(
            record["filter_wait_us"].as_u64() >= Some(10_000),
            "{record}"
        );
    }
}

#[test]
fn a_body_that_waits_ends_with_its_client_and_by_its_filter() {
    let auth = service();
    let web = Backend::http("web");
    for mode in ["whole", "transform"] {
        let filter = ALL.replace("store: true", &format!("store: true, bodies: {mode}"));
        let rig = Rig::new(&web, auth.address(), &filter, "");
        for (target, direction) in [("/?sleep:60000", "request"), ("/?|sleep:60000", "response")] {
            let before = rig.suspends();
            let mut raw = post(&rig, target);
            raw.send("2\r\nbc\r\n0\r\n\r\n").expect("send");
            let waits = || rig.suspends() > before;
            assert!(eventually(DEADLINE, waits), "{mode} {direction}");
            drop(raw);
            let gone = || {
                let records = records(&rig.proxy);
                records
                    .iter()
                    .any(|r| r["target"] == target && r["reason"] == "client-gone")
            };
            assert!(
                eventually(DEADLINE, gone),
                "{mode} {direction}: {:?}",
                records(&rig.proxy)
            );
        }
        for end in ["drop", "reset"] {
            let target = format!("/?sleep:5;{end}");
            let mut raw = post(&rig, &target);
            raw.send("2\r\nbc\r\n0\r\n\r\n").expect("send");
            assert!(raw.to_end().unwrap_or_default().is_empty(), "{mode} {end}");
            let reason = format!("filter-{end}");
            record(&rig.proxy, |r| r["reason"] == *reason);
        }
        assert_eq!(rig.faults("instance"), 0.0);
    }
    // A reply, while the head waits.
    let filter = ALL.replace("store: true", "store: true, bodies: whole");
    let rig = Rig::new(&web, auth.address(), &filter, "");
    let mut raw = post(&rig, "/?call:/denied;reply");
    raw.send("0\r\n\r\n").expect("send");
    assert_eq!(raw.response().expect("a response").text(), "403:no");
}

#[test]
fn ticks_wait_and_leave_what_they_fetched_in_the_store() {
    let (web, auth) = (Backend::http("web"), service());
    let filter = |script: &str| {
        ALL.replace("store: true", &format!("store: true, tick: \"{script}\""))
            .replace("[log,", "[log, tick,")
    };
    let rig = Rig::new(&web, auth.address(), &filter("call:/ok;incr:ticks"), "");
    let ticks = || rig.said("get:ticks");
    assert!(eventually(DEADLINE, || ticks() != "none"));
    let told = || rig.proxy.stderr().contains("ticked: 200:yes");
    assert!(eventually(DEADLINE, told), "{}", rig.proxy.stderr());
    // A filter that stays goes on over a reload, with the pools of the new generation.
    let yaml = rig
        .yaml
        .replace("protocol: http", "protocol: http, forwarded: none");
    let reloaded = rig.proxy.reload(&yaml);
    assert_eq!(reloaded.code, 0, "{}", reloaded.stderr);
    let before = ticks();
    assert!(eventually(DEADLINE, || ticks() != before));

    // One at a time, however long it takes; and a tick that waits ends with its filter.
    let rig = Rig::new(&web, auth.address(), &filter("incr:begun;sleep:60000"), "");
    assert!(eventually(DEADLINE, || rig.said("get:begun") != "none"));
    rig.said("sleep:300");
    assert_eq!(rig.said("get:begun"), "1");
    let without = rig.yaml.replace("filters: [waits]", "filters: []");
    let reloaded = rig.proxy.reload(&without);
    assert_eq!(reloaded.code, 0, "{}", reloaded.stderr);
    assert_eq!(rig.get("/").text(), "web");
}
