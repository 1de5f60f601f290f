//! Bytes that a backend sends behind the end of a response: they are the answer to nobody's request.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};

use crate::rig::{Plan, Rig};

const BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// A response, and what comes behind it after `delay` although it must not.
#[derive(Clone, Copy)]
struct Poison {
    method: &'static str,
    head: &'static str,
    surplus: &'static str,
    delay: Duration,
}

impl Poison {
    fn new(method: &'static str, head: &'static str, surplus: &'static str, micros: u64) -> Self {
        Self {
            method,
            head,
            surplus,
            delay: Duration::from_micros(micros),
        }
    }
}

/// Answers `/good` with its own query, and everything else with the poison.
fn backend(poison: Poison) -> Backend {
    Backend::raw(move |stream, _| {
        let _ = stream.set_nodelay(true);
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let target = head.split(' ').nth(1).unwrap_or_default();
            if let Some(query) = target.strip_prefix("/good?") {
                let length = query.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{query}");
                if raw.send(answer).is_err() {
                    return;
                }
                continue;
            }
            if raw.send(poison.head).is_err() {
                return;
            }
            let due = Instant::now() + poison.delay;
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            if raw.send(poison.surplus).is_err() {
                return;
            }
        }
    })
}

fn rig(backend: &Backend) -> Rig {
    Plan::new(&[backend.address()]).top("workers: 1").run()
}

fn poisoned(method: &str) -> String {
    format!("{method} /poison HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn good(n: usize) -> String {
    format!("GET /good?{n} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Reads the response to the poisoned request, whatever it is.
fn skip(raw: &mut Raw, poison: &Poison) {
    if poison.method == "HEAD" || !poison.head.starts_with("HTTP/1.1 200") {
        raw.head().expect("a head");
    } else {
        assert_eq!(raw.response().expect("a response").text(), "hello");
    }
}

/// How many of the good requests got something else than their own answer.
fn wrong(poison: Poison, rounds: usize, pipelined: bool) -> usize {
    let backend = backend(poison);
    let rig = rig(&backend);
    let mut raw = rig.raw();
    let mut wrong = 0;
    for n in 0..rounds {
        if pipelined {
            let both = poisoned(poison.method) + &good(n);
            raw.send(both).expect("send");
            skip(&mut raw, &poison);
        } else {
            raw.send(poisoned(poison.method)).expect("send");
            skip(&mut raw, &poison);
            raw.send(good(n)).expect("send");
        }
        let answer = raw.response().expect("an answer");
        wrong += usize::from(answer.status != 200 || answer.text() != n.to_string());
    }
    wrong
}

#[test]
fn bytes_behind_a_response_without_a_body_are_nobodys_answer() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n";
    let late = [
        Poison::new("HEAD", head, BODY, 50),
        Poison::new(
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            BODY,
            50,
        ),
        Poison::new("GET", "HTTP/1.1 204 No Content\r\n\r\n", BODY, 50),
        Poison::new(
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n",
            BODY,
            50,
        ),
        Poison::new("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", BODY, 3000),
        Poison::new("HEAD", head, BODY, 20_000),
    ];
    std::thread::scope(|scope| {
        for (case, poison) in late.into_iter().enumerate() {
            scope.spawn(move || {
                let rounds = if poison.delay > Duration::from_millis(1) {
                    20
                } else {
                    150
                };
                for pipelined in [true, false] {
                    let wrong = wrong(poison, rounds, pipelined);
                    assert_eq!(wrong, 0, "case {case}, pipelined: {pipelined}");
                }
            });
        }
    });
}

#[test]
fn an_answer_that_is_none_is_asked_for_again() {
    // What is behind these has a length of its own, and comes when the next request may have been sent already.
    let counted = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let surplus = [
        Poison::new("GET", counted, "rubbish", 30),
        Poison::new("GET", chunked, "0\r\n\r\n", 30),
        Poison::new("GET", counted, "\r\n\r\nrubbish", 0),
    ];
    for (case, poison) in surplus.into_iter().enumerate() {
        for pipelined in [true, false] {
            assert_eq!(
                wrong(poison, 100, pipelined),
                0,
                "case {case}, pipelined: {pipelined}"
            );
        }
    }
}

#[test]
fn what_lies_there_is_seen_whatever_the_method() {
    // A second response that nobody asked for, sent with the first one or right behind it.
    for method in ["GET", "PUT", "POST"] {
        let sent = Arc::new(AtomicUsize::new(0));
        let sends = sent.clone();
        let backend = Backend::raw(move |stream, _| {
            let _ = stream.set_nodelay(true);
            let mut raw = Raw::over(stream);
            while raw.head().is_ok() {
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
                if raw.send(answer).is_err() {
                    return;
                }
                let _ = raw.send(BODY);
                sends.fetch_add(1, Ordering::SeqCst);
            }
        });
        let rig = rig(&backend);
        let mut raw = rig.raw();
        for n in 1..20 {
            let request = format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            raw.send(request).expect("send");
            let answer = raw.response().expect("an answer");
            assert_eq!(answer.text(), "good", "{method}, request {n}");
            assert!(eventually(DEADLINE, || sent.load(Ordering::SeqCst) == n));
        }
        rig.proxy
            .wait_for_log("sent bytes behind the end of a response");
        assert_eq!(backend.connections(), 19, "{method}");
    }
}

#[test]
fn endpoints_that_keep_the_rules_keep_their_connections() {
    // A cache that revalidates, and a probe: no connection for each of them.
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let answer = match head.split(' ').next() {
                Some("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
                _ => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            };
            if raw.send(answer).is_err() {
                return;
            }
        }
    });
    let rig = Plan::new(&[backend.address()])
        .top("workers: 1")
        .pool("keep-alive: {max: 8}")
        .run();
    let mut raw = rig.raw();
    for (method, status) in [("HEAD", 200), ("GET", 304)] {
        for _ in 0..8 {
            raw.send(poisoned(method)).expect("send");
            let head = raw.head().expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        }
        // All rest; they are used again once they have.
        let before = backend.connections();
        assert!(
            eventually(DEADLINE, || {
                let at = backend.connections();
                raw.send(poisoned(method)).expect("send");
                raw.head().expect("a head");
                std::thread::sleep(Duration::from_millis(150));
                backend.connections() == at
            }),
            "{before} connections at first"
        );
    }
}

#[test]
fn a_farewell_is_no_offence() {
    // Some servers say 408 before they close an idle connection.
    let backend = Backend::raw(|stream: TcpStream, connection| {
        let mut out = stream.try_clone().expect("a copy");
        let mut raw = Raw::over(stream);
        while raw.head().is_ok() {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
            if raw.send(answer).is_err() {
                return;
            }
            if connection == 0 {
                let bye = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";
                let _ = out.write_all(bye.as_bytes());
                return;
            }
        }
    });
    let rig = rig(&backend);
    assert_eq!(rig.get("/").text(), "good");
    assert!(eventually(DEADLINE, || rig.get("/").text() == "good"
        && backend.connections() == 2));
    assert!(!rig.proxy.stderr().contains("sent bytes behind"));
}
