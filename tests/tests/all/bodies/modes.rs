//! What each mode shows, and what becomes of the message.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;

use super::super::rig::Plan;
use super::{chunked, filters, last, mirror, module, post, rig};

#[test]
fn a_whole_request_is_shown_replaced_and_framed_anew() {
    let backend = mirror();
    let rig = rig(
        &backend,
        &["settings: {request: {mode: whole, bytes: 100, act: mark}}"],
    );
    for answer in [post(&rig, "hello"), chunked(&rig, &["he", "llo"], "")] {
        assert_eq!(answer.text(), "<:hello>");
        let got = last(&backend);
        assert_eq!(got.field("content-length"), Some("8"), "{}", got.head);
        assert_eq!(got.field("x-seen"), Some("5 last 1"));
        assert_eq!(got.target(), "/edited");
    }
    // An empty body is shown as one; a request without a body is not shown.
    assert_eq!(post(&rig, "").text(), "<:>");
    assert_eq!(last(&backend).field("x-seen"), Some("0 last 1"));
    assert_eq!(rig.get("/plain").text(), "");
    assert_eq!(last(&backend).target(), "/plain");
}

#[test]
fn trailers_of_a_held_body_arrive_edited() {
    let got = Arc::new(Mutex::new(String::new()));
    let seen = got.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let mut all = Vec::new();
        let mut piece = [0; 4096];
        while !all.ends_with(b"\r\n\r\n") || !all.windows(5).any(|w| w == b"\r\n0\r\n") {
            match stream.read(&mut piece) {
                Ok(n) if n > 0 => all.extend_from_slice(&piece[..n]),
                _ => return,
            }
        }
        *seen.lock().expect("lock") = String::from_utf8_lossy(&all).into_owned();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-b: 2\r\nx-gone: 1\r\n\r\n");
    });
    for mode in ["whole", "transform", "watch"] {
        let does = format!("{{mode: {mode}, bytes: 100, act: none}}");
        let rig = rig(
            &backend,
            &[&format!("settings: {{request: {does}, response: {does}}}")],
        );
        let mut raw = rig.raw();
        raw.send("POST /x HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: te\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-a: 1\r\nx-gone: 1\r\n\r\n").expect("send");
        let head = raw.head().expect("head");
        assert!(
            head.to_ascii_lowercase()
                .contains("transfer-encoding: chunked"),
            "{mode}: {head}"
        );
        let mut body = String::new();
        while !body.ends_with("x-trailers: 2\r\n") {
            body.push_str(&raw.line().expect("line"));
            body.push_str("\r\n");
        }
        assert!(
            body.contains("ok") && body.contains("x-b: 2") && !body.contains("x-gone"),
            "{mode}: {body}"
        );
        let up = got.lock().expect("lock").clone();
        assert!(
            up.contains("x-a: 1") && up.contains("x-trailers: 2") && !up.contains("x-gone"),
            "{mode}: {up}"
        );
    }
}

#[test]
fn the_first_bytes_are_shown_and_the_rest_follows() {
    let backend = mirror();
    let rig = rig(
        &backend,
        &[
            "settings: {request: {mode: first, bytes: 4, act: mark}, response: {mode: first, bytes: 3, act: mark}}",
        ],
    );
    let answer = post(&rig, "0123456789");
    assert_eq!(answer.text(), "<:<:0>123>456789");
    assert_eq!(
        (answer.status, answer.field("x-seen")),
        (203, Some("3 more 2"))
    );
    assert_eq!(answer.field("content-length"), Some("16"));
    let got = last(&backend);
    assert_eq!(
        (got.field("x-seen"), got.field("content-length")),
        (Some("4 more 1"), Some("13"))
    );
    // All of it fits.
    assert_eq!(post(&rig, "0123").text(), "<:<:0>123>");
    assert_eq!(last(&backend).field("x-seen"), Some("4 last 1"));
    // The length is not known beforehand.
    assert_eq!(chunked(&rig, &["01", "23456"], "").text(), "<:<:0>123>456");
    assert_eq!(last(&backend).field("transfer-encoding"), Some("chunked"));
}

#[test]
fn over_the_maximum() {
    let backend = mirror();
    let both = |over: &str| {
        format!("settings: {{request: {{mode: whole, bytes: 5, over: {over}, act: mark}}}}")
    };
    for (over, on_error, status, text) in [
        ("refuse", "", 413, ""),
        ("fail", "", 500, ""),
        ("fail", ", on-error: bypass", 200, "123456"),
        ("bypass", "", 200, "123456"),
    ] {
        let rig = rig(&backend, &[&format!("{}{on_error}", both(over))]);
        assert_eq!(
            post(&rig, "12345").text(),
            "<:12345>",
            "{over}: at the byte"
        );
        backend.take_received();
        for answer in [post(&rig, "123456"), chunked(&rig, &["123", "456"], "")] {
            assert_eq!(answer.status, status, "{over}{on_error}");
            match status {
                200 => assert_eq!(answer.text(), text),
                _ => assert!(backend.received().is_empty(), "{over}"),
            }
        }
    }
    let reason = rig(&backend, &[&both("refuse")]);
    post(&reason, "123456");
    assert_eq!(reason.record("/x")["reason"], "request-too-large");
    for (over, status) in [("refuse", 502), ("fail", 500), ("bypass", 200)] {
        let rig = rig(
            &backend,
            &[&format!(
                "settings: {{response: {{mode: whole, bytes: 5, over: {over}, act: mark}}}}"
            )],
        );
        assert_eq!(post(&rig, "12345").text(), "<:12345>");
        assert_eq!(post(&rig, "123456").status, status, "{over}");
    }
}

