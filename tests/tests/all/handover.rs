//! What instances keep over a reload that replaces their filter.

use std::sync::atomic::{AtomicBool, Ordering};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::proxy::Start;

use super::guest::{BODY, Guest, Phase, REPLY, op, verdict};
use super::rig::{Plan, Rig};

/// Replies with the number of its requests, as four bytes. It saves `size` bytes: a version and that number.
fn counter(version: u32, size: u32) -> Vec<u8> {
    let mut guest = Guest::default();
    let reply = guest.put(&verdict(REPLY, &[op(BODY, "", &[0; 4])]));
    let reason = guest.put(b"another version");
    guest
        .item("(global $count (mut i32) (i32.const 0))")
        .item(&format!(
            r#"(func (export "sluicegate:filter/handover@0.1.0#save") (result i32)
              (i32.store (i32.const 131072) (i32.const {version}))
              (i32.store (i32.const 131076) (global.get $count))
              (i32.store (i32.const 512) (i32.const 131072))
              (i32.store (i32.const 516) (i32.const {size})) i32.const 512)"#
        ))
        .item(&format!(
            r#"(func (export "sluicegate:filter/handover@0.1.0#restore") (param i32 i32) (result i32)
              (global.set $heap (i32.const 65536))
              (i32.store (i32.const 512) (i32.const {reason}))
              (i32.store (i32.const 516) (i32.const 15))
              (if (i32.eq (i32.load (local.get 0)) (i32.const {version})) (then
                (global.set $count (i32.load offset=4 (local.get 0)))
                (i32.store (i32.const 516) (i32.const 0))))
              i32.const 512)"#
        ))
        .runs(
            Phase::Request,
            &format!(
                "(global.set $count (i32.add (global.get $count) (i32.const 1)))
                 (i32.store (i32.const {}) (global.get $count))
                 (i32.store (i32.const 512) (i32.const {reply}))
                 (i32.store (i32.const 516) (i32.const 13)) i32.const 512",
                reply + 9
            ),
        )
        .build()
}

fn plan(backend: &Backend, module: &str, n: u32) -> Plan {
    Plan::new(&[backend.address()])
        .listener("filters: [counter]")
        .top(&format!(
            "filters: {{counter: {{module: {module}, settings: {{n: {n}}}, limits: {{state: 64KiB}}}}}}\nworkers: 1"
        ))
}

fn run(backend: &Backend, start: Start) -> Rig {
    plan(backend, "f.wasm", 0).run_with(start.file("f.wasm", counter(1, 8)))
}

fn count(body: &[u8]) -> u32 {
    u32::from_le_bytes(body.try_into().expect("four bytes"))
}

fn reload(rig: &Rig, plan: &Plan) {
    let output = rig.proxy.reload(&plan.yaml(rig.bind));
    assert_eq!(output.code, 0, "{}", output.stderr);
}

#[test]
fn a_count_goes_on_over_fifty_swaps_under_load() {
    let backend = Backend::http("web");
    let rig = run(&backend, Start::new());
    let stop = AtomicBool::new(false);
    let counted = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut raw = rig.raw();
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
                let now = count(&raw.response().expect("response").body);
                assert_eq!(now, last + 1);
                last = now;
            }
            last
        });
        for n in 1..=50 {
            reload(&rig, &plan(&backend, "f.wasm", n));
        }
        stop.store(true, Ordering::Relaxed);
        asking.join().expect("no count was lost")
    });
    assert_eq!(count(&rig.get("/").body), counted + 1);
    assert!(counted > 50, "{counted} requests are no load");
}

#[test]
fn another_version_starts_at_zero_and_is_told_once() {
    let backend = Backend::http("web");
    let rig = run(&backend, Start::new().file("g.wasm", counter(2, 8)));
    assert_eq!(count(&rig.get("/").body), 1);
    reload(&rig, &plan(&backend, "g.wasm", 0));
    assert_eq!(count(&rig.get("/").body), 1);
    rig.proxy.wait_for_log("another version");
    let told = rig
        .proxy
        .stderr()
        .matches("starts without the state")
        .count();
    assert_eq!(told, 1, "{}", rig.proxy.stderr());
}

#[test]
fn a_state_that_is_too_large_is_refused() {
    let backend = Backend::http("web");
    for size in [64 * 1024 + 1, 100_000, 3] {
        let rig = run(&backend, Start::new().file("large.wasm", counter(1, size)));
        reload(&rig, &plan(&backend, "large.wasm", 1));
        assert_eq!(count(&rig.get("/").body), 1);
        reload(&rig, &plan(&backend, "f.wasm", 2));
        assert_eq!(count(&rig.get("/").body), 1);
        let told = if size == 3 {
            "saved 3 bytes"
        } else {
            "limits: {state: "
        };
        rig.proxy.wait_for_log(told);
    }
}
