//! Checks and traffic, as they decide who is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::get;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::counted;
use crate::rig::{Plan, Rig};

fn up(rig: &Rig, endpoint: SocketAddr) -> bool {
    let series = format!("sluicegate_endpoint_up{{pool=\"web\",endpoint=\"{endpoint}\"}}");
    rig.proxy.metric(&series) == 1.0
}

/// Answers checks of `/healthz` as `well` says and counts them; everything else with 200.
fn checked(well: &Arc<AtomicBool>, checks: &Arc<AtomicUsize>) -> Backend {
    let (well, checks) = (well.clone(), checks.clone());
    Backend::http_with(move |request| {
        if request.target() != "/healthz" {
            return response(200, "served");
        }
        checks.fetch_add(1, Ordering::SeqCst);
        response(
            if well.load(Ordering::SeqCst) {
                200
            } else {
                500
            },
            "",
        )
    })
}

#[test]
fn requests_wait_for_the_first_check_instead_of_failing() {
    let backend = Backend::http_with(|request| {
        if request.target() == "/healthz" {
            std::thread::sleep(Duration::from_millis(400));
        }
        response(200, "served")
    });
    let pool = "check: {http: {path: /healthz}, timeout: 10s}";
    let rig = Plan::new(&[backend.address()]).pool(pool).run();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(rig.get("/").text(), "served"));
        }
    });
    // A pool that a reload brings waits as well, and an endpoint that stays is not waited for.
    let other = Backend::http("other");
    let plan = Plan::new(&[other.address()]).pool(pool);
    assert_eq!(rig.proxy.reload(&plan.yaml(rig.bind)).code, 0);
    assert_eq!(rig.get("/").text(), "other");
}

#[test]
fn the_first_check_decides_at_once_and_then_rise_and_fall_count() {
    let (well, checks) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let backend = checked(&well, &checks);
    let rig = Plan::new(&[backend.address()])
        .pool("check: {http: {path: /healthz}, interval: 150ms, rise: 2, fall: 3}")
        .run();
    assert_eq!(rig.get("/").status, 503);
    assert_eq!(checks.load(Ordering::SeqCst), 1, "one was enough");
    // The log tells of each turn; how many checks it took is read at that moment, which may be late by one.
    // An endpoint that was never up rises on its first success.
    for (now, log, wanted) in [
        (true, "endpoint is up", 1),
        (false, "endpoint is down", 3),
        (true, "endpoint is up", 2),
    ] {
        let lines = || rig.proxy.stderr().matches(log).count();
        let (told, before) = (lines(), checks.load(Ordering::SeqCst));
        well.store(now, Ordering::SeqCst);
        assert!(eventually(DEADLINE, || lines() > told), "{log}");
        let took = checks.load(Ordering::SeqCst) - before;
        assert!(took >= wanted, "{log} after {took}");
        assert!(took <= wanted + 3, "{log} after {took}");
        assert_eq!(rig.get("/").status, if now { 200 } else { 503 });
    }
}

#[test]
fn success_of_traffic_raises_nobody_that_a_check_took_down() {
    let (well, checks) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let backend = checked(&well, &checks);
    let rig = Plan::new(&[backend.address()])
        .pool("check: {http: {path: /healthz}, interval: 1h}\npanic: spread")
        .run();
    for _ in 0..20 {
        assert_eq!(rig.get("/").text(), "served", "in a panic all are asked");
    }
    assert!(rig.proxy.stderr().contains("endpoint is down"));
    assert!(!rig.proxy.stderr().contains("endpoint is up"));
}

#[test]
fn failures_of_traffic_count_towards_fall() {
    let backend = Backend::http_with(|request| match request.target() {
        "/healthz" | "/good" => response(200, "served"),
        _ => Vec::new(),
    });
    let rig = Plan::new(&[backend.address()])
        .pool("check: {http: {path: /healthz}, interval: 1h, fall: 3}\nretries: 0")
        .run();
    // A success between forgives.
    for target in ["/bad", "/bad", "/good", "/bad", "/bad"] {
        let expected = if target == "/good" { 200 } else { 502 };
        assert_eq!(rig.get(target).status, expected, "{target}");
    }
    assert!(up(&rig, backend.address()));
    assert_eq!(rig.get("/bad").status, 502);
    assert!(!up(&rig, backend.address()));
    let answer = rig.get("/good");
    assert_eq!(answer.status, 503);
    assert!(answer.field("retry-after").is_some());
}

#[test]
fn without_checks_three_failures_eject_but_never_more_than_half() {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::http_with(|_| Vec::new())).collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let rig = Plan::new(&addresses).pool("retries: 0").run();
    for _ in 0..8 {
        assert_eq!(rig.get("/").status, 502);
    }
    let out = || addresses.iter().filter(|a| !up(&rig, **a)).count();
    assert_eq!(out(), 0, "two failures each");
    for _ in 0..40 {
        assert_eq!(rig.get("/").status, 502, "somebody is asked");
    }
    assert_eq!(out(), 2);
    let ejected = rig.proxy.stderr().matches("endpoint ejected").count();
    assert_eq!(ejected, 2, "for ten seconds");
    assert!(rig.proxy.stderr().contains("seconds=10"));
}

#[test]
fn what_traffic_and_checks_found_survives_reload() {
    // An ejection.
    let (bad, good) = (Backend::http_with(|_| Vec::new()), Backend::http("good"));
    let endpoints = [bad.address(), good.address()];
    let rig = Plan::new(&endpoints).pool("retries: 0").run();
    assert!(eventually(DEADLINE, || {
        rig.get("/");
        !up(&rig, bad.address())
    }));
    let asked = bad.received().len();
    for retries in [1, 2] {
        let plan = Plan::new(&endpoints).pool(&format!("retries: {retries}"));
        assert_eq!(rig.proxy.reload(&plan.yaml(rig.bind)).code, 0);
        for _ in 0..10 {
            assert_eq!(rig.get("/").text(), "good");
        }
    }
    assert_eq!(bad.received().len(), asked);
    // And a verdict of checks, with the counters.
    let (well, checks) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let down = checked(&well, &checks);
    let plan = |retries: u32| {
        let pool = format!("check: {{http: {{path: /healthz}}, interval: 1h}}\nretries: {retries}");
        Plan::new(&[down.address()]).pool(&pool)
    };
    let rig = plan(0).run();
    assert_eq!(rig.get("/").status, 503);
    assert_eq!(rig.proxy.reload(&plan(1).yaml(rig.bind)).code, 0);
    assert!(!up(&rig, down.address()));
    assert_eq!(rig.get("/").status, 503);
    let refusals = "sluicegate_endings_total{listener=\"web\",reason=\"no-healthy-endpoint\"}";
    counted(&rig.proxy, refusals, 2.0);
}

#[test]
fn a_fast_503_does_not_attract_traffic() {
    // Both are asked by 8 clients at a time; the one that cannot serve says so at once and would look idle.
    let refuses = Backend::http_with(|_| response(503, "busy"));
    let serves = Backend::http_with(|_| {
        std::thread::sleep(Duration::from_millis(15));
        response(200, "served")
    });
    let rig = Plan::new(&[refuses.address(), serves.address()])
        .pool("balance: least-request")
        .run();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let _ = get(rig.bind, "/");
                }
            });
        }
    });
    let (refused, served) = (refuses.received().len(), serves.received().len());
    assert_eq!(refused + served, 200);
    assert!(
        refused < 80,
        "{refused} of 200 went to the one that refuses"
    );
}
