//! Calls without an exchange.

use std::time::{Duration, Instant};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::guest::{Guest, Phase};
use super::rig::Plan;

const CALLS: &str = "sluicegate_filter_calls_total{filter=\"ticker\"}";
const FAULTS: &str = "sluicegate_filter_faults_total{filter=\"ticker\",kind=\"trap\"}";

fn plan(backend: &Backend, chain: &str, capabilities: &str) -> Plan {
    Plan::new(&[backend.address()])
        .listener(&format!("filters: {chain}"))
        .top(&format!(
            "filters: {{ticker: {{module: t.wasm, capabilities: {capabilities}}}}}\nworkers: 2"
        ))
}

#[test]
fn one_worker_ticks_at_the_interval_while_the_filter_is_in_a_chain() {
    let backend = Backend::http("web");
    let guest = Guest::default().every_ms(100).answers(Phase::Tick, &[]);
    let guest = guest.answers(Phase::Request, &[]).build();
    let started = Instant::now();
    let rig = plan(&backend, "[ticker]", "[tick]").run_with(Start::new().file("t.wasm", guest));
    assert!(eventually(DEADLINE, || rig.proxy.metric(CALLS) >= 8.0));
    let (calls, elapsed) = (rig.proxy.metric(CALLS), started.elapsed());
    // The first comes at once.
    let most = elapsed.as_secs_f64() / 0.1 + 2.0;
    assert!(calls <= most, "{calls} ticks in {elapsed:?}");
    let unused = rig
        .proxy
        .reload(&plan(&backend, "[]", "[tick]").yaml(rig.bind));
    assert_eq!(unused.code, 0, "{}", unused.stderr);
    let calls = rig.proxy.metric(CALLS);
    // Long enough for several that must not come.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(rig.proxy.metric(CALLS), calls);
}

#[test]
fn a_tick_that_traps_is_a_fault_and_the_next_one_comes() {
    let backend = Backend::http("web");
    let guest = Guest::default().every_ms(100);
    let guest = guest.runs(Phase::Tick, "unreachable").build();
    let guest = Start::new().file("t.wasm", guest);
    let yaml = plan(&backend, "[]", "[tick]");
    let rig = yaml.run_with(guest);
    // A filter of ticks alone belongs into the chain of a listener all the same.
    let used = rig
        .proxy
        .reload(&plan(&backend, "[ticker]", "[tick]").yaml(rig.bind));
    assert_eq!(used.code, 0, "{}", used.stderr);
    assert!(eventually(DEADLINE, || rig.proxy.metric(FAULTS) >= 3.0));
    assert_eq!(rig.get("/").status, 200);
}

#[test]
fn ticks_need_a_grant() {
    let backend = Backend::http("web");
    let guest = Guest::default().every_ms(100).answers(Phase::Tick, &[]);
    let guest = guest.answers(Phase::Request, &[]).build();
    let rig = plan(&backend, "[ticker]", "[tick]").run_with(Start::new().file("t.wasm", guest));
    let refused = rig
        .proxy
        .reload(&plan(&backend, "[ticker]", "[]").yaml(rig.bind));
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("capabilities: [tick]"),
        "{}",
        refused.stderr
    );
}

#[test]
fn the_first_tick_comes_at_once() {
    let backend = Backend::http("web");
    let guest = Guest::default()
        .every_ms(3_600_000)
        .answers(Phase::Tick, &[]);
    let guest = guest.build();
    let rig = plan(&backend, "[ticker]", "[tick]").run_with(Start::new().file("t.wasm", guest));
    assert!(eventually(DEADLINE, || rig.proxy.metric(CALLS) == 1.0));
}
