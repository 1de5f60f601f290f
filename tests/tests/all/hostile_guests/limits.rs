//! What a filter may use is bounded, and a filter that nobody can use is left alone; one client cannot bring that about.

use std::net::{IpAddr, Ipv4Addr};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::get_from;
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::super::guest::{Guest, Phase};
use super::super::rig::{Plan, Rig};
use super::bad_for_root;

/// A proxy whose one filter fails for `/` alone.
fn rig(backend: &Backend, body: &str, keys: &str) -> Rig {
    let guest = bad_for_root(Guest::default().logs(), Phase::Request, body).build();
    Plan::new(&[backend.address()])
        .listener("filters: [f]")
        .top(&format!(
            "workers: 1\nfilters: {{f: {{module: g.wasm, capabilities: [log], {keys}}}}}"
        ))
        .run_with(Start::new().file("g.wasm", guest))
}

impl Rig {
    /// The status that the client with this last number gets.
    fn of(&self, client: u8, target: &str) -> u16 {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, client));
        let answer = get_from(source, self.bind, target);
        answer.expect("a response").status
    }

    fn counted(&self, family: &str, kind: &str) -> f64 {
        let series = format!("sluicegate_filter_{family}_total{{filter=\"f\",kind=\"{kind}\"}}");
        self.proxy.metric(&series)
    }

    fn suspended(&self) -> f64 {
        self.proxy
            .metric("sluicegate_filter_suspended{filter=\"f\"}")
    }
}

#[test]
fn calls_into_the_proxy_are_bounded() {
    let backend = Backend::http("web1");
    let storm =
        "(loop $l (call $log (i32.const 0) (i32.const 0) (i32.const 0)) (br $l)) (i32.const 0)";
    let rig = rig(&backend, storm, "limits: {deadline: 5s}");
    assert_eq!(rig.of(1, "/"), 500);
    assert_eq!(rig.of(1, "/good"), 200);
    assert_eq!(rig.counted("faults", "host-calls"), 1.0);
    rig.proxy
        .wait_for_log("called the proxy more than 1000 times in one call");
    rig.proxy.wait_for_log("wasm backtrace");
}

#[test]
fn a_filter_that_fails_for_everybody_is_left_alone_for_a_second() {
    let backend = Backend::http("web1");
    let rig = rig(&backend, "unreachable", "limits: {faults: 3/10s}");
    for client in 1..=3 {
        assert_eq!(rig.of(client, "/"), 500);
    }
    // Not even those are served for whom it would do.
    assert_eq!(rig.of(4, "/good"), 500);
    assert_eq!(rig.suspended(), 1.0);
    assert_eq!(rig.counted("faults", "trap"), 3.0);
    assert_eq!(rig.counted("uncalled", "backoff"), 1.0);
    assert_eq!(
        rig.proxy
            .metric("sluicegate_filter_calls_total{filter=\"f\"}"),
        3.0
    );
    rig.proxy.wait_for_log("filter skipped for 1 s");
    assert_eq!(rig.record("/good")["reason"], "filter-fault");
    assert!(eventually(DEADLINE, || rig.of(4, "/good") == 200));
    assert_eq!(rig.suspended(), 0.0);
    // And for longer when it goes on.
    for client in 1..=3 {
        assert_eq!(rig.of(client, "/"), 500);
    }
    rig.proxy.wait_for_log("filter skipped for 2 s");
}

#[test]
fn one_client_cannot_switch_a_filter_off() {
    let backend = Backend::http("web1");
    for (policy, status) in [("fail", 500), ("bypass", 200)] {
        let rig = rig(&backend, "unreachable", &format!("on-error: {policy}"));
        for _ in 0..10 {
            for _ in 0..20 {
                assert_eq!(rig.of(66, "/"), status);
            }
            assert_eq!(rig.of(1, "/good"), 200);
        }
        assert_eq!(rig.counted("faults", "trap"), 200.0);
        assert_eq!(rig.counted("uncalled", "backoff"), 0.0);
        assert_eq!(rig.suspended(), 0.0);
    }
}

#[test]
fn a_filter_may_not_use_more_than_its_share_of_the_processor() {
    let backend = Backend::http("web1");
    let (beside, spin) = (
        "(local.set $n (i32.const 20000000))",
        "(br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))",
    );
    let body = format!("{beside} (loop $l {spin}) (i32.const 0)");
    let keys = "on-error: bypass, limits: {cpu: 1ms, deadline: 5s}";
    let rig = rig(&backend, &body, keys);
    // The first call overdraws it; what is owed takes seconds to come in.
    for _ in 0..5 {
        assert_eq!(rig.of(1, "/"), 200);
    }
    assert_eq!(
        rig.proxy
            .metric("sluicegate_filter_calls_total{filter=\"f\"}"),
        1.0
    );
    assert_eq!(rig.counted("uncalled", "cpu"), 4.0);
    rig.proxy
        .wait_for_log("has used its processor time: `limits.cpu` gives it 1 ms a second");
    assert!(eventually(DEADLINE, || {
        assert_eq!(rig.of(1, "/good"), 200);
        rig.proxy
            .metric("sluicegate_filter_calls_total{filter=\"f\"}")
            > 1.0
    }));
}

#[test]
fn instances_are_bounded() {
    let backend = Backend::http("web1");
    let rig = rig(&backend, "unreachable", "limits: {instances: 2}");
    for _ in 0..50 {
        assert_eq!(rig.of(1, "/"), 500);
        let alive = rig
            .proxy
            .metric("sluicegate_filter_instances{filter=\"f\"}");
        assert!((1.0..=2.0).contains(&alive), "{alive}");
    }
    assert!(eventually(DEADLINE, || rig.of(1, "/good") == 200));
}
