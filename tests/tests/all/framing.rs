//! Framing: what could be read in two ways is refused and never forwarded (RFC 9112).

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;

use super::rig::{Plan, Rig};

/// Sends `request` and wants `status`, a closed connection, a silent backend, and a proxy that serves on.
fn refused(rig: &Rig, backend: &Backend, request: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
    let mut raw = rig.raw();
    raw.send(request).expect("send");
    let answer = raw
        .response()
        .unwrap_or_else(|why| panic!("{shown:?}: {why}"));
    assert_eq!(answer.status, status, "{shown:?}: {}", answer.head);
    assert_eq!(answer.field("connection"), Some("close"), "{shown:?}");
    assert!(answer.field("proxy-status").is_some(), "{shown:?}");
    assert_eq!(raw.to_end().expect("an orderly close"), b"", "{shown:?}");
    let got = backend.take_received();
    assert!(got.is_empty(), "{shown:?} reached the backend: {got:?}");
    assert_eq!(rig.get("/next").status, 200, "after {shown:?}");
    backend.take_received();
}

#[test]
fn ambiguous_requests_are_refused_closed_and_never_forwarded() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let cases: &[(&str, u16)] = &[
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400),
        (
            "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A : b\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n folded\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A: b\rc\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX-A: b\x01c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX(A): b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:port\r\n\r\n", 400),
        ("GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        ("GET / HTPP/1.1\r\nHost: x\r\n\r\n", 400),
        ("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: a-pony\r\n\r\n", 417),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", 400),
        ("SSH-2.0-OpenSSH_9.2\r\n", 400),
    ];
    for (request, status) in cases {
        refused(&rig, &backend, request.as_bytes(), *status);
    }
    rig.settles();
}

#[test]
fn heads_over_the_limits_are_refused_with_the_status_that_says_which() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener("limits: {header-bytes: 4KiB, header-fields: 20, target-bytes: 1KiB}")
        .run();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1024));
    let endless_target = format!("GET /{}", "a".repeat(100_000));
    let long_field = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(8192)
    );
    let endless_field = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "a".repeat(100_000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(20));
    for (request, status) in [
        (long_target, 414),
        (endless_target, 414),
        (long_field, 431),
        (endless_field, 431),
        (many_fields, 431),
    ] {
        refused(&rig, &backend, request.as_bytes(), status);
    }
    // Just below every limit.
    let fits = format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\n{}X: {}\r\n\r\n",
        "a".repeat(1000),
        "Y: z\r\n".repeat(18),
        "a".repeat(2000)
    );
    assert_eq!(rig.ask(fits).status, 200);
}

#[test]
fn malformed_chunks_end_the_exchange_and_the_upstream_connection() {
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "x\r\n",
        "-1\r\nh\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "5;a=\x01\r\nhello\r\n0\r\n\r\n",
        "0\r\nnot a trailer\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "\r\n",
    ] {
        let backend = Backend::http("web1");
        let rig = Plan::new(&[backend.address()]).run();
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut raw = rig.raw();
        raw.send(format!("{head}{chunks}")).expect("send");
        let answer = raw
            .response()
            .unwrap_or_else(|why| panic!("{chunks:?}: {why}"));
        assert_eq!(answer.status, 400, "{chunks:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{chunks:?}");
        assert_eq!(raw.to_end().expect("close"), b"");
        // The backend may have seen a head, but never a whole request.
        assert!(backend.received().is_empty(), "{chunks:?}");
        assert_eq!(rig.get("/next").status, 200);
    }
}

