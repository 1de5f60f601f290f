//! Checks and traffic, as they decide who is asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{get, get_from};
use sluicegate_tests::proxy::Proxy;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::counted;
use crate::rig::{Plan, Rig};

fn up(rig: &Rig, endpoint: SocketAddr) -> bool {
    let series = format!("sluicegate_endpoint_up{{pool=\"web\",endpoint=\"{endpoint}\"}}");
    rig.proxy.metric(&series) == 1.0
}

fn downs(rig: &Rig, endpoint: SocketAddr) -> f64 {
    let series = format!("sluicegate_endpoint_downs_total{{pool=\"web\",endpoint=\"{endpoint}\"}}");
    rig.proxy.metric(&series)
}

/// One of many clients.
fn client(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 200, 0, n).into()
}

fn get_as(n: u8, rig: &Rig, target: &str) -> u16 {
    get_from(client(n), rig.bind, target)
        .expect("a response")
        .status
}

/// Healthy by its checks, and broken for whoever asks for one of its pages.
fn half_broken() -> Backend {
    Backend::http_with(|request| match request.target() {
        "/malformed" => b"HTTP/1.1 200 OK\r\nno field\r\n\r\n".to_vec(),
        "/both" => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec()
        }
        "/many" => {
            let fields: String = (0..300).map(|n| format!("x-{n}: {n}\r\n")).collect();
            format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes()
        }
        "/late" => {
            std::thread::sleep(Duration::from_millis(700));
            response(200, "late")
        }
        "/nothing" => Vec::new(),
        _ => response(200, "served"),
    })
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
fn one_client_s_bad_requests_take_nothing_from_the_others() {
    let backends = [half_broken(), half_broken()];
    let endpoints = [backends[0].address(), backends[1].address()];
    let listener = "timeouts: {response-head: 300ms}";
    for check in ["check: {http: {path: /healthz}, interval: 1h}\n", ""] {
        let rig = Plan::new(&endpoints)
            .listener(listener)
            .pool(&format!("{check}retries: 0"))
            .run();
        (0..4).for_each(|_| assert_eq!(get_as(2, &rig, "/"), 200));
        for target in ["/malformed", "/both", "/many", "/nothing", "/late"] {
            for _ in 0..8 {
                assert!(get_as(1, &rig, target) >= 500, "{target}");
                // Nor does it help that another client succeeds in between.
            }
            for endpoint in endpoints {
                assert!(up(&rig, endpoint), "{target}, {check:?}");
            }
            assert_eq!(get_as(2, &rig, "/"), 200, "{target}, {check:?}");
        }
        assert_eq!(downs(&rig, endpoints[0]) + downs(&rig, endpoints[1]), 0.0);
    }
}

#[test]
fn what_the_answer_to_a_request_is_like_says_nothing_of_the_endpoint() {
    let backends = [half_broken(), half_broken()];
    let endpoints = [backends[0].address(), backends[1].address()];
    let rig = Plan::new(&endpoints).pool("retries: 0").run();
    for n in 0..40 {
        for target in ["/both", "/many"] {
            assert_eq!(get_as(n, &rig, target), 502, "{target}");
        }
    }
    assert!(endpoints.iter().all(|&e| up(&rig, e)));
}

#[test]
fn traffic_doubts_an_endpoint_and_never_empties_the_pool() {
    let backends: Vec<Backend> = (0..4).map(|_| half_broken()).collect();
    let endpoints: Vec<_> = backends.iter().map(Backend::address).collect();
    let pool = "check: {http: {path: /healthz}, interval: 1h}\nretries: 0";
    // The only endpoint stays, whoever fails.
    let rig = Plan::new(&endpoints[..1]).pool(pool).run();
    assert_eq!(rig.get("/").status, 200);
    for n in 0..20 {
        assert_eq!(get_as(n, &rig, "/nothing"), 502);
    }
    assert!(up(&rig, endpoints[0]));
    assert_eq!(rig.get("/").status, 200);
    let probes = format!(
        "sluicegate_endpoint_probes_total{{pool=\"web\",endpoint=\"{}\",result=\"passed\"}}",
        endpoints[0]
    );
    assert!(
        eventually(DEADLINE, || rig.proxy.metric(&probes) >= 2.0),
        "it is probed at once"
    );
    // Of four, two at most at a time; and they are back when checks have passed again.
    let rig = Plan::new(&endpoints).pool(pool).run();
    assert_eq!(rig.get("/").status, 200);
    for n in 0..60 {
        get_as(n, &rig, "/nothing");
        let out = endpoints.iter().filter(|e| !up(&rig, **e)).count();
        assert!(out <= 2, "{out} are out");
    }
    let all: f64 = endpoints.iter().map(|&e| downs(&rig, e)).sum();
    assert!(all >= 1.0, "nobody was doubted");
    assert!(rig.proxy.stderr().contains("endpoint is doubted"));
    assert_eq!(rig.get("/").status, 200);
    let back = || endpoints.iter().all(|&e| up(&rig, e));
    assert!(eventually(DEADLINE, back), "{}", rig.proxy.stderr());
}

