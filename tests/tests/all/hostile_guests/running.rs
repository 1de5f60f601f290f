//! At run time: the exchange of a guest that misbehaves ends as `on-error` says, and it alone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Proxy, Start};
use sluicegate_tests::wait::{DEADLINE, until};

use super::super::guest::{Guest, NEXT, Phase, REPLY, SET, op, verdict};
use super::super::rig::records;
use super::answers::{bad_fields, bad_verdicts};
use super::{APPEND, GROW, answering, bad_for_root};

const MEBIBYTE: u64 = 1 << 20;

/// What one guest does in one phase, and the kind of fault that is; none when it is none.
struct Case {
    name: &'static str,
    phase: Phase,
    guest: Guest,
    limits: &'static str,
    kind: Option<&'static str>,
}

/// A body of the phase's function that ends in a fault of this kind.
fn runs(phase: Phase, name: &'static str, body: &str, kind: &'static str) -> Case {
    let guest = match phase {
        Phase::Request | Phase::Response | Phase::Log => {
            bad_for_root(Guest::default(), phase, body)
        }
        _ => Guest::default().first_bytes(1).runs(phase, body),
    };
    Case {
        name,
        phase,
        guest,
        limits: "",
        kind: Some(kind),
    }
}

/// A verdict that is none.
fn answers(phase: Phase, name: &'static str, block: &[u8]) -> Case {
    let mut guest = Guest::default().first_bytes(1);
    let pair = guest.pair(block);
    let body = format!("(i32.const {pair})");
    let guest = match phase {
        Phase::Request | Phase::Response => bad_for_root(guest, phase, &body),
        _ => guest.runs(phase, &body),
    };
    Case {
        name,
        phase,
        guest,
        limits: "",
        kind: Some("verdict"),
    }
}

impl Case {
    fn item(mut self, item: &str) -> Self {
        self.guest = self.guest.item(item);
        self
    }

    fn limits(mut self, limits: &'static str) -> Self {
        self.limits = limits;
        self
    }

    /// Whether its exchange fails when that is the policy: the log phase comes when the answer has been given.
    fn fails(&self) -> bool {
        self.kind.is_some() && self.phase != Phase::Log
    }

    fn is_stream(&self) -> bool {
        !matches!(self.phase, Phase::Request | Phase::Response | Phase::Log)
    }
}

const LOOP: &str = "(loop $l br $l) (i32.const 0)";

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for phase in [Phase::Request, Phase::Response] {
        all.push(runs(phase, "trap", "unreachable", "trap"));
        all.push(runs(phase, "endless loop", LOOP, "deadline"));
    }
    all.push(runs(Phase::Log, "trap at the end", "unreachable", "trap"));
    let endless = "(loop $l br $l)";
    all.push(runs(Phase::Log, "endless log phase", endless, "deadline"));
    for phase in [Phase::Connect, Phase::ClientHello, Phase::FirstBytes] {
        all.push(runs(phase, "trap", "unreachable", "trap"));
        all.push(runs(phase, "endless loop", LOOP, "deadline"));
        all.push(answers(phase, "a reply to a stream", &[REPLY]));
        let edit = verdict(NEXT, &[op(SET, "x-a", b"b")]);
        all.push(answers(phase, "a field of a stream", &edit));
    }
    let request = |name, body: &str, kind| runs(Phase::Request, name, body, kind);
    all.extend([
        request("endless recursion", "(call $again) (i32.const 0)", "trap")
            .item("(func $again (call $again) (call $again))"),
        // The stack is not what ends this one.
        request("endless tail calls", "(return_call $tail)", "deadline")
            .item("(func $tail (result i32) (return_call $tail))"),
        request("memory past the cap", &format!("{GROW} unreachable"), "memory"),
        request("fills in a loop", &format!("{GROW} (loop $l {} (br $l)) (i32.const 0)", fill()), "deadline"),
        // Compiled code looks at the deadline where loops and functions begin: here there is neither.
        request("fills one after the other", &format!("{GROW} {} (i32.const 0)", fill().repeat(4000)), "deadline"),
        request("copies one after the other", &format!("{GROW} {} (i32.const 0)", copy().repeat(4000)), "deadline"),
        request("fill past the end", "(memory.fill (i32.const 0) (i32.const 1) (i32.const -1)) (i32.const 0)", "trap"),
        request(
            "a table without end",
            "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable",
            "trap",
        )
        .item("(table $t 1 funcref)"),
        request("load out of bounds", "(i32.load (i32.const -8))", "trap"),
        request("indirect call of nothing", "(call_indirect (type $f) (i32.const 3))", "trap")
            .item("(type $f (func (result i32))) (table 4 funcref)"),
        request("integer division by zero", "(i32.div_u (i32.const 1) (i32.const 0))", "trap"),
        request("the answer's address is outside", "(i32.const -4)", "verdict"),
        request("the answer lies outside", &answering(u32::MAX - 100, 64), "verdict"),
        request("the answer ends outside", &answering(65536, 3 << 16), "verdict"),
        request("an answer of 2 GiB", &answering(1024, 1 << 31), "verdict"),
        request("an answer over its limit", &format!("(drop (memory.grow (i32.const 64))) {}", answering(65536, 3_000_000)), "output"),
        request(
            "a reply of 100 MB",
            &format!("(drop (memory.grow (i32.const 2000))) (i32.store8 (i32.const 65536) (i32.const 1)) {}", answering(65536, 100 << 20)),
            "output",
        )
        .limits("memory: 256MiB"),
    ]);
    all.push(Case {
        name: "memory up to the cap",
        phase: Phase::Request,
        guest: {
            let mut guest = Guest::default();
            let next = guest.pair(&[]);
            bad_for_root(guest, Phase::Request, &format!("{GROW} (i32.const {next})"))
        },
        limits: "",
        kind: None,
    });
    // The host calls it to let the guest take its answer back.
    let loops_after =
        "(func (export \"cabi_post_sluicegate:filter/http-request@0.1.0#on-request\") (param i32)
        (if (global.get $bad) (then (loop $l br $l))))
        (global $bad (mut i32) (i32.const 0))";
    let body = format!("(global.set $bad (i32.const 1)) {}", answering(1024, 0));
    all.push(request("endless loop after the answer", &body, "deadline").item(loops_after));
    for (name, block) in bad_verdicts() {
        all.push(answers(Phase::Request, name, &block));
    }
    for (name, field, value) in bad_fields() {
        let block = verdict(NEXT, &[op(SET, field, value)]);
        all.push(answers(Phase::Response, name, &block));
        let reply = verdict(REPLY, &[op(APPEND, field, value)]);
        all.push(answers(Phase::Request, name, &reply));
    }
    all
}