#[test]
fn two_transforms_in_a_row_see_what_the_one_before_made() {
    let backend = mirror();
    let does = "{mode: transform, act: mark}";
    let one = |name: &str| format!("settings: {{name: {name}, request: {does}, response: {does}}}");
    let rig = rig(&backend, &[&one("a"), &one("b")]);
    // Requests in order; responses in reverse.
    assert_eq!(post(&rig, "x").text(), "<a:<b:<b:<a:x>>>>");
    assert_eq!(last(&backend).field("transfer-encoding"), Some("chunked"));
    // A whole body behind a transform has a length again.
    let rig = self::rig(
        &backend,
        &[
            &format!("settings: {{name: a, request: {does}}}"),
            "settings: {name: b, request: {mode: whole, bytes: 50, act: mark}}",
            "settings: {name: c, request: {mode: watch, act: none}}",
        ],
    );
    assert_eq!(post(&rig, "x").text(), "<b:<a:x>>");
    assert_eq!(last(&backend).field("content-length"), Some("9"));
}

#[test]
fn what_vanishes_and_what_is_added_at_the_end() {
    let backend = mirror();
    let rig1 = rig(
        &backend,
        &["settings: {request: {mode: transform, act: swallow}}"],
    );
    assert_eq!(post(&rig1, "gone").text(), "");
    let rig2 = rig(
        &backend,
        &[
            "settings: {request: {mode: whole, bytes: 9, act: swallow}}",
            "settings: {request: {mode: watch, act: none}}",
        ],
    );
    assert_eq!(post(&rig2, "gone").text(), "");
    assert_eq!(last(&backend).field("content-length"), Some("0"));
    let rig3 = rig(
        &backend,
        &["settings: {response: {mode: transform, act: end}}"],
    );
    assert_eq!(post(&rig3, "x").text(), "x[end]");
    assert_eq!(post(&rig3, "").text(), "[end]");
    let watched = rig(
        &backend,
        &["settings: {request: {mode: watch, act: none}, response: {mode: watch, act: none}}"],
    );
    let answer = post(&watched, "as it was");
    assert_eq!(
        (answer.text().as_str(), answer.field("content-length")),
        ("as it was", Some("9"))
    );
    assert_eq!(last(&backend).field("content-length"), Some("9"));
}

#[test]
fn a_reply_from_the_body_keeps_the_request_from_the_backend() {
    let backend = mirror();
    let rig = rig(
        &backend,
        &["settings: {request: {mode: whole, bytes: 50, act: reply}}"],
    );
    let mut raw = rig.raw();
    for _ in 0..2 {
        raw.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
            .expect("send");
        let answer = raw.response().expect("a response");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (403, "5 bytes are not wanted\n")
        );
    }
    assert_eq!(backend.connections(), 0);
    let rig = self::rig(
        &backend,
        &["settings: {response: {mode: whole, bytes: 50, act: reply}}"],
    );
    assert_eq!(post(&rig, "x").status, 451);
}

#[test]
fn faults() {
    let backend = mirror();
    for mode in ["whole", "transform"] {
        let does = format!("{{mode: {mode}, bytes: 99, act: fault}}");
        let fail = rig(&backend, &[&format!("settings: {{request: {does}}}")]);
        assert_eq!(post(&fail, "a TRAP b").status, 500, "{mode}");
        assert_eq!(fail.record("/x")["reason"], "filter-fault");
        assert_eq!(post(&fail, "good").text(), "good");
        let bypass = rig(
            &backend,
            &[&format!(
                "settings: {{request: {does}, response: {does}}}, on-error: bypass"
            )],
        );
        assert_eq!(post(&bypass, "a TRAP b").text(), "a TRAP b", "{mode}");
    }
    let held = rig(
        &backend,
        &["settings: {response: {mode: whole, bytes: 99, act: fault}}"],
    );
    assert_eq!(post(&held, "a TRAP b").status, 500);
    held.proxy.wait_for_log("as it was told");
    let told = held.proxy.stderr();
    // What it panicked with, and where.
    assert!(
        told.contains("src/lib.rs") && told.contains("as it was told"),
        "{told}"
    );
    // The head has gone: what follows must not look whole.
    let passing = rig(
        &backend,
        &["settings: {response: {mode: transform, act: fault}}"],
    );
    let mut raw = passing.raw();
    raw.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\na TRAP b")
        .expect("send");
    assert!(raw.response().is_err());
    assert_eq!(passing.record("/x")["reason"], "filter-fault");
}

