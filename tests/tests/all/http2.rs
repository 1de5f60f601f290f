//! HTTP/2 from clients: by prior knowledge and by ALPN.

use std::process::Command;

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;

use super::frames;
use super::rig::{Plan, Rig, TLS, with_certificate};

fn tls_rig(backend: &Backend) -> Rig {
    Plan::new(&[backend.address()])
        .listener(TLS)
        .run_with(with_certificate(Start::new()))
}

#[test]
fn both_ways_to_http2_and_http1_beside_them() {
    let backend = Backend::http("web1");
    let plain = Plan::new(&[backend.address()]).run();
    let tls = tls_rig(&backend);
    let format = ["-w", " %{http_version}"];
    let https = tls.url("/").replace("http:", "https:");
    for (arguments, expected) in [
        (["--http2-prior-knowledge", &plain.url("/")], "web1 2"),
        (["--http1.1", &plain.url("/")], "web1 1.1"),
        (["-k", &https], "web1 2"),
        (["-k1", &https], "web1 1.1"),
        (["-k0", &https], "web1 1.1"),
    ] {
        let arguments = match arguments {
            ["-k1", url] => vec!["-k", "--http1.1", url],
            ["-k0", url] => vec!["-k", "--http1.0", url],
            [option, url] => vec![option, url],
        };
        let done = curl(&[&format[..], &arguments].concat());
        assert_eq!(done.body, expected, "{arguments:?}: {}", done.stderr);
    }
    assert!(
        backend
            .received()
            .iter()
            .all(|r| r.head.contains(" HTTP/1.1"))
    );
}

#[test]
fn without_http2_it_is_neither_offered_nor_taken() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("http2: false\n{TLS}"))
        .run_with(with_certificate(Start::new()));
    let done = curl(&[
        "-k",
        "-w",
        " %{http_version}",
        &rig.url("/").replace("http:", "https:"),
    ]);
    assert_eq!(done.body, "web1 1.1");
    let plain = Plan::new(&[backend.address()])
        .listener("http2: false")
        .run();
    let mut raw = plain.raw();
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("send");
    assert_eq!(raw.response().expect("response").status, 505);
}

#[test]
fn many_streams_on_many_connections_lose_nothing() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let done = Command::new("h2load")
        .args(["-n", "5000", "-c", "10", "-m", "20", &rig.url("/")])
        .output()
        .expect("h2load runs");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        text.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{text}"
    );
    assert!(text.contains("status codes: 5000 2xx"), "{text}");
    rig.settles();
}

#[test]
fn a_response_that_comes_in_pieces_with_pauses_arrives() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while raw.head().is_ok() {
            let _ = raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for _ in 0..3 {
                std::thread::sleep(std::time::Duration::from_millis(100));
                let _ = raw.send("3\r\nabc\r\n");
            }
            let _ = raw.send("0\r\n\r\n");
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let done = curl(&["--http2-prior-knowledge", "--max-time", "5", &rig.url("/")]);
    assert_eq!(
        (done.code, done.body.as_str()),
        (0, "abcabcabc"),
        "{}",
        done.stderr
    );
}

#[test]
fn cookie_crumbs_are_joined() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let done = Command::new("nghttp")
        .args([
            "-H",
            "cookie: a=1",
            "-H",
            "cookie: b=2",
            "-H",
            "cookie: c=3",
            &rig.url("/"),
        ])
        .output()
        .expect("nghttp runs");
    assert!(done.status.success());
    let got = backend.take_received().remove(0);
    assert_eq!(got.fields("cookie").collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    assert_eq!(got.field("x-forwarded-proto"), Some("http"));
}

#[test]
fn an_authority_that_differs_from_host_is_400() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    for (host, expected) in [
        ("other", frames::STATUS_400),
        ("site", frames::STATUS_200),
        ("SITE", frames::STATUS_200),
    ] {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "site"),
            ("host", host),
        ];
        let mut client = frames::Client::connect(rig.bind);
        client.raw.send(frames::headers(1, &fields)).expect("send");
        let answer = client.next_of(&[frames::HEADERS, frames::RST_STREAM, frames::GOAWAY]);
        assert_eq!(
            (answer.kind, answer.payload[0]),
            (frames::HEADERS, expected),
            "{host}"
        );
    }
    assert_eq!(backend.received().len(), 2);
}

