//! `Expect: 100-continue`: filters first, then the backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl};

use crate::rig::Plan;

const ASKING: &str = "POST / HTTP/1.1\r\nHost: x\r\nUser-Agent: badcurl\r\nExpect: 100-continue\r\n\
                      Content-Length: 500000000\r\n\r\n";

#[test]
fn filters_decide_before_anybody_is_told_to_send() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(
            "filters: [{module: \"builtin:ua-block\", settings: {deny: [badcurl], action: reply}}]",
        )
        .run();
    let mut raw = rig.raw();
    raw.send(ASKING).expect("send");
    let answer = raw.response().expect("response");
    assert_eq!(
        (answer.status, answer.field("connection")),
        (403, Some("close")),
        "no 100 came first"
    );
    assert_eq!(raw.to_end().expect("closed"), b"");
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_failure_before_the_100_is_the_answer() {
    let rig = Plan::new(&[sluicegate_tests::backend::refused()])
        .pool("retries: 0")
        .run();
    let mut raw = rig.raw();
    raw.send(ASKING).expect("send");
    let answer = raw.response().expect("response");
    assert_eq!(
        (answer.status, answer.field("connection")),
        (502, Some("close"))
    );
}

#[test]
fn a_backend_that_sends_no_100_gets_the_body_when_the_client_sends_it_all_the_same() {
    let backend = Backend::http_with(|r| response(200, &r.body.len().to_string()));
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send(
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    )
    .expect("send");
    assert_eq!(raw.response().expect("response").text(), "5");
}

#[test]
fn an_expectation_that_is_unknown_is_417_over_http2_too() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let status = ["-o", "/dev/null", "-w", "%{http_code}"];
        let url = rig.url("/");
        let arguments = [&[version, "-H", "Expect: a-pony"][..], &status, &[&url]].concat();
        assert_eq!(curl(&arguments).body, "417", "{version}");
    }
    assert!(backend.received().is_empty());
}

#[test]
fn clients_that_can_take_no_100_get_none_and_their_bodies_arrive() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            if head.contains("expect:") {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = raw.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            if raw.exactly(2).is_err() || raw.send(response(200, "got it")).is_err() {
                return;
            }
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let old = rig
        .ask("POST / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!((old.status, old.text().as_str()), (200, "got it"));
    asked.store(0, Ordering::SeqCst);
    let arguments = [
        "--http2-prior-knowledge",
        "-H",
        "Expect: 100-continue",
        "-d",
        "hi",
    ];
    let done = curl(&[&arguments[..], &[&rig.url("/")]].concat());
    assert_eq!(done.body, "got it", "{done:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "HTTP/2 can take one");
}
