//! Another endpoint first, the pool's budget, and how much of a body can be sent again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluicegate_tests::backend::{Backend, refused, response};
use sluicegate_tests::client::Response;
use sluicegate_tests::wait::{DEADLINE, eventually};

use crate::rig::{Plan, Rig, records};

/// Reads a request with its body and closes without an answer.
fn takes_and_closes(requests: &Arc<AtomicUsize>) -> Backend {
    let requests = requests.clone();
    Backend::http_with(move |_| {
        requests.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    })
}

fn with_cookie(rig: &Rig, cookie: &str) -> Response {
    rig.ask(format!(
        "GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
    ))
}

fn cookie_of(answer: &Response) -> Option<String> {
    let cookie = answer.field("set-cookie")?;
    Some(cookie.split(';').next().unwrap_or_default().to_owned())
}

#[test]
fn a_sticky_client_goes_elsewhere_when_its_endpoint_fails_and_its_cookie_is_issued_anew() {
    // One endpoint answers its first request and from then on takes requests and closes: not even a dial fails.
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let failing = Backend::http_with(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => response(200, "failing"),
        _ => Vec::new(),
    });
    let good = Backend::http("good");
    // A kept connection that dies is asked for anew at the same endpoint; here there are none.
    let rig = Plan::new(&[failing.address(), good.address()])
        .pool("keep-alive: {max: 0}")
        .listener(
            "filters: [{module: \"builtin:sticky\", settings: {by: {cookie: {name: s, secret: sixteen-bytes-or-more}}}}]",
        )
        .run();
    let first = (0..4)
        .map(|_| rig.get("/"))
        .find(|answer| answer.text() == "failing")
        .expect("its turn comes");
    let cookie = cookie_of(&first).expect("a cookie");
    let moved = with_cookie(&rig, &cookie);
    assert_eq!((moved.status, moved.text().as_str()), (200, "good"));
    assert_eq!(requests.load(Ordering::SeqCst), 2, "its own came first");
    let anew = cookie_of(&moved).expect("a new cookie");
    assert_ne!(anew, cookie);
    for _ in 0..4 {
        let stays = with_cookie(&rig, &anew);
        assert_eq!((stays.text().as_str(), cookie_of(&stays)), ("good", None));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[test]
fn a_spent_budget_leaves_the_endpoints_own_failure_as_the_answer() {
    let requests = Arc::new(AtomicUsize::new(0));
    let backends: Vec<Backend> = (0..4).map(|_| takes_and_closes(&requests)).collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let rig = Plan::new(&addresses).run();
    for n in 0..30 {
        assert_eq!(rig.get(&format!("/{n}")).status, 502);
    }
    assert!(eventually(DEADLINE, || records(&rig.proxy).len() == 30));
    let all = records(&rig.proxy);
    let once = all.iter().filter(|r| r["tries"] == 1).count();
    assert!(once > 0, "the budget was never spent");
    assert!(
        all.iter().all(|r| r["reason"] == "upstream-reset"),
        "{all:?}"
    );
}

#[test]
fn the_only_endpoint_that_may_be_used_is_asked_again_after_a_pause() {
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = asked.clone();
    // Answers every third request, and closes at the sight of the others.
    let flaky = Backend::http_with(move |_| {
        let mut asked = seen.lock().expect("lock");
        asked.push(Instant::now());
        match asked.len() % 3 {
            0 => response(200, "at last"),
            _ => Vec::new(),
        }
    });
    let rig = Plan::new(&[flaky.address(), refused()])
        .pool("check: {tcp: {}, interval: 1h}\nkeep-alive: {max: 0}")
        .run();
    for n in 0..3 {
        let answer = rig.get(&format!("/{n}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "at last"));
    }
    assert_eq!(rig.record("/2")["tries"], 3);
    let asked = asked.lock().expect("lock");
    let pauses: Vec<_> = asked
        .chunks(3)
        .flat_map(|each| each.windows(2).map(|two| two[1] - two[0]))
        .collect();
    // Random up to 25 ms and up to 50 ms: that all six are below four comes once in half a million runs.
    assert!(
        pauses.iter().any(|p| *p >= Duration::from_millis(4)),
        "{pauses:?}"
    );
}

#[test]
fn a_pause_never_outlasts_the_exchange() {
    let requests = Arc::new(AtomicUsize::new(0));
    let bad = takes_and_closes(&requests);
    let rig = Plan::new(&[bad.address()])
        .pool("retries: 16\npanic: spread")
        .listener("timeouts: {total: 30ms}")
        .run();
    for n in 0..5 {
        let answer = rig.get(&format!("/{n}"));
        assert!(matches!(answer.status, 502 | 504), "{}", answer.head);
    }
    for n in 0..5 {
        let record = rig.record(&format!("/{n}"));
        let took = record["duration_us"].as_u64().expect("a duration");
        assert!(took < 10_000_000, "{record}");
    }
}

#[test]
fn a_body_of_64_kib_is_repeated_and_one_byte_more_is_not() {
    let requests = Arc::new(AtomicUsize::new(0));
    let bad = takes_and_closes(&requests);
    let good = Backend::http("good");
    for (length, repeated) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let rig = Plan::new(&[bad.address(), good.address()]).run();
        let before = requests.load(Ordering::SeqCst);
        let body = "b".repeat(length);
        let mut statuses = Vec::new();
        while requests.load(Ordering::SeqCst) == before {
            let answer = rig.ask(format!(
                "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            statuses.push(answer.status);
        }
        let expected = if repeated { 200 } else { 502 };
        assert_eq!(statuses.last(), Some(&expected), "{length}: {statuses:?}");
    }
    assert!(good.received().iter().all(|r| r.body.len() >= 64 << 10));
}

#[test]
fn what_a_backend_answers_is_an_answer_and_never_repeated() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let busy = Backend::http_with(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        response(503, "busy")
    });
    let other = Backend::http("other");
    let rig = Plan::new(&[busy.address(), other.address()]).run();
    let texts: Vec<_> = (0..4).map(|_| rig.get("/").text()).collect();
    assert_eq!(
        texts.iter().filter(|t| *t == "busy").count(),
        2,
        "{texts:?}"
    );
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}
