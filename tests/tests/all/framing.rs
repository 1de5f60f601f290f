//! Framing of responses: what could be read in two ways is never forwarded (RFC 9112). `hostile_clients/` has the requests.

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;

use super::rig::Plan;

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
    // Each leaves its connection clean, to be used again when it has rested.
    assert_eq!(backend.connections(), 5);
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
