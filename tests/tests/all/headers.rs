//! Fields on their way through: hop-by-hop, forwarding, Host (RFC 9110 §7.6, RFC 7239).

use sluicegate_tests::backend::{Backend, Received};
use sluicegate_tests::client::Raw;

use super::rig::Plan;

/// What the backend sees of `fields`, with a listener that has `options`.
fn seen(options: &str, fields: &str) -> Received {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).listener(options).run();
    let answer = rig.ask(format!(
        "GET /p HTTP/1.1\r\nHost: site:8080\r\n{fields}\r\n"
    ));
    assert_eq!(answer.status, 200, "{fields:?}");
    backend.take_received().remove(0)
}

#[test]
fn hop_by_hop_fields_and_what_connection_names_are_removed() {
    let got = seen(
        "",
        "Connection: X-One, keep-alive\r\nConnection: x-two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: a\r\nProxy-Authorization: b\r\nProxy-Authenticate: c\r\nTE: trailers, gzip\r\nUpgrade: foo\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    );
    for gone in [
        "x-one",
        "x-two",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "upgrade",
        "http2-settings",
    ] {
        assert_eq!(got.field(gone), None, "{gone} in {}", got.head);
    }
    assert_eq!(got.field("x-three"), Some("3"));
    // Made anew for this hop.
    assert_eq!(got.field("te"), Some("trailers"));
    assert_eq!(got.field("connection"), Some("te"));
}

#[test]
fn what_is_protected_cannot_be_named_away() {
    let names = "Host, Content-Length, Content-Type, Authorization, Cookie, Cache-Control, X-Forwarded-For, \
                 X-Forwarded-Proto, Forwarded, Via";
    let got = seen(
        "trusted-proxies: [127.0.0.0/8]",
        &format!(
            "Connection: {names}\r\nContent-Type: t\r\nAuthorization: a\r\nCookie: c=d\r\nCache-Control: no-store\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\nVia: 1.1 first\r\n"
        ),
    );
    assert_eq!(got.field("host"), Some("site:8080"));
    for (name, value) in [
        ("content-type", "t"),
        ("authorization", "a"),
        ("cookie", "c=d"),
        ("cache-control", "no-store"),
        ("x-forwarded-for", "192.0.2.1, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=192.0.2.1"),
    ] {
        assert_eq!(got.field(name), Some(value), "{name} in {}", got.head);
    }
    let via: Vec<_> = got.fields("via").collect();
    assert_eq!(via, ["1.1 first", "1.1 sluicegate"]);
}

#[test]
fn hop_by_hop_fields_of_responses_are_removed_too() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while raw.head().is_ok() {
            let answer = "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Kept: 2\r\n\
                          Proxy-Authenticate: no\r\nContent-Length: 2\r\n\r\nok";
            let _ = raw.send(answer);
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let answer = rig.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    for gone in ["x-hop", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(answer.field(gone), None, "{gone} in {}", answer.head);
    }
    assert_eq!(answer.field("x-kept"), Some("2"));
    assert_eq!(answer.field("via"), Some("1.1 sluicegate"));
}

#[test]
fn an_untrusted_peer_is_told_about_anew() {
    let got = seen(
        "",
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
         X-Forwarded-Prefix: /evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-Id: evil\r\n",
    );
    for (name, value) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("site:8080")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-prefix", None),
        ("forwarded", None),
    ] {
        assert_eq!(got.field(name), value, "{name} in {}", got.head);
        assert!(got.fields(name).count() <= 1, "{name}");
    }
    assert_ne!(got.field("x-forwarded-port"), Some("1"));
    let id = got.field("x-request-id").expect("an id");
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
}

