//! Dates, targets, methods that are meant for proxies, and connections on which nothing is said.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;
use sluicegate::telemetry::HttpClock;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Response, curl};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::counted;
use crate::frames::{self, Client};
use crate::rig::{Plan, Rig, TLS, records, with_certificate};

const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Serves `/dated` with a date of its own, and everything else without one.
fn backend() -> Backend {
    Backend::http_with(|request| match request.target() {
        "/dated" => {
            b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
                .to_vec()
        }
        "/304" => b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(),
        target => response(200, target),
    })
}

fn ask(rig: &Rig, method: &str, target: &str, fields: &str) -> Response {
    rig.ask(format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"
    ))
}

#[test]
fn every_response_has_a_date() {
    let backend = backend();
    let rig = Plan::new(&[backend.address()]).run();
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("after 1970").as_secs()
    };
    let before = now();
    for (method, target) in [("GET", "/"), ("GET", "/304"), ("TRACE", "/"), ("GET", "/<")] {
        let answer = ask(&rig, method, target, "");
        let dates: Vec<&str> = answer
            .head
            .split("\r\n")
            .filter(|line| line.to_ascii_lowercase().starts_with("date:"))
            .collect();
        let [date] = dates[..] else {
            panic!("{method} {target}: {}", answer.head);
        };
        let seconds = (before..=now() + 1).map(|second| {
            let at = UNIX_EPOCH + Duration::from_secs(second);
            String::from_utf8_lossy(&HttpClock::default().at(at)).into_owned()
        });
        let said = date.split_once(": ").map_or("", |(_, value)| value);
        assert!(
            seconds.into_iter().any(|s| s == said),
            "{method} {target}: {date}"
        );
    }
    let dated = rig.get("/dated");
    assert_eq!(dated.field("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    let http2 = curl(&["-i", "--http2-prior-knowledge", &rig.url("/")]);
    assert_eq!(http2.body.matches("date: ").count(), 1, "{}", http2.body);
}

#[test]
fn trace_is_for_listeners_that_want_it() {
    let backend = backend();
    let rig = Plan::new(&[backend.address()]).run();
    let refused = ask(&rig, "TRACE", "/x", "Cookie: secret\r\n");
    assert_eq!(refused.status, 405, "{}", refused.head);
    assert!(!refused.field("allow").unwrap_or_default().contains("TRACE"));
    assert_eq!(rig.record("/x")["reason"], "method-not-allowed");
    let http2 = curl(&[
        "-X",
        "TRACE",
        "-w",
        "%{http_code}",
        "-o",
        "/dev/null",
        "--http2-prior-knowledge",
        &rig.url("/y"),
    ]);
    assert_eq!(http2.body, "405");
    assert!(backend.received().is_empty());
    let open = Plan::new(&[backend.address()])
        .listener("trace: true")
        .run();
    assert_eq!(ask(&open, "TRACE", "/x", "").text(), "/x");
}

#[test]
fn max_forwards_is_obeyed() {
    let backend = backend();
    let rig = Plan::new(&[backend.address()])
        .listener("trace: true")
        .run();
    let seen = |answer: Response| {
        assert_eq!(answer.status, 200, "{}", answer.head);
        let received = backend.take_received().pop();
        received.map(|r| r.field("max-forwards").unwrap_or("none").to_owned())
    };
    for (method, value, expected) in [
        ("OPTIONS", "2", Some("1")),
        ("TRACE", "1", Some("0")),
        ("TRACE", "18446744073709551616", Some("4294967294")),
        ("OPTIONS", "soon", Some("soon")),
        ("OPTIONS", "0", None),
        ("TRACE", "000", None),
        // It means nothing for other methods.
        ("GET", "0", Some("0")),
    ] {
        let answer = ask(&rig, method, "/x", &format!("Max-Forwards: {value}\r\n"));
        assert_eq!(seen(answer).as_deref(), expected, "{method} {value}");
    }
    let ends = ask(&rig, "OPTIONS", "*", "Max-Forwards: 0\r\n");
    assert!(
        ends.field("allow")
            .is_some_and(|allow| allow.contains("OPTIONS"))
    );
    let fields = "Max-Forwards: 0\r\nCookie: secret\r\nX-A: b\r\n";
    let repeated = ask(&rig, "TRACE", "/x?y", fields);
    assert_eq!(repeated.field("content-type"), Some("message/http"));
    let text = repeated.text();
    assert!(
        text.starts_with("TRACE /x?y HTTP/1.1\r\nhost: x\r\n"),
        "{text}"
    );
    assert!(
        text.contains("\r\nx-a: b\r\n") && !text.contains("secret"),
        "{text}"
    );
}

#[test]
fn a_target_means_the_same_in_every_version() {
    let backend = backend();
    let h2 = Plan::new(&[backend.address()]).run();
    let to_http2 = Plan::new(&[h2.bind]).pool("protocol: http2").run();
    let rig = Plan::new(&[backend.address()]).run();
    for byte in 0x21..0x7f_u8 {
        // Nothing of these is an ordinary character for curl to change: the target is given as it is.
        for (place, target) in [
            ("path", format!("/a{}b", byte as char)),
            ("query", format!("/a?b{}c", byte as char)),
        ] {
            if byte == b'#' {
                // HTTP/2 has no place for it: the codec cuts it off, as it would a client.
                continue;
            }
            let refused = matches!(byte, b'<' | b'>')
                || byte == b'`' && place == "path"
                || byte == b'"' && place == "query";
            let expected = if refused { 400 } else { 200 };
            for rig in [&rig, &to_http2] {
                let answer = ask(rig, "GET", &target, "");
                assert_eq!(answer.status, expected, "{target} over HTTP/1.1");
                if !refused {
                    assert_eq!(answer.text(), target);
                }
            }
        }
    }
    let bytes: Vec<u8> = (0x21..0x7f).filter(|b| *b != b'#').collect();
    for place in ["/a", "/a?b"] {
        let urls: Vec<String> = bytes
            .iter()
            .map(|b| format!("{place}{}c", *b as char))
            .collect();
        for target in urls {
            let bad = target.contains(['<', '>'])
                || target.starts_with("/a`")
                || target.starts_with("/a?b\"");
            let got = curl(&[
                "--http2-prior-knowledge",
                "--request-target",
                &target,
                &rig.url("/"),
            ]);
            if bad {
                assert_eq!(got.code, 92, "{target} over HTTP/2: {}", got.body);
            } else {
                assert_eq!(got.body, target, "over HTTP/2: {}", got.stderr);
            }
        }
    }
}

#[test]
fn the_byte_that_was_refused_is_in_the_record() {
    let backend = backend();
    let rig = Plan::new(&[backend.address()]).run();
    for (n, (target, byte, at)) in [
        ("/a<b", "0x3c", 2),
        ("/\u{e9}", "0xc3", 1),
        ("/a?b=\"", "0x22", 5),
        ("/a#b", "0x23", 2),
        ("/\x01", "0x01", 1),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(ask(&rig, "GET", target, "").status, 400, "{target:?}");
        assert!(eventually(DEADLINE, || records(&rig.proxy).len() > n));
        let record = &records(&rig.proxy)[n];
        assert_eq!(record["bad_byte"], byte, "{record}");
        assert_eq!(record["bad_byte_at"], at, "{record}");
    }
}

/// The h2 crate refuses some requests before anybody sees them.
#[test]
fn every_request_refused_over_http2_has_its_record() {
    let backend = backend();
    for (tls, version) in [("", "--http2-prior-knowledge"), (TLS, "--http2")] {
        // Records of several workers come in any order.
        let rig = Plan::new(&[backend.address()])
            .top("workers: 1")
            .listener(tls)
            .run_with(with_certificate(Start::new()));
        let url = match tls {
            "" => rig.url("/fine"),
            _ => rig.url("/fine").replace("http:", "https:"),
        };
        let refused = curl(&[version, "-k", "--request-target", "/a<b", &url]);
        assert_eq!(refused.code, 92, "{}", refused.stderr);
        let served = curl(&[version, "-k", &url]);
        assert_eq!(served.body, "/fine", "{}", served.stderr);
        let mut expected = vec![(400, "bad-request"), (200, "")];
        if tls.is_empty() {
            let mut client = Client::connect(rig.bind);
            client.raw.send(large_head(1)).expect("send");
            assert_eq!(client.next_of(&[frames::HEADERS]).status(), 431);
            expected.push((431, "headers-too-large"));
        }
        let seen = || -> Vec<(u64, String)> {
            let status = |record: &Json| record["status"].as_u64().unwrap_or(0);
            let reason = |record: &Json| record["reason"].as_str().unwrap_or("").to_owned();
            let all = records(&rig.proxy);
            assert!(all.iter().all(|record| record["version"] == "HTTP/2"));
            all.iter().map(|r| (status(r), reason(r))).collect()
        };
        assert!(eventually(DEADLINE, || seen().len() >= expected.len()));
        let seen = seen();
        let seen: Vec<_> = seen.iter().map(|(s, reason)| (*s, &**reason)).collect();
        assert_eq!(seen, expected);
        let refused = expected.len() as f64 - 1.0;
        let series = "sluicegate_requests_total{listener=\"web\",code=\"4xx\"}";
        assert_eq!(rig.proxy.metric(series), refused);
    }
}

/// A request whose fields are larger than the proxy has announced to take.
fn large_head(stream: u32) -> Vec<u8> {
    let large = "a".repeat(150_000);
    let block = frames::block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", "/large"),
        ("x-large", &large),
    ]);
    let pieces: Vec<_> = block.chunks(16_384).collect();
    let last = pieces.len() - 1;
    let frames = pieces.iter().enumerate().map(|(n, piece)| match n {
        0 => frames::frame(frames::HEADERS, END_STREAM, stream, piece),
        _ if n == last => frames::frame(CONTINUATION, END_HEADERS, stream, piece),
        _ => frames::frame(CONTINUATION, 0, stream, piece),
    });
    frames.collect::<Vec<_>>().concat()
}