#[test]
fn what_is_unusual_but_clear_is_forwarded_with_one_framing() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let cases: &[(&str, &str, &str)] = &[
        // request, target seen, body seen
        ("GET /a HTTP/1.1\nHost: x\n\n", "/a", ""),
        ("\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n", "/b", ""),
        (
            "POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "/c",
            "hello",
        ),
        (
            "POST /d HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello",
            "/d",
            "hello",
        ),
        (
            "POST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n2 ;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "/e",
            "hello",
        ),
        (
            "POST /f HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "/f",
            "",
        ),
        (
            "GET http://other:8080/g?h HTTP/1.1\r\nHost: x\r\n\r\n",
            "/g?h",
            "",
        ),
        ("GET http://other HTTP/1.1\r\nHost: x\r\n\r\n", "/", ""),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "*", ""),
        ("GET /i HTTP/1.0\r\n\r\n", "/i", ""),
        ("GET /j HTTP/1.1\r\nHOST: [::1]:80\r\n\r\n", "/j", ""),
    ];
    for (request, target, body) in cases {
        let answer = rig.ask(request);
        assert_eq!(answer.status, 200, "{request:?}");
        let received = backend.take_received();
        let [got] = &received[..] else {
            panic!("{request:?}: {received:?}")
        };
        assert_eq!(got.target(), *target, "{request:?}");
        assert_eq!(got.body, body.as_bytes(), "{request:?}");
        assert_eq!(got.fields("host").count(), 1, "{request:?}: {}", got.head);
        let framings =
            got.fields("content-length").count() + got.fields("transfer-encoding").count();
        assert!(framings <= 1, "{request:?}: {}", got.head);
    }
}

#[test]
fn absolute_form_wins_over_host() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    rig.ask("GET http://inner:8080/g HTTP/1.1\r\nHost: outer\r\n\r\n");
    let received = backend.take_received();
    assert_eq!(received[0].field("host"), Some("inner:8080"));
    assert_eq!(received[0].field("x-forwarded-host"), Some("inner:8080"));
}

#[test]
fn leftovers_on_an_upstream_connection_mean_it_is_not_reused() {
    // The second response was never asked for: whoever asks next must not get it.
    let backend = Backend::http_with(|_| {
        let mut twice = response(200, "mine");
        twice.extend(response(200, "smuggled"));
        twice
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    for _ in 0..5 {
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
        assert_eq!(raw.response().expect("response").text(), "mine");
    }
    assert_eq!(backend.connections(), 5);
}

#[test]
fn responses_that_could_be_read_in_two_ways_are_502() {
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "220 smtp.example.org ESMTP\r\n",
        "\0\0\0\0\0\0\0\0",
    ] {
        let backend = raw_backend(bad);
        let rig = Plan::new(&[backend.address()]).pool("retries: 0").run();
        let answer = rig.get("/");
        assert_eq!(answer.status, 502, "{bad:?}");
        let status = answer.field("proxy-status").unwrap_or_default();
        assert!(
            status.contains("error=http_protocol_error"),
            "{bad:?}: {status}"
        );
    }
}

#[test]
fn responses_without_a_body_have_none() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let answer: &[u8] = match head.split(' ').nth(1) {
                Some("/204") => b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                Some("/304") => {
                    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n"
                }
                Some("/head") => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Some("/head-chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            if raw.send(answer).is_err() {
                return;
            }
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    for (request, status, length) in [
        ("GET /204", 204, None),
        ("GET /304", 304, Some("5")),
        ("HEAD /head", 200, Some("5")),
        ("HEAD /head-chunked", 200, None),
    ] {
        raw.send(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .expect("send");
        let head = raw.head().expect("head");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert_eq!(
            sluicegate_tests::client::field(&head, "content-length"),
            length,
            "{request}"
        );
        // The next response begins right behind the head.
        raw.send("GET /after HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        assert_eq!(raw.response().expect("response").text(), "ok", "{request}");
    }
    assert_eq!(
        backend.connections(),
        1,
        "every one left the upstream connection clean"
    );
}

/// Answers every connection's first request with `bytes` and closes.
fn raw_backend(bytes: &'static str) -> Backend {
    Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok() {
            let _ = raw.send(bytes);
        }
    })
}