#[test]
fn what_has_no_body_has_no_phase() {
    let backend = Backend::http_with(|r| match r.target() {
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n".to_vec(),
        _ if r.head.starts_with("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec(),
        _ => response(200, "a body!"),
    });
    let rig = rig(
        &backend,
        &["settings: {response: {mode: whole, bytes: 50, act: mark}}"],
    );
    let mut raw = rig.raw();
    for (request, expected) in [("HEAD /", "200"), ("GET /304", "304")] {
        raw.send(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .expect("send");
        let head = raw.head().expect("head");
        assert!(
            head.contains(expected) && !head.contains("x-seen"),
            "{head}"
        );
    }
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    assert_eq!(raw.response().expect("a response").text(), "<:a body!>");
}

#[test]
fn the_proxy_itself_says_continue_when_a_filter_waits_for_the_body() {
    let backend = mirror();
    let rig = rig(
        &backend,
        &["settings: {request: {mode: whole, bytes: 50, act: mark}}"],
    );
    let mut raw = rig.raw();
    raw.send("POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .expect("send");
    assert!(raw.head().expect("interim").starts_with("HTTP/1.1 100"));
    raw.send("hi").expect("send");
    assert_eq!(raw.response().expect("a response").text(), "<:hi>");
    assert_eq!(last(&backend).field("expect"), None);
    // What is too large is refused without being asked for.
    let rig = self::rig(
        &backend,
        &["settings: {request: {mode: whole, bytes: 1, over: refuse, act: mark}}"],
    );
    let mut raw = rig.raw();
    raw.send("POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .expect("send");
    assert_eq!(raw.response().expect("a response").status, 413);
}

#[test]
fn a_retry_sends_the_changed_body_and_asks_no_filter_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let got = Arc::new(Mutex::new(Vec::new()));
    let (count, bodies) = (tries.clone(), got.clone());
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        let Ok(body) = raw.exactly(8) else { return };
        bodies.lock().expect("lock").push((head, body));
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            let _ = raw.send(response(200, "ok"));
        }
    });
    let rig = Plan::new(&[backend.address()])
        .listener(&filters(&[
            "settings: {request: {mode: whole, bytes: 50, act: mark}}",
        ]))
        .pool("retries: 2")
        .run_with(Start::new().file("bodies.wasm", module()));
    let answer = rig.ask("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(answer.text(), "ok");
    let got = got.lock().expect("lock");
    assert_eq!(got.len(), 2);
    for (head, body) in &*got {
        assert_eq!(body, b"<:hello>");
        assert!(head.contains("x-seen: 5 last 1"), "{head}");
    }
}

#[test]
fn over_http2() {
    let backend = mirror();
    let does = "{mode: transform, act: upper}";
    let rig1 = rig(
        &backend,
        &[&format!(
            "settings: {{request: {does}, response: {{mode: whole, bytes: 100, act: mark}}}}"
        )],
    );
    let done = curl(&["--http2-prior-knowledge", "-d", "hello", &rig1.url("/x")]);
    assert_eq!(done.body, "<:HELLO>", "{}", done.stderr);
    let rig2 = rig(
        &backend,
        &[&format!(
            "settings: {{response: {does}, request: {{mode: first, bytes: 2, act: mark}}}}"
        )],
    );
    let done = curl(&["--http2-prior-knowledge", "-d", "hello", &rig2.url("/x")]);
    assert_eq!(done.body, "<:HE>LLO", "{}", done.stderr);
}

#[test]
fn a_filter_may_do_without_a_body_once_it_has_seen_the_head() {
    let backend = Backend::http_with(|r| {
        let text = String::from_utf8_lossy(&r.body);
        let field = match r.field("as-it-is") {
            Some("1") => "X-Skip: 1\r\n",
            _ => "",
        };
        let length = text.len();
        format!("HTTP/1.1 200 OK\r\n{field}Content-Length: {length}\r\n\r\n{text}").into_bytes()
    });
    for mode in ["whole", "transform"] {
        let does = format!("{{mode: {mode}, bytes: 100, act: mark}}");
        let keys = format!("settings: {{skips: true, request: {does}, response: {does}}}");
        let rig = rig(&backend, &[&keys]);
        for (target, body) in [
            ("/", "<:<:x>>"),
            ("/skip", "x"),
            // Marked on its way to the endpoint alone.
            ("/as-it-is", "<:x>"),
        ] {
            let as_it_is = u8::from(target == "/as-it-is");
            let mut raw = rig.raw();
            raw.send(format!(
                "POST {target} HTTP/1.1\r\nHost: x\r\nAs-It-Is: {as_it_is}\r\nContent-Length: 1\r\n\r\nx"
            ))
            .expect("send");
            let answer = raw.response().expect("a response");
            assert_eq!(
                (answer.status, answer.text().as_str()),
                if target == "/" && mode == "whole" {
                    (203, body)
                } else {
                    (200, body)
                },
                "{mode} {target}"
            );
            if target != "/" {
                let length = body.len().to_string();
                assert_eq!(
                    answer.field("content-length"),
                    Some(&*length),
                    "{mode} {target}"
                );
            }
        }
    }
}
