//! Good and hostile filters together under load for minutes, with a reload each second: nothing fails that should not,
//! and nothing grows. Run by `make soak`; `SOAK_SECONDS` says for how long.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Resources, Start};

use super::guest::{Guest, NEXT, Phase, SET, op, verdict};

const SECOND: Duration = Duration::from_secs(1);
/// Of what the second quarter held on average, the last may hold this much more, in percent and in bytes: an allocator
/// gives nothing back page by page.
const GROWTH_PERCENT: u64 = 5;
const GROWTH_BYTES: u64 = 4 << 20;
const GOOD_CLIENTS: usize = 4;

/// What the clients saw.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    attacks: AtomicU64,
}

/// Hostile guests, each with its way to fail.
fn hostile() -> Vec<(&'static str, Guest)> {
    let runs = |body: &str| Guest::default().logs().runs(Phase::Request, body);
    let grow = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    let fill = "(memory.fill (i32.const 65536) (i32.const 7) (i32.const 15000000))";
    vec![
        ("trap", runs("unreachable")),
        ("loop", runs("(loop $l br $l) (i32.const 0)")),
        ("memory", runs(&format!("{grow} {fill} unreachable"))),
        (
            "calls",
            runs(
                "(loop $l (call $log (i32.const 0) (i32.const 0) (i32.const 0)) (br $l)) (i32.const 0)",
            ),
        ),
        (
            "recursion",
            runs("(call $again) (i32.const 0)").item("(func $again (call $again) (call $again))"),
        ),
        (
            "garbage",
            Guest::default().answers(Phase::Response, b"\x4d\x01\x02"),
        ),
        ("late", Guest::default().runs(Phase::Log, "unreachable")),
    ]
}

/// The configuration of the `n`th reload: each has another good filter, and other hostile ones.
fn yaml(n: u64, backend: SocketAddr, good: SocketAddr, bad: &[(&str, SocketAddr)]) -> String {
    let mut text = format!(
        "workers: 2\npools: {{web: {{endpoints: [\"{backend}\"]}}}}\ntelemetry: {{access-log: off}}\nlisteners:\n  - {{name: good, bind: \"{good}\", protocol: http, pool: web, filters: [mark, {{module: \"builtin:headers\", settings: {{response: [{{set: x-generation, value: \"{n}\"}}]}}}}]}}\n"
    );
    for (name, bind) in bad {
        text += &format!(
            "  - {{name: {name}, bind: \"{bind}\", protocol: http, pool: web, filters: [{name}, {{module: \"builtin:ua-block\", settings: {{deny: [\"bad{n}*\"]}}}}]}}\n"
        );
    }
    text += &format!("filters:\n  mark: {{module: mark{}.wasm}}\n", n % 2);
    for (at, (name, _)) in bad.iter().enumerate() {
        let policy = ["fail", "bypass"][at % 2];
        // A limit that differs makes it another filter: a third of them are made anew each time.
        let output = 1024 + (n + at as u64) / 3 % 2;
        text += &format!(
            "  {name}: {{module: {name}.wasm, on-error: {policy}, capabilities: [log], limits: {{output: {output}kB}}}}\n"
        );
    }
    text
}