#[test]
fn a_connection_on_which_nothing_was_asked_is_closed_without_a_word() {
    let backend = backend();
    for tls in ["", TLS] {
        let timeouts = "timeouts: {head: 300ms, keep-alive: 300ms, handshake: 300ms}";
        let rig = Plan::new(&[backend.address()])
            .listener(&format!("{timeouts}\n{tls}"))
            .run_with(with_certificate(Start::new()));
        // Spare connections, of which one has sent the line end that some clients send behind a body.
        assert_eq!(rig.raw().to_end().expect("an end"), b"");
        if tls.is_empty() {
            let mut blank = rig.raw();
            blank.send("\r\n").expect("send");
            assert_eq!(blank.to_end().expect("an end"), b"");
            let mut kept = rig.raw();
            kept.send("GET /kept HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("send");
            assert_eq!(kept.response().expect("an answer").status, 200);
            assert_eq!(kept.to_end().expect("an end"), b"");
            let mut partial = rig.raw();
            partial.send("GET /par").expect("send");
            assert_eq!(partial.response().expect("an answer").status, 408);
        }
        drop(rig.raw());
        counted(
            &rig.proxy,
            "sluicegate_connections_active{listener=\"web\"}",
            0.0,
        );
        // That of the request, and that of the part of one.
        let expected = if tls.is_empty() { 2 } else { 0 };
        let _ = eventually(DEADLINE, || records(&rig.proxy).len() >= expected);
        let all = records(&rig.proxy);
        assert_eq!(all.len(), expected, "{all:?}");
    }
}
