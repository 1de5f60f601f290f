//! Kept connections that are dead when they are wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicegate_tests::backend::{Backend, refused, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::sockets::is_connected_to;
use sluicegate_tests::wait::{DEADLINE, eventually};

use crate::rig::{Plan, Rig};

/// How the first connection of a backend ends; later ones serve.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// After its first answer, before anything else arrives.
    WhileIdle,
    /// With a reset instead.
    ResetWhileIdle,
    /// At the sight of its second request.
    OnRequest,
}

/// A backend whose first connection dies, the number of those deaths, and of the requests it saw.
fn mortal(death: Death) -> (Backend, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (dead, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (died, counted) = (dead.clone(), seen.clone());
    let backend = Backend::raw(move |stream, connection| {
        let mut raw = Raw::over(stream);
        let mut answered = 0;
        while let Ok(head) = raw.head() {
            counted.fetch_add(1, Ordering::SeqCst);
            if connection == 0 && answered == 1 {
                break;
            }
            if head.to_ascii_lowercase().contains("content-length: 4") && raw.exactly(4).is_err() {
                break;
            }
            if raw.send(response(200, "served")).is_err() {
                break;
            }
            answered += 1;
            if connection == 0 && death != Death::OnRequest {
                break;
            }
        }
        if connection == 0 {
            if death == Death::ResetWhileIdle {
                super::reset(raw.stream());
            }
            let _ = raw.stream().shutdown(std::net::Shutdown::Both);
            died.fetch_add(1, Ordering::SeqCst);
        }
    });
    (backend, dead, seen)
}

fn request(method: &str, target: &str) -> String {
    match method {
        "GET" | "DELETE" => format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
        _ => format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"),
    }
}

fn rig(backend: &Backend) -> Rig {
    Plan::new(&[backend.address()])
        .top("workers: 1")
        .pool("retries: 0")
        .run()
}

#[test]
fn one_that_died_before_the_request_is_passed_over_whatever_the_method() {
    std::thread::scope(|scope| {
        for death in [Death::WhileIdle, Death::ResetWhileIdle] {
            for method in ["GET", "PUT", "POST", "PATCH"] {
                scope.spawn(move || passed_over(death, method));
            }
        }
    });
}

fn passed_over(death: Death, method: &str) {
    let (backend, dead, seen) = mortal(death);
    let rig = rig(&backend);
    let mut raw = rig.raw();
    raw.send(request("GET", "/first")).expect("send");
    assert_eq!(raw.response().expect("first").text(), "served");
    assert!(eventually(DEADLINE, || dead.load(Ordering::SeqCst) == 1));
    // What the proxy's machine has not heard of, the proxy cannot know.
    assert!(eventually(DEADLINE, || !is_connected_to(backend.address())));
    raw.send(request(method, "/x")).expect("send");
    let answer = raw.response().expect("an answer");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "served"),
        "{method} {death:?}"
    );
    assert_eq!(seen.load(Ordering::SeqCst), 2, "{method} {death:?}");
    assert!(rig.record("/x")["reason"].is_null());
}

#[test]
fn one_that_dies_at_the_request_is_repeated_only_when_the_method_allows_it() {
    std::thread::scope(|scope| {
        for (method, status) in [
            ("GET", 200),
            ("DELETE", 200),
            ("PUT", 200),
            ("POST", 502),
            ("PATCH", 502),
        ] {
            scope.spawn(move || dies_at_the_request(method, status));
        }
    });
}

fn dies_at_the_request(method: &str, status: u16) {
    let (backend, _, seen) = mortal(Death::OnRequest);
    let rig = rig(&backend);
    let mut raw = rig.raw();
    raw.send(request("GET", "/first")).expect("send");
    assert_eq!(raw.response().expect("first").text(), "served");
    raw.send(request(method, "/x")).expect("send");
    let answer = raw.response().expect("an answer");
    assert_eq!(answer.status, status, "{method}");
    // The first, the one that died, and its repetition.
    let expected = if status == 200 { 3 } else { 2 };
    assert_eq!(seen.load(Ordering::SeqCst), expected, "{method}");
    let record = rig.record("/x");
    if status == 502 {
        assert_eq!(record["reason"], "upstream-reset", "{method}");
        let said = answer.field("proxy-status").unwrap_or_default();
        assert!(said.contains("connection_terminated"), "{said}");
    } else {
        assert!(record["reason"].is_null(), "{method}: {record}");
    }
    raw.send(request(method, "/next")).expect("send");
    assert_eq!(raw.response().expect("next").text(), "served", "{method}");
}

#[test]
fn its_repetition_asks_the_same_endpoint() {
    let (backend, _, seen) = mortal(Death::OnRequest);
    let other = Backend::http("other");
    let rig = Plan::new(&[backend.address(), other.address()])
        .top("workers: 1")
        .run();
    let answers: Vec<String> = (0..4).map(|n| rig.get(&format!("/{n}")).text()).collect();
    let of_other = answers.iter().filter(|text| *text == "other").count();
    assert_eq!(of_other, 2, "{answers:?}");
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[test]
fn an_endpoint_that_refuses_and_comes_back() {
    let address = refused();
    let rig = Plan::new(&[address]).pool("retries: 0").run();
    for method in ["GET", "POST"] {
        let answer = rig.ask(request(method, "/x"));
        assert_eq!(answer.status, 502, "{method}");
        let said = answer.field("proxy-status").unwrap_or_default();
        assert!(said.contains("error=connection_refused"), "{said}");
    }
    assert_eq!(rig.record("/x")["reason"], "connect-refused");
    let _backend = Backend::http_at(address, "back");
    assert_eq!(rig.get("/y").text(), "back");
}