fn fill() -> &'static str {
    "(memory.fill (i32.const 65536) (i32.const 7) (i32.const 15000000))"
}

fn copy() -> &'static str {
    "(memory.copy (i32.const 65537) (i32.const 65536) (i32.const 15000000))"
}

/// Each case has a listener where the guest's policy is `fail` and one where it is `bypass`.
struct Bench {
    proxy: Proxy,
    binds: Vec<[SocketAddr; 2]>,
    good: SocketAddr,
    /// Kept until the proxy has gone.
    _backends: [Backend; 2],
}

fn bench(cases: &[Case]) -> Bench {
    let backends = [Backend::http("web1"), Backend::echo()];
    let mut addresses = Addresses::new();
    let good = addresses.free();
    let binds: Vec<_> = cases
        .iter()
        .map(|_| [addresses.free(), addresses.free()])
        .collect();
    let mut start = Start::new();
    let mut filters = String::from("filters:\n");
    let mut listeners = format!(
        "listeners:\n  - {{name: good, bind: \"{good}\", protocol: http, pool: web, filters: [{{module: \"builtin:headers\", settings: {{response: [{{set: x-good, value: \"1\"}}]}}}}]}}\n"
    );
    for (n, (case, bind)) in cases.iter().zip(&binds).enumerate() {
        start = start.file(&format!("g{n}.wasm"), case.guest.build());
        let (protocol, pool) = match case.is_stream() {
            true => ("tcp", "echo"),
            false => ("http", "web"),
        };
        for (policy, bind) in ["fail", "bypass"].iter().zip(bind) {
            filters += &format!(
                "  {policy}{n}: {{module: g{n}.wasm, on-error: {policy}, limits: {{{}}}}}\n",
                case.limits
            );
            listeners += &format!(
                "  - {{name: {policy}{n}, bind: \"{bind}\", protocol: {protocol}, pool: {pool}, filters: [{policy}{n}]}}\n"
            );
        }
    }
    let yaml = format!(
        "workers: 1\npools: {{web: {{endpoints: [\"{}\"]}}, echo: {{endpoints: [\"{}\"]}}}}\n{filters}{listeners}telemetry: {{access-log: {{format: json}}}}\n",
        backends[0].address(),
        backends[1].address(),
    );
    Bench {
        proxy: start.run(&yaml),
        binds,
        good,
        _backends: backends,
    }
}