#[test]
fn requests_over_the_limits_are_refused_on_their_stream() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener("limits: {header-fields: 10, target-bytes: 1KiB}")
        .run();
    let code = [
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ];
    let long = rig.url(&format!("/{}", "a".repeat(1500)));
    assert_eq!(curl(&[&code[..], &[&long]].concat()).body, "414");
    let fields: Vec<String> = (0..12).map(|n| format!("x-{n}: y")).collect();
    let many: Vec<&str> = fields.iter().flat_map(|f| ["-H", f.as_str()]).collect();
    let url = rig.url("/");
    assert_eq!(curl(&[&code[..], &many, &[&url]].concat()).body, "431");
    assert_eq!(curl(&[&code[..], &[&url]].concat()).body, "200");
    rig.settles();
}

#[test]
fn trailers_pass_in_both_directions() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            assert_eq!(
                sluicegate_tests::client::field(&head, "te"),
                Some("trailers"),
                "{head}"
            );
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                match raw.exactly(1) {
                    Ok(byte) => seen.extend(byte),
                    Err(_) => return,
                }
            }
            let trailers = String::from_utf8_lossy(&seen).contains("x-check: 7");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{trailers:5}\r\n0\r\ngrpc-status: 0\r\n\r\n"
            );
            let _ = raw.send(answer);
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let body = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(body.path(), "hello").expect("body");
    let data = body.path().display().to_string();
    let done = Command::new("nghttp")
        .args([
            "-v",
            "-d",
            &data,
            "--trailer",
            "x-check: 7",
            "-H",
            "te: trailers",
            &rig.url("/"),
        ])
        .output()
        .expect("nghttp runs");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(text.contains("grpc-status: 0"), "{text}");
    assert!(text.contains("true"), "{text}");
}

#[test]
fn a_stream_that_is_cancelled_leaves_the_others_alone() {
    let backend = Backend::http_with(|r| {
        if r.target() == "/slow" {
            std::thread::sleep(std::time::Duration::from_secs(2));
        }
        response(200, "ok")
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = frames::Client::connect(rig.bind);
    client.request(1, "/slow");
    let waiting = || backend.connections() == 1;
    assert!(sluicegate_tests::wait::eventually(
        sluicegate_tests::wait::DEADLINE,
        waiting
    ));
    client.cancel(1);
    client.request(3, "/fast");
    let answer = client.next_of(&[frames::HEADERS, frames::RST_STREAM, frames::GOAWAY]);
    assert_eq!(
        (answer.kind, answer.stream, answer.payload[0]),
        (frames::HEADERS, 3, frames::STATUS_200)
    );
    let record = rig.record("/slow");
    assert_eq!(
        (&record["status"], &record["reason"]),
        (&499.into(), &"client-gone".into())
    );
    drop(client);
    rig.settles();
}

#[test]
fn rapid_reset_ends_in_a_goaway_and_bounded_upstream_work() {
    let backend = Backend::raw(|stream, _| {
        let _ = Raw::over(stream).to_end();
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = frames::Client::connect(rig.bind);
    let mut flood = Vec::new();
    for n in 0..20_000u32 {
        flood.extend(frames::get(1 + 2 * n, "/"));
        flood.extend(frames::cancel(1 + 2 * n));
    }
    let _ = client.raw.send(&flood);
    // A GOAWAY with ENHANCE_YOUR_CALM, unless the reset of the connection overtook it.
    if let Ok(bytes) = client.raw.to_end() {
        let calm = bytes
            .windows(17)
            .any(|f| f[3] == 7 && f[13..17] == [0, 0, 0, 11]);
        assert!(calm, "no GOAWAY in {} bytes", bytes.len());
    }
    assert!(
        backend.connections() < 1000,
        "{} upstream connections",
        backend.connections()
    );
    assert_eq!(rig.proxy.resources().resident_bytes / (200 << 20), 0);
    rig.settles();
}

#[test]
fn informational_responses_are_relayed() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let expects = head.contains("expect: 100-continue");
            let _ = raw.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
            if expects {
                let _ = raw.send("HTTP/1.1 100 Continue\r\n\r\n");
                let _ = raw.exactly(4);
            }
            let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = frames::Client::connect(rig.bind);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "site"),
        ("content-length", "4"),
        ("expect", "100-continue"),
    ];
    let head = frames::headers_open(1, &fields);
    client.raw.send(head).expect("send");
    let mut next = || client.next_of(&[frames::HEADERS, frames::RST_STREAM]);
    assert_eq!(next().status(), 103);
    assert_eq!(next().status(), 100);
    let body = frames::data_end(1, b"body");
    client.raw.send(body).expect("send");
    let answer = client.next_of(&[frames::HEADERS, frames::RST_STREAM]);
    assert_eq!(answer.status(), 200);
    assert_eq!(client.next_of(&[frames::DATA]).payload, b"ok");
}