#[test]
fn a_trusted_peer_is_appended_to_and_the_client_is_the_first_untrusted_from_the_right() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener("trusted-proxies: [127.0.0.0/8, 10.0.0.0/8]")
        .run();
    rig.ask(
        "GET /t HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-For: 10.1.1.1\r\n\
         X-Request-Id: from-the-edge\r\nX-Forwarded-Proto: https\r\n\r\n",
    );
    let got = backend.take_received().remove(0);
    let lines: Vec<_> = got.fields("x-forwarded-for").collect();
    assert_eq!(lines, ["6.6.6.6, 192.0.2.7, 10.1.1.1, 127.0.0.1"]);
    assert_eq!(got.field("x-real-ip"), Some("192.0.2.7"));
    assert_eq!(got.field("x-request-id"), Some("from-the-edge"));
    assert_eq!(got.field("x-forwarded-proto"), Some("https"));
    let record = rig.record("/t");
    assert_eq!(
        (record["client"].as_str(), record["peer"].as_str()),
        (Some("192.0.2.7"), Some("127.0.0.1"))
    );
    assert_eq!(record["request_id"], "from-the-edge");
}

#[test]
fn forwarding_fields_are_of_the_kind_the_listener_asks_for() {
    let spoofed = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n";
    let got = seen("forwarded: none", spoofed);
    for name in [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "forwarded",
        "x-request-id",
    ] {
        assert_eq!(got.field(name), None, "{name}");
    }
    let got = seen("forwarded: rfc7239", spoofed);
    assert_eq!(got.field("x-forwarded-for"), None);
    let forwarded = got.field("forwarded").expect("forwarded");
    assert!(
        forwarded.starts_with("for=127.0.0.1;by=127."),
        "{forwarded}"
    );
    assert!(
        forwarded.ends_with(";host=\"site:8080\";proto=http"),
        "{forwarded}"
    );
    let got = seen("forwarded: both", spoofed);
    assert_eq!(got.field("x-forwarded-for"), Some("127.0.0.1"));
    assert!(got.field("forwarded").is_some());
}

#[test]
fn host_is_kept_unless_the_pool_says_otherwise() {
    for (policy, expected) in [
        ("", "site:8080"),
        ("host: preserve", "site:8080"),
        ("host: internal", "internal"),
    ] {
        let backend = Backend::http("web1");
        let rig = Plan::new(&[backend.address()]).pool(policy).run();
        rig.ask("GET / HTTP/1.1\r\nHost: site:8080\r\n\r\n");
        assert_eq!(
            backend.take_received()[0].field("host"),
            Some(expected),
            "{policy}"
        );
    }
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).pool("host: endpoint").run();
    rig.ask("GET / HTTP/1.1\r\nHost: site:8080\r\n\r\n");
    let address = backend.address().to_string();
    let got = backend.take_received().remove(0);
    assert_eq!(got.field("host"), Some(address.as_str()));
    assert_eq!(got.field("x-forwarded-host"), Some("site:8080"));
}

#[test]
fn trailers_are_forwarded_both_ways_but_not_those_that_frame_or_were_named() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while raw.head().is_ok() {
            // The request's chunks, up to and with its trailers, read raw and sent back as the body.
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                match raw.exactly(1) {
                    Ok(byte) => seen.extend(byte),
                    Err(_) => return,
                }
            }
            let head = "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n";
            let trailers = "X-Sum: 42\r\nX-Hop: 1\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n";
            let body = format!(
                "{head}{:x}\r\n{}\r\n0\r\n{trailers}\r\n",
                seen.len(),
                String::from_utf8_lossy(&seen)
            );
            let _ = raw.send(body);
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: X-Named\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Check: 7\r\nX-Named: 1\r\nHost: evil\r\nTransfer-Encoding: gzip\r\n\r\n",
    )
    .expect("send");
    let head = raw.head().expect("head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut rest = String::new();
    while !rest.ends_with("0\r\nx-sum: 42\r\n\r\n") {
        let byte = raw
            .exactly(1)
            .unwrap_or_else(|why| panic!("{why} after {rest:?}"));
        rest.push(char::from(byte[0]));
        assert!(rest.len() < 10_000, "{rest}");
    }
    assert!(
        rest.contains("2\r\nhi\r\n0\r\nx-check: 7\r\n\r\n"),
        "{rest}"
    );
    for never in [
        "x-named",
        "evil",
        "gzip",
        "x-hop",
        "set-cookie",
        "content-length",
    ] {
        assert!(
            !rest.to_ascii_lowercase().contains(never),
            "{never} in {rest}"
        );
    }
}
