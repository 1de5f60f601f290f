//! Hot swapping under load: no failed request, no closed connection, no growth.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::eventually;

use super::guest::{Guest, NEXT, Phase, SET, op, verdict};
use super::rig::Plan;

const CONNECTIONS: usize = 64;
const SWAPS: u32 = 200;
const WARM_UP: u32 = 40;
const PACE: Duration = Duration::from_millis(100);

/// A guest that marks responses with `mark`.
fn marking(mark: &str) -> Vec<u8> {
    let block = verdict(NEXT, &[op(SET, "x-module", mark.as_bytes())]);
    Guest::default().answers(Phase::Response, &block).build()
}

/// What the generator saw.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// One keep-alive connection that asks again and again; any failure ends it and is counted.
fn generate(bind: std::net::SocketAddr, load: &Load) {
    let mut raw = Raw::connect(bind);
    while !load.stop.load(Ordering::Relaxed) {
        let asked = raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        match asked.and_then(|()| raw.response()) {
            Ok(answer)
                if answer.status == 200
                    && answer.body == b"web"
                    && answer.field("connection").is_none()
                    && answer.field("x-module").is_some()
                    && answer.field("x-setting").is_some() =>
            {
                load.answered.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                eprintln!("a request failed: {other:?}");
                load.failed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn modules_settings_and_pools_are_replaced_under_load_without_a_trace() {
    let backends = [Backend::http("web"), Backend::http("web")];
    let plan = |n: u32| {
        let endpoints: Vec<_> = match n % 3 {
            0 => vec![backends[0].address()],
            1 => vec![backends[1].address()],
            _ => backends.iter().map(Backend::address).collect(),
        };
        Plan::new(&endpoints)
            .listener(&format!(
                "filters: [{{module: f.wasm}}, {{module: \"builtin:headers\", settings: {{response: [{{set: x-setting, value: \"{n}\"}}]}}}}]"
            ))
            .top("telemetry: {access-log: off}")
    };
    let modules = [marking("even"), marking("odd")];
    let rig = plan(0).run_with(Start::new().file("f.wasm", &modules[0]));
    let load = Load::default();
    let mut resident = Vec::new();
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| generate(rig.bind, &load));
        }
        // Ends the generators when an assertion below fails, too: a scope waits for its threads.
        let _stop = StopOnDrop(&load.stop);
        let mut probe = rig.raw();
        let started = Instant::now();
        for n in 1..=SWAPS {
            // Paced over twenty seconds, so that each generation serves for a while.
            std::thread::sleep((started + PACE * n).saturating_duration_since(Instant::now()));
            let mark = ["even", "odd"][(n % 2) as usize];
            let module = rig.proxy.directory().join("f.new");
            std::fs::write(&module, &modules[(n % 2) as usize]).expect("module");
            std::fs::rename(&module, rig.proxy.directory().join("f.wasm")).expect("rename");
            let began = Instant::now();
            let output = rig.proxy.reload(&plan(n).yaml(rig.bind));
            assert_eq!(output.code, 0, "swap {n}: {}", output.stderr);
            slowest = slowest.max(began.elapsed());
            let visible = eventually(Duration::from_secs(1), || {
                probe
                    .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    .expect("send");
                let answer = probe.response().expect("response");
                answer.field("x-module") == Some(mark)
                    && answer.field("x-setting") == Some(&n.to_string())
            });
            assert!(visible, "swap {n} does not show within a second");
            if n >= WARM_UP {
                resident.push(rig.proxy.resources());
            }
        }
    });
    let (answered, failed) = (
        load.answered.load(Ordering::SeqCst),
        load.failed.load(Ordering::SeqCst),
    );
    assert_eq!(failed, 0, "of {answered}");
    assert!(answered > 1000, "{answered} requests are no load");
    assert_eq!(
        rig.proxy
            .metric("sluicegate_connections_accepted_total{listener=\"web\"}"),
        CONNECTIONS as f64 + 1.0
    );
    rig.settles();
    let quarter = resident.len() / 4;
    let peak = |part: &[sluicegate_tests::proxy::Resources]| {
        let most = |of: fn(&sluicegate_tests::proxy::Resources) -> u64| {
            part.iter().map(of).max().unwrap_or(0)
        };
        (
            most(|r| r.resident_bytes),
            most(|r| r.descriptors as u64),
            most(|r| r.threads),
        )
    };
    let (before, after) = (
        peak(&resident[..quarter]),
        peak(&resident[resident.len() - quarter..]),
    );
    eprintln!(
        "{answered} requests over {SWAPS} swaps, slowest {slowest:?}; before {before:?}, after {after:?}"
    );
    assert!(
        after.0 <= before.0 + before.0 / 10,
        "memory grew: {before:?}, {after:?}"
    );
    // How many upstream connections are open at a moment depends on how many requests run at it: at most one for each
    // client's. A leak of one connection a swap would show many times over.
    assert!(
        after.1 <= before.1 + CONNECTIONS as u64,
        "descriptors grew: {before:?}, {after:?}"
    );
    assert!(
        after.2 <= before.2 + 1,
        "threads grew: {before:?}, {after:?}"
    );
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