#[test]
fn what_never_served_is_ejected_by_one_client_but_never_more_than_half() {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::http_with(|_| Vec::new())).collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let rig = Plan::new(&addresses).pool("retries: 0").run();
    for _ in 0..48 {
        assert_eq!(rig.get("/").status, 502, "somebody is asked");
    }
    let out = addresses.iter().filter(|a| !up(&rig, **a)).count();
    assert_eq!(out, 2);
}

#[test]
fn without_checks_failures_of_three_clients_eject_but_never_more_than_half() {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::http_with(|_| Vec::new())).collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let rig = Plan::new(&addresses).pool("retries: 0").run();
    let out = || addresses.iter().filter(|a| !up(&rig, **a)).count();
    for n in 0..8 {
        assert_eq!(get_as(n, &rig, "/"), 502);
    }
    assert_eq!(out(), 0, "two failures each");
    for n in 0..40 {
        assert_eq!(get_as(n, &rig, "/"), 502, "somebody is asked");
    }
    assert_eq!(out(), 2);
    let ejected = rig.proxy.stderr().matches("endpoint ejected").count();
    assert_eq!(ejected, 2, "for ten seconds");
    assert!(rig.proxy.stderr().contains("seconds=10"));
    let all: f64 = addresses.iter().map(|&a| downs(&rig, a)).sum();
    assert_eq!(all, 2.0);
}

#[test]
fn a_pool_that_has_just_lost_everybody_is_waited_for_and_then_no_longer() {
    let backends = [Backend::http("a"), Backend::http("b")];
    let rig = Plan::new(&[backends[0].address(), backends[1].address()])
        .pool("check: {http: {path: /healthz}}")
        .run();
    assert_eq!(rig.get("/").status, 200);
    let mut addresses = backends.map(Backend::stop);
    // One comes back while a request that has found nobody waits.
    let back = std::thread::scope(|scope| {
        let asked = scope.spawn(|| rig.get("/").status);
        std::thread::sleep(Duration::from_millis(300));
        let back = Backend::http_at(addresses[1], "b");
        assert_eq!(asked.join().expect("an answer"), 200);
        back
    });
    addresses[1] = back.stop();
    let lost = || !addresses.iter().any(|&a| up(&rig, a)) && rig.get("/").status == 503;
    assert!(eventually(DEADLINE, lost));
    // A while later nobody waits: the middle of many, since the machine may be busy.
    let quick = || {
        let mut times: Vec<Duration> = (0..21)
            .map(|_| {
                let began = Instant::now();
                assert!(rig.get("/").status == 503);
                began.elapsed()
            })
            .collect();
        times.sort();
        println!("503 after {:?} at most {:?}", times[10], times[20]);
        times[10] < Duration::from_millis(10)
    };
    assert!(eventually(DEADLINE, quick));
}

#[test]
fn a_session_waits_for_an_endpoint_that_may_be_back() {
    let backend = Backend::http("b");
    let bind = Addresses::new().free();
    let proxy = Proxy::start(&format!(
        "pools: {{b: {{endpoints: [\"{}\"], check: tcp}}}}\n\
         listeners: [{{name: b, bind: \"{bind}\", protocol: tcp, pool: b}}]",
        backend.address()
    ));
    let ask = || get(bind, "/").map(|answer| answer.status).unwrap_or(0);
    assert_eq!(ask(), 200);
    let address = backend.stop();
    std::thread::scope(|scope| {
        let asked = scope.spawn(ask);
        std::thread::sleep(Duration::from_millis(300));
        let _back = Backend::http_at(address, "b");
        assert_eq!(asked.join().expect("an end"), 200, "{}", proxy.stderr());
    });
}

#[test]
fn what_traffic_and_checks_found_survives_reload() {
    // An ejection.
    let (bad, good) = (Backend::http_with(|_| Vec::new()), Backend::http("good"));
    let endpoints = [bad.address(), good.address()];
    let rig = Plan::new(&endpoints).pool("retries: 0").run();
    let mut n = 0;
    assert!(eventually(DEADLINE, || {
        n = n % 200 + 1;
        get_as(n, &rig, "/");
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
