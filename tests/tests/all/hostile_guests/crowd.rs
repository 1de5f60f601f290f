//! Hostile guests under load: what shares their worker keeps its latency, and the process its memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Proxy, Start};

use super::super::guest::{Guest, Phase, SLEEP, SUSPEND, op, verdict};
use super::GROW;

/// The default of `limits.deadline`.
const CALL: Duration = Duration::from_millis(10);
const BOUND: Duration = Duration::from_millis(5 * 10 + 50);
/// Clients that send what the guest misbehaves on, as fast as they get answers. Each can be served once whenever the
/// client beside them waits, which is twice in an exchange: for the request and for the endpoint's answer.
const ATTACKERS: usize = 1;
/// Exchanges of the client beside them, and the pause between two.
const EXCHANGES: usize = 100;
const PAUSE: Duration = Duration::from_millis(2);
const MEBIBYTE: u64 = 1 << 20;
/// One worker, two to spare, four being taken apart, of 16 MiB each; and what allocators keep.
const MEMORY: u64 = (7 * 16 + 64) * MEBIBYTE;

struct Case {
    name: &'static str,
    guest: Guest,
    /// The kind of fault that is counted; none when the guest stays within its limits.
    kind: Option<&'static str>,
}

/// Suspends for no time at all, again and again.
fn suspending() -> Guest {
    let mut guest = Guest::default();
    let again = verdict(SUSPEND, &[op(SLEEP, "", &0u32.to_le_bytes())]);
    let again = guest.pair(&again);
    guest
        .runs(Phase::Request, &format!("i32.const {again}"))
        .item(&format!(
            r#"(func (export "sluicegate:filter/resume@0.1.0#on-resume") (param i32 i32) (result i32)
                 i32.const {again})"#
        ))
}