/// Exchanges on one connection that must all be well, through every reload.
fn good(bind: SocketAddr, load: &Load) {
    let mut raw = Raw::connect(bind);
    while !load.stop.load(Ordering::Relaxed) {
        let asked = raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        match asked.and_then(|()| raw.response()) {
            Ok(answer)
                if answer.status == 200
                    && answer.field("x-mark").is_some()
                    && answer.field("x-generation").is_some() =>
            {
                load.answered.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                eprintln!("a request failed: {other:?}");
                load.failed.fetch_add(1, Ordering::Relaxed);
                raw = Raw::connect(bind);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Requests of ever other clients to a hostile filter, whatever comes of them.
fn attack(bind: SocketAddr, load: &Load) {
    let mut n = 0u32;
    while !load.stop.load(Ordering::Relaxed) {
        let source = IpAddr::V4(Ipv4Addr::from(0x7f00_0001 + n % 40));
        let mut raw = Raw::connect_from(source, bind);
        for _ in 0..5 {
            let asked = raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            if asked.and_then(|()| raw.response()).is_err() {
                break;
            }
            load.attacks.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(10));
        }
        n = n.wrapping_add(1);
    }
}

fn mean(samples: &[Resources], of: impl Fn(&Resources) -> u64) -> u64 {
    samples.iter().map(of).sum::<u64>() / (samples.len() as u64).max(1)
}

#[test]
#[ignore = "takes minutes: make soak"]
fn nothing_grows() {
    let seconds = std::env::var("SOAK_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(600);
    let backend = Backend::http("web1");
    let mut addresses = Addresses::new();
    let bind = addresses.free();
    let guests = hostile();
    let bad: Vec<_> = guests
        .iter()
        .map(|(name, _)| (*name, addresses.free()))
        .collect();
    let mut start = Start::new();
    for n in ["0", "1"] {
        let block = verdict(NEXT, &[op(SET, "x-mark", n.as_bytes())]);
        let guest = Guest::default().answers(Phase::Response, &block);
        start = start.file(&format!("mark{n}.wasm"), guest.build());
    }
    for (name, guest) in &guests {
        start = start.file(&format!("{name}.wasm"), guest.build());
    }
    let proxy = start.run(&yaml(0, backend.address(), bind, &bad));
    let load = Load::default();
    let mut samples = Vec::new();
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        for _ in 0..GOOD_CLIENTS {
            scope.spawn(|| good(bind, &load));
        }
        for &(_, bind) in &bad {
            let load = &load;
            scope.spawn(move || attack(bind, load));
        }
        let end = Instant::now() + SECOND * seconds;
        let mut n = 0;
        while Instant::now() < end {
            let next = Instant::now() + SECOND;
            n += 1;
            let begun = Instant::now();
            let output = proxy.reload(&yaml(n, backend.address(), bind, &bad));
            slowest = slowest.max(begun.elapsed());
            if output.code != 0 {
                load.stop.store(true, Ordering::Relaxed);
                panic!("reload {n}: {}", output.stderr);
            }
            samples.push(proxy.resources());
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        load.stop.store(true, Ordering::Relaxed);
    });
    let quarters: Vec<_> = samples.chunks(samples.len().div_ceil(4)).collect();
    for (at, quarter) in quarters.iter().enumerate() {
        eprintln!(
            "quarter {}: {} KiB resident, {} descriptors, {} threads",
            at + 1,
            mean(quarter, |r| r.resident_bytes) / 1024,
            mean(quarter, |r| r.descriptors as u64),
            mean(quarter, |r| r.threads),
        );
    }
    let (answered, failed) = (load.answered.into_inner(), load.failed.into_inner());
    let attacks = load.attacks.into_inner();
    eprintln!(
        "{} reloads, the slowest {slowest:?}; {answered} good exchanges, {failed} failed; {attacks} attacks",
        samples.len()
    );
    let metrics = proxy.admin("GET", "/metrics").expect("metrics").text();
    let told = ["faults_total", "uncalled_total", "instances"];
    for line in metrics.lines().filter(|line| {
        told.iter()
            .any(|name| line.starts_with(&format!("sluicegate_filter_{name}")))
            && !line.ends_with(" 0")
    }) {
        eprintln!("{line}");
    }
    assert_eq!(failed, 0);
    assert!(answered > 0 && attacks > 0);
    assert_eq!(quarters.len(), 4, "SOAK_SECONDS is at least 4");
    let (second, last) = (quarters[1], quarters[3]);
    let resident = |quarter: &[Resources]| mean(quarter, |r| r.resident_bytes);
    let most = resident(second) * (100 + GROWTH_PERCENT) / 100 + GROWTH_BYTES;
    assert!(
        resident(last) <= most,
        "{} bytes, at most {most}",
        resident(last)
    );
    let descriptors = |quarter: &[Resources]| mean(quarter, |r| r.descriptors as u64);
    assert!(descriptors(last) <= descriptors(second) + 8, "descriptors");
    let threads = |quarter: &[Resources]| mean(quarter, |r| r.threads);
    assert!(threads(last) <= threads(second), "threads");
}
