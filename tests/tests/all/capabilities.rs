//! What filters are granted beside answering.

use sluicegate_tests::backend::Backend;
use sluicegate_tests::proxy::Start;

use super::guest::{Guest, Phase};
use super::rig::{Plan, Rig};

const IMPORTS: [&str; 4] = [
    r#"(import "sluicegate:filter/metrics@0.1.0" "define"
        (func $define (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#,
    r#"(import "sluicegate:filter/metrics@0.1.0" "add" (func $add (param i32 i32 i32 f64)))"#,
    r#"(import "sluicegate:filter/clock@0.1.0" "monotonic" (func $monotonic (result i64)))"#,
    r#"(import "sluicegate:filter/random@0.1.0" "number" (func $number (result i64)))"#,
];

/// Counts requests in a counter with one label. With `again`, the metric is defined a second time, as that kind.
fn counting(again: Option<u32>) -> Vec<u8> {
    let mut guest = Guest::default();
    for import in IMPORTS {
        guest = guest.import(import);
    }
    let (name, help) = (guest.put(b"hits"), guest.put(b"Hits \"x\""));
    let (label, value) = (guest.put(b"who"), guest.put(b"me\""));
    let (labels, values) = (guest.words(&[label, 3]), guest.words(&[value, 3]));
    let define = |kind: u32| {
        format!(
            "(global.set $hits (call $define (i32.const {kind}) (i32.const {name}) (i32.const 4)
              (i32.const {help}) (i32.const 8) (i32.const {labels}) (i32.const 1) (i32.const 0) (i32.const 0)))"
        )
    };
    let again = again.map_or_else(String::new, define);
    guest
        .item("(global $hits (mut i32) (i32.const 9))")
        .configures(&format!("{} {again} i32.const $plan", define(0)))
        .runs(
            Phase::Request,
            &format!(
                "(call $add (global.get $hits) (i32.const {values}) (i32.const 1) (f64.const 1))
                 (drop (call $number))
                 (if (i64.gt_u (call $monotonic) (call $monotonic)) (then unreachable))
                 (i64.store (i32.const 512) (i64.const 0)) i32.const 512"
            ),
        )
        .build()
}

const GRANTED: &str = "[metrics, clock, random]";
const SERIES: &str = "sluicegate_filter_a_b_hits_total{filter=\"a-b\",who=\"me\\\"\"}";

fn plan(backend: &Backend, module: &str, rest: &str) -> Plan {
    Plan::new(&[backend.address()])
        .listener("filters: [a-b]")
        .top(&format!(
            "filters: {{a-b: {{module: {module}, capabilities: {GRANTED}{rest}}}}}\nworkers: 2"
        ))
}

fn ask(rig: &Rig, times: usize) {
    for _ in 0..times {
        assert_eq!(rig.get("/").status, 200);
    }
}

#[test]
fn metrics_of_a_filter_add_up_over_workers_and_survive_reloads() {
    let backend = Backend::http("web");
    let start = Start::new().file("f.wasm", counting(None));
    let rig = plan(&backend, "f.wasm", "").run_with(start);
    ask(&rig, 30);
    assert_eq!(rig.proxy.metric(SERIES), 30.0);
    let text = rig.proxy.admin("GET", "/metrics").expect("metrics").text();
    assert!(
        text.contains("# TYPE sluicegate_filter_a_b_hits counter"),
        "{text}"
    );
    assert!(
        text.contains("# HELP sluicegate_filter_a_b_hits Hits \\\"x\\\""),
        "{text}"
    );
    // The filter is another one now; the definition is not.
    let changed = plan(&backend, "f.wasm", ", settings: {x: 1}").yaml(rig.bind);
    assert_eq!(rig.proxy.reload(&changed).code, 0);
    ask(&rig, 12);
    assert_eq!(rig.proxy.metric(SERIES), 42.0);
}

#[test]
fn what_is_missing_is_told_at_once() {
    let backend = Backend::http("web");
    let start = Start::new().file("f.wasm", counting(None));
    let rig = plan(&backend, "f.wasm", "").run_with(start);
    let yaml = plan(&backend, "f.wasm", "").yaml(rig.bind);
    let refused = rig.proxy.reload(&yaml.replace(GRANTED, "[log, clock]"));
    assert_ne!(refused.code, 0);
    for told in [
        "missing-capability",
        "the capabilities \"metrics\", \"random\", which are not granted",
        "capabilities: [log, clock, metrics, random]",
    ] {
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
    ask(&rig, 1);
}

#[test]
fn a_definition_in_conflict_fails_the_load() {
    let backend = Backend::http("web");
    let start = Start::new()
        .file("f.wasm", counting(None))
        .file("same.wasm", counting(Some(0)))
        .file("other.wasm", counting(Some(1)));
    let rig = plan(&backend, "f.wasm", "").run_with(start);
    let refused = rig
        .proxy
        .reload(&plan(&backend, "other.wasm", "").yaml(rig.bind));
    assert_ne!(refused.code, 0);
    let told = "the metric \"hits\" was defined before in another way";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    let taken = rig
        .proxy
        .reload(&plan(&backend, "same.wasm", "").yaml(rig.bind));
    assert_eq!(taken.code, 0, "{}", taken.stderr);
}