/// Counts 900 times in each call, each time for another value of a label.
fn labelling() -> Guest {
    let mut guest = Guest::default()
        .import(
            r#"(import "sluicegate:filter/metrics@0.1.0" "define"
                 (func $define (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#,
        )
        .import(r#"(import "sluicegate:filter/metrics@0.1.0" "add" (func $add (param i32 i32 i32 f64)))"#);
    let (name, label, value) = (
        guest.put(b"flood"),
        guest.put(b"id"),
        guest.put(b"aaaaaaaa"),
    );
    let (labels, values) = (guest.words(&[label, 2]), guest.words(&[value, 8]));
    guest
        .item("(global $flood (mut i32) (i32.const 0)) (global $next (mut i32) (i32.const 0)) (global $at (mut i32) (i32.const 0))")
        .configures(&format!(
            "(global.set $flood (call $define (i32.const 0) (i32.const {name}) (i32.const 5)
               (i32.const {name}) (i32.const 5) (i32.const {labels}) (i32.const 1) (i32.const 0) (i32.const 0)))
             i32.const $plan"
        ))
        .runs(
            Phase::Request,
            &format!(
                "(local.set $n (i32.const 900))
                 (loop $l
                   (global.set $next (i32.add (global.get $next) (i32.const 1)))
                   (global.set $at (i32.const 0))
                   (loop $digit
                     (i32.store8 (i32.add (i32.const {value}) (global.get $at))
                       (i32.add (i32.const 97) (i32.and (i32.const 15)
                         (i32.shr_u (global.get $next) (i32.mul (i32.const 4) (global.get $at))))))
                     (global.set $at (i32.add (global.get $at) (i32.const 1)))
                     (br_if $digit (i32.lt_u (global.get $at) (i32.const 8))))
                   (call $add (global.get $flood) (i32.const {values}) (i32.const 1) (f64.const 1))
                   (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
                 (i64.store (i32.const 512) (i64.const 0)) i32.const 512"
            ),
        )
}

fn cases() -> Vec<Case> {
    let case = |name, body: &str, kind| Case {
        name,
        guest: Guest::default().logs().runs(Phase::Request, body),
        kind,
    };
    let copies = "(memory.copy (i32.const 65537) (i32.const 65536) (i32.const 15000000))";
    let mut recursion = case(
        "deep recursion",
        "(call $again) (i32.const 0)",
        Some("trap"),
    );
    recursion.guest = recursion
        .guest
        .item("(func $again (call $again) (call $again))");
    let mut table = case(
        "tables that grow and are filled",
        "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
         (loop $l (table.fill $t (i32.const 0) (ref.null func) (table.size $t)) (br $l)) (i32.const 0)",
        Some("deadline"),
    );
    table.guest = table.guest.item("(table $t 1 funcref)");
    vec![
        case(
            "an endless loop",
            "(loop $l br $l) (i32.const 0)",
            Some("deadline"),
        ),
        case(
            "copies of all its memory",
            &format!("{GROW} {} (i32.const 0)", copies.repeat(4000)),
            Some("deadline"),
        ),
        case(
            "memory that is taken and touched",
            &format!(
                "{GROW} (memory.fill (i32.const 65536) (i32.const 7) (i32.const 15000000)) unreachable"
            ),
            Some("memory"),
        ),
        case(
            "a storm of calls into the proxy",
            "(loop $l (call $log (i32.const 0) (i32.const 0) (i32.const 0)) (br $l)) (i32.const 0)",
            Some("host-calls"),
        ),
        case(
            "a flood of log lines",
            "(local.set $n (i32.const 900))
             (loop $l
               (call $log (i32.const 1) (i32.const 4096) (i32.const 200))
               (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
             (i32.const 0)",
            None,
        ),
        table,
        recursion,
        Case {
            name: "a storm of suspends",
            guest: suspending(),
            kind: Some("suspends"),
        },
        Case {
            name: "a flood of label values",
            guest: labelling(),
            kind: None,
        },
    ]
}

/// One exchange after the other on a connection of its own, until told to stop; those that end in a close begin anew.
fn attack(bind: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let mut raw = Raw::connect(bind);
    while !stop.load(Ordering::Relaxed) {
        let asked = raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        match asked.and_then(|()| raw.response()) {
            Ok(answer) if answer.field("connection").is_none() => {}
            _ => raw = Raw::connect(bind),
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// How late the machine wakes a thread that does nothing but sleep: what no proxy can be blamed for.
fn lateness(stop: &AtomicBool) -> Vec<Duration> {
    let mut late = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        std::thread::sleep(PAUSE);
        late.push(begun.elapsed().saturating_sub(PAUSE));
    }
    late
}

/// The latencies of exchanges on a listener that no hostile guest belongs to.
fn beside(good: SocketAddr) -> Vec<Duration> {
    let mut raw = Raw::connect(good);
    let exchange = |_| {
        std::thread::sleep(PAUSE);
        let begun = Instant::now();
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
        let answer = raw.response().expect("a response");
        assert_eq!((answer.status, answer.field("x-good")), (200, Some("1")));
        begun.elapsed()
    };
    (0..EXCHANGES).map(exchange).collect()
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    let at = (times.len() * 99 / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

/// The 99th percentile beside `attackers` of `bad`, that of the machine's lateness, and how often it was attacked.
fn measure(good: SocketAddr, bad: SocketAddr) -> (Duration, Duration, u64) {
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..ATTACKERS {
            scope.spawn(|| attack(bad, &stop, &sent));
        }
        let late = scope.spawn(|| lateness(&stop));
        let measured = scope.spawn(move || beside(good)).join();
        stop.store(true, Ordering::Relaxed);
        let late = late.join().expect("the sleeper");
        let sent = sent.load(Ordering::Relaxed);
        (p99(measured.expect("all exchanges")), p99(late), sent)
    })
}

fn faults(proxy: &Proxy, filter: &str) -> Vec<String> {
    let begin = format!("sluicegate_filter_faults_total{{filter=\"{filter}\",kind=");
    let metrics = proxy.admin("GET", "/metrics").expect("metrics").text();
    metrics
        .lines()
        .filter_map(|line| line.strip_prefix(&begin))
        .filter(|rest| !rest.ends_with(" 0"))
        .map(|rest| rest.split('"').nth(1).unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn neighbours_keep_their_latency_and_the_process_its_memory() {
    let backend = Backend::http("web1");
    let cases = cases();
    let mut addresses = Addresses::new();
    let good = addresses.free();
    let binds: Vec<_> = cases.iter().map(|_| addresses.free()).collect();
    let mut start = Start::new();
    let mut yaml = format!(
        "workers: 1\npools: {{web: {{endpoints: [\"{}\"]}}}}\ntelemetry: {{access-log: off}}\nlisteners:\n  - {{name: good, bind: \"{good}\", protocol: http, pool: web, filters: [{{module: \"builtin:headers\", settings: {{response: [{{set: x-good, value: \"1\"}}]}}}}]}}\n",
        backend.address()
    );
    for (n, (case, bind)) in cases.iter().zip(&binds).enumerate() {
        start = start.file(&format!("g{n}.wasm"), case.guest.build());
        yaml += &format!(
            "  - {{name: l{n}, bind: \"{bind}\", protocol: http, pool: web, filters: [f{n}]}}\n"
        );
    }
    yaml += "filters:\n";
    for n in 0..cases.len() {
        yaml += &format!("  f{n}: {{module: g{n}.wasm, capabilities: [log, metrics]}}\n");
    }
    let proxy = start.run(&yaml);
    let mut before = proxy.settled();
    // Connections to the endpoint that are kept: one for each client there was at a time.
    before.descriptors += 1 + ATTACKERS;
    let mut failures = Vec::new();
    for (n, (case, &bind)) in cases.iter().zip(&binds).enumerate() {
        // On a machine that does other things as well, the best of a few tells what the proxy does.
        let mut tries = Vec::new();
        let of = |family: &str| {
            let series = format!("sluicegate_filter_{family}_total{{filter=\"f{n}\"}}");
            proxy.metric(&series)
        };
        // On a busy machine a call takes longer by the clock than the processor time that its deadline counts.
        let call = || Duration::from_secs_f64(of("seconds") / of("calls").max(1.0));
        let well = (0..3).any(|_| {
            let (latency, late, sent) = measure(good, bind);
            tries.push((latency, late, sent));
            latency <= BOUND.max(8 * call()) + 4 * late && sent > 0
        });
        let call = call();
        eprintln!(
            "{}: {call:?} a call; (p99, lateness of the machine, attacks) {tries:?}",
            case.name
        );
        if !well {
            failures.push(format!("{}: {tries:?}, more than {BOUND:?}", case.name));
        }
        let resident = proxy.resources().resident_bytes;
        if resident > before.resident_bytes + MEMORY {
            failures.push(format!("{}: {} MiB", case.name, resident / MEBIBYTE));
        }
        let kinds = faults(&proxy, &format!("f{n}"));
        let wanted: Vec<_> = case.kind.iter().map(|kind| kind.to_string()).collect();
        // Attacks come faster than instances of some can be made.
        if kinds
            .iter()
            .any(|kind| !wanted.contains(kind) && kind != "instance" && kind != "deadline")
            || kinds.is_empty() && !wanted.is_empty()
        {
            failures.push(format!("{}: faults {kinds:?}, not {wanted:?}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let metrics = proxy.admin("GET", "/metrics").expect("metrics").text();
    let values = metrics.matches("_flood_total{").count();
    assert!(
        (1000..=1001).contains(&values),
        "{values} values of a label"
    );
    assert!(CALL * 5 < BOUND);
    // Every instance that faulted is gone; the pool of instances keeps some pages of theirs.
    proxy.assert_nothing_left(before, MEMORY);
}

#[test]
fn loads_that_fail_do_not_hold_exchanges_up() {
    let backend = Backend::http("web1");
    let good = Addresses::new().free();
    let listener = format!(
        "workers: 1\npools: {{web: {{endpoints: [\"{}\"]}}}}\nlisteners:\n  - {{name: good, bind: \"{good}\", protocol: http, pool: web, filters: [{{module: \"builtin:headers\", settings: {{response: [{{set: x-good, value: \"1\"}}]}}}}",
        backend.address()
    );
    let spins = Guest::default().item("(func $begin (loop $l br $l)) (start $begin)");
    let proxy = Start::new()
        .file("spins.wasm", spins.build())
        .file("plain.wasm", Guest::default().build())
        .run(&format!("{listener}]}}\n"));
    let bad = |keys: &str| format!("{listener}, {{{keys}}}]}}\n");
    let huge = format!(
        "module: plain.wasm, settings: {{a: [{}]}}",
        vec!["\"0123456789abcdef\""; 500_000].join(",")
    );
    assert!(huge.len() > 9_000_000);
    for (name, yaml, code) in [
        (
            "a start function that loops",
            bad("module: spins.wasm, limits: {configure-deadline: 500ms}"),
            78,
        ),
        ("settings of 10 MB", bad(&huge), 78),
    ] {
        let reached = (0..3).any(|_| {
            let stop = AtomicBool::new(false);
            let (latency, late) = std::thread::scope(|scope| {
                let late = scope.spawn(|| lateness(&stop));
                let measured = scope.spawn(move || beside(good));
                let output = proxy.reload(&yaml);
                assert_eq!(output.code, code, "{name}: {}", output.stderr);
                let measured = measured.join().expect("all exchanges");
                stop.store(true, Ordering::Relaxed);
                (p99(measured), p99(late.join().expect("the sleeper")))
            });
            eprintln!("{name}: p99 {latency:?}, the machine is late by {late:?}");
            latency <= BOUND + 4 * late
        });
        assert!(reached, "{name}");
        assert_eq!(proxy.metric("sluicegate_config_generation"), 1.0);
    }
}
