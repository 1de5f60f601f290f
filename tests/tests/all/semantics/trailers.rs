//! Trailers: bounded, apart from the fields, and there again when a request is repeated.

use std::sync::{Arc, Mutex};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;

use crate::rig::Plan;

/// Reads a chunked request to its end; gives its trailer section.
fn trailers(raw: &mut Raw) -> Option<String> {
    loop {
        let size = usize::from_str_radix(&raw.line().ok()?, 16).ok()?;
        if size == 0 {
            let mut all = String::new();
            loop {
                let line = raw.line().ok()?;
                if line.is_empty() {
                    return Some(all);
                }
                all += &line;
                all += "\n";
            }
        }
        raw.exactly(size + 2).ok()?;
    }
}

#[test]
fn trailers_are_never_merged_into_the_fields() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let got = trailers(&mut raw).unwrap_or_default();
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let body = format!("{head}\n--\n{got}");
            let _ = raw.send(format!(
                "{answer}{:x}\r\n{body}\r\n0\r\nX-Late: 1\r\n\r\n",
                body.len()
            ));
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let answer = rig.ask(
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Check: 7\r\n\r\n",
    );
    let text = answer.text();
    let (fields, trailers) = text.split_once("\n--\n").expect("both");
    assert!(!fields.contains("x-check"), "{fields}");
    assert_eq!(trailers, "x-check: 7\n");
    assert_eq!(answer.field("x-late"), None);
}

#[test]
fn trailers_are_bounded_like_fields() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            if head.contains("/down") {
                let many = "X: y\r\n".repeat(10_000);
                let _ = raw.send(format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{many}\r\n"
                ));
                return;
            }
            if trailers(&mut raw).is_none() {
                return;
            }
            let _ = raw.send(response(200, "taken"));
        }
    });
    let rig = Plan::new(&[backend.address()])
        .listener("limits: {header-bytes: 4KiB, header-fields: 16}")
        .run();
    let with = |trailers: &str| {
        rig.ask(format!(
            "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailers}\r\n"
        ))
    };
    assert_eq!(with(&"X: y\r\n".repeat(16)).text(), "taken");
    for (name, trailers) in [
        ("too many", "X: y\r\n".repeat(17)),
        ("too long", format!("X: {}\r\n", "y".repeat(5000))),
    ] {
        let answer = with(&trailers);
        assert_eq!(
            (answer.status, answer.field("connection")),
            (400, Some("close")),
            "{name}"
        );
    }
    // Of a response: it is aborted, for its head was sent.
    let mut raw = rig.raw();
    raw.send("GET /down HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(raw.response().is_err());
    let reason = &rig.record("/down")["reason"];
    assert_eq!(reason, "response-headers-too-large");
    rig.settles();
}

#[test]
fn a_repeated_request_has_its_trailers_again_without_those_that_were_named() {
    let got: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = got.clone();
    let good = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        while raw.head().is_ok() {
            let Some(trailers) = trailers(&mut raw) else {
                return;
            };
            seen.lock().expect("lock").push(trailers);
            let _ = raw.send(response(200, "good"));
        }
    });
    // Takes the whole request and closes without an answer.
    let bad = Backend::http_with(|_| Vec::new());
    let rig = Plan::new(&[bad.address(), good.address()]).run();
    for body in ["2\r\nhi\r\n", ""] {
        for _ in 0..2 {
            let answer = rig.ask(format!(
                "PUT / HTTP/1.1\r\nHost: x\r\nConnection: X-Named\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {body}0\r\nX-Check: 7\r\nX-Named: 1\r\nContent-Length: 9\r\n\r\n"
            ));
            assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
        }
    }
    assert!(bad.connections() > 0);
    assert_eq!(*got.lock().expect("lock"), ["x-check: 7\n"; 4]);
}