/// One exchange after the other on one connection to a listener that no hostile guest belongs to, until told to stop.
fn neighbour(good: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) -> Result<(), String> {
    let mut raw = Raw::connect(good);
    while !stop.load(Ordering::Relaxed) {
        let asked = raw.send("GET /neighbour HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = asked
            .and_then(|()| raw.response())
            .map_err(|why| why.to_string())?;
        if answer.status != 200 || answer.field("x-good") != Some("1") {
            return Err(answer.head);
        }
        answered.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn each_fault_ends_its_own_exchange_and_nothing_else() {
    let cases = cases();
    let bench = bench(&cases);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut failures = Vec::new();
    let mut before = None;
    let (beside, rounds) = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| neighbour(bench.good, &stop, &answered));
        // The first round is warming up: code and buffers that stay.
        for round in 0..3 {
            for (n, case) in cases.iter().enumerate() {
                if let Err(why) = check(&bench, n, case) {
                    failures.push(format!(
                        "{} ({:?}), round {round}: {why}",
                        case.name, case.phase
                    ));
                }
            }
            if round == 0 {
                before = Some(bench.proxy.resources());
            }
        }
        let rounds = answered.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        (neighbour.join().expect("the neighbour's thread"), rounds)
    });
    let metrics = bench
        .proxy
        .admin("GET", "/metrics")
        .expect("metrics")
        .text();
    let failing = cases.iter().filter(|case| case.fails()).count();
    let written = reasons(&bench.proxy, failing * 6);
    for (n, case) in cases.iter().enumerate() {
        let mut counts = Vec::new();
        for policy in ["fail", "bypass"] {
            let begin = format!("sluicegate_filter_faults_total{{filter=\"{policy}{n}\",kind=");
            let faults = metrics.lines().filter_map(|line| line.strip_prefix(&begin));
            counts.extend(
                faults
                    .filter(|rest| !rest.ends_with(" 0"))
                    .map(str::to_owned),
            );
        }
        let wanted: Vec<String> = case
            .kind
            .iter()
            .map(|kind| format!("\"{kind}\"}} 6"))
            .collect();
        if counts != [wanted.clone(), wanted.clone()].concat() {
            failures.push(format!(
                "{} ({:?}): {counts:?} and not twice {wanted:?}",
                case.name, case.phase
            ));
        }
        let reasons = written
            .get(&format!("fail{n}"))
            .cloned()
            .unwrap_or_default();
        let faults = reasons
            .iter()
            .filter(|reason| *reason == "filter-fault")
            .count();
        let wanted = if case.fails() { 6 } else { 0 };
        if faults != wanted {
            failures.push(format!(
                "{} ({:?}): {reasons:?} in the access log",
                case.name, case.phase
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(beside, Ok(()), "after {rounds} exchanges beside the faults");
    assert!(rounds > 0);
    let before = before.expect("a first round");
    bench.proxy.assert_nothing_left(before, 48 * MEBIBYTE);
}

/// Two faults under each policy, each with an exchange that is well on the same connection after it.
fn check(bench: &Bench, n: usize, case: &Case) -> Result<(), String> {
    let [fail, bypass] = bench.binds[n];
    if case.is_stream() {
        let opening = opening(case.phase);
        for _ in 0..2 {
            let got = session(fail, &opening).map_err(|why| format!("fail: {why}"))?;
            expect(got, Vec::new(), "fail")?;
            let got = session(bypass, &opening).map_err(|why| format!("bypass: {why}"))?;
            expect(&got, &opening, "bypass")?;
        }
        return Ok(());
    }
    let failing = match case.fails() {
        true => (500, "500 Internal Server Error (filter-fault)"),
        false => (200, "web1"),
    };
    for (bind, (status, text)) in [(fail, failing), (bypass, (200, "web1"))] {
        let mut raw = Raw::connect(bind);
        let mut ask = |target: &str| {
            raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .and_then(|()| raw.response())
                .map_err(|why| format!("{target}: {why}"))
        };
        for _ in 0..2 {
            let answer = ask("/")?;
            let text_got = answer.text().lines().next().unwrap_or_default().to_owned();
            expect((answer.status, text_got.as_str()), (status, text), "/")?;
            let details = answer.field("proxy-status").unwrap_or_default();
            expect(
                details.contains("filter-fault"),
                status == 500,
                "Proxy-Status",
            )?;
            let answer = ask("/good")?;
            expect(
                (answer.status, answer.text().as_str()),
                (200, "web1"),
                "/good",
            )?;
        }
    }
    Ok(())
}

/// The reasons in the access log, empty for none, by listener; once there are as many faults as there should be.
fn reasons(proxy: &Proxy, faults: usize) -> HashMap<String, Vec<String>> {
    let faulty = |all: &[Value]| all.iter().filter(|r| r["reason"] == "filter-fault").count();
    let written = || {
        let all = records(proxy);
        (faulty(&all) >= faults).then_some(all)
    };
    let all = until(DEADLINE, written).unwrap_or_else(|| records(proxy));
    let mut by_listener: HashMap<String, Vec<String>> = HashMap::new();
    for record in all {
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        by_listener
            .entry(text("listener"))
            .or_default()
            .push(text("reason"));
    }
    by_listener
}

fn expect<T: PartialEq + std::fmt::Debug>(got: T, wanted: T, what: &str) -> Result<(), String> {
    match got == wanted {
        true => Ok(()),
        false => Err(format!("{what}: {got:?}, not {wanted:?}")),
    }
}

/// What a client begins a session with, so that the phase comes.
fn opening(phase: Phase) -> Vec<u8> {
    match phase {
        Phase::ClientHello => client_hello(),
        _ => b"hello".to_vec(),
    }
}

/// What comes back of as many bytes as the client sent.
fn session(bind: SocketAddr, opening: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut raw = Raw::connect(bind);
    raw.send(opening)?;
    match raw.exactly(opening.len()) {
        Err(why) if why.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        other => other,
    }
}

fn client_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "a.test".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a greeting");
    hello
}
