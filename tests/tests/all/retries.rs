//! When a request is sent again, and when it is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicegate_tests::backend::{Backend, refused, response};
use sluicegate_tests::client::Raw;

use super::rig::Plan;

/// Answers the first request of each connection, then closes at the sight of the second.
fn dies_on_second() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok() {
            let _ = raw.send(response(200, "first"));
            let _ = raw.head();
        }
    })
}

/// Reads a request with its body and closes without an answer.
fn takes_and_closes(requests: &Arc<AtomicUsize>) -> Backend {
    let requests = requests.clone();
    Backend::http_with(move |_| {
        requests.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    })
}

#[test]
fn a_kept_connection_that_died_costs_nothing() {
    let backend = dies_on_second();
    let rig = Plan::new(&[backend.address()]).run();
    for n in 0..5 {
        assert_eq!(rig.get(&format!("/{n}")).text(), "first");
    }
    assert_eq!(rig.record("/4")["status"], 200);
}

#[test]
fn a_refused_connection_goes_to_another_endpoint_whatever_the_method() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[refused(), backend.address()]).run();
    for method in ["GET", "POST", "PATCH"] {
        for _ in 0..4 {
            let answer = rig.ask(format!(
                "{method} /{method} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
            ));
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "web1"),
                "{method}"
            );
        }
    }
    assert!(backend.received().iter().all(|r| r.body == b"hi"));
}

#[test]
fn what_is_not_idempotent_is_not_repeated_once_sent() {
    let requests = Arc::new(AtomicUsize::new(0));
    let backend = takes_and_closes(&requests);
    let other = takes_and_closes(&requests);
    let rig = Plan::new(&[backend.address(), other.address()]).run();
    let answer = rig.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(answer.status, 502);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn an_idempotent_request_goes_to_another_endpoint_with_its_body() {
    let requests = Arc::new(AtomicUsize::new(0));
    let bad = takes_and_closes(&requests);
    let good = Backend::http("good");
    let rig = Plan::new(&[bad.address(), good.address()]).run();
    let body = "b".repeat(40_000);
    for n in 0..6 {
        let request = match n % 2 {
            0 => format!(
                "PUT /{n} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
            _ => format!(
                "PUT /{n} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
        };
        let answer = rig.ask(request);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "good"),
            "{n}"
        );
    }
    let received = good.received();
    assert_eq!(received.len(), 6);
    assert!(received.iter().all(|r| r.body == body.as_bytes()));
    assert!(requests.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_body_over_the_replay_buffer_is_not_repeated() {
    let requests = Arc::new(AtomicUsize::new(0));
    let bad = takes_and_closes(&requests);
    let other = takes_and_closes(&requests);
    let rig = Plan::new(&[bad.address(), other.address()])
        .listener("limits: {replay-bytes: 1KiB}")
        .run();
    let body = "b".repeat(4096);
    let answer = rig.ask(format!(
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.status, 502);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn retries_zero_means_one_try() {
    let requests = Arc::new(AtomicUsize::new(0));
    let backend = takes_and_closes(&requests);
    let other = takes_and_closes(&requests);
    let rig = Plan::new(&[backend.address(), other.address()])
        .pool("retries: 0")
        .run();
    assert_eq!(rig.get("/").status, 502);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn the_budget_bounds_retries() {
    let requests = Arc::new(AtomicUsize::new(0));
    let backends: Vec<Backend> = (0..4).map(|_| takes_and_closes(&requests)).collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let rig = Plan::new(&addresses)
        .pool("retries: 3\npanic: spread")
        .run();
    let started = std::time::Instant::now();
    for n in 0..100 {
        assert_eq!(rig.get(&format!("/{n}")).status, 502);
    }
    let (sent, seconds) = (
        requests.load(Ordering::SeqCst),
        started.elapsed().as_secs() as usize,
    );
    // 100 first tries, ten retries at first, one for five tries, and three in each second begun.
    assert!(sent >= 100, "{sent}");
    assert!(
        sent <= (110 + 3 * (seconds + 1)) * 5 / 4,
        "{sent} requests in {seconds} s"
    );
}

#[test]
fn a_response_that_began_is_never_repeated() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let backend = Backend::http_with(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        b"HTTP/1.1 200 OK\r\nContent-".to_vec()
    });
    let rig = Plan::new(&[backend.address()]).run();
    assert_eq!(rig.get("/").status, 502);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}
