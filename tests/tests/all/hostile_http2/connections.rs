//! Connections: how they begin, how many streams they have, and how a client says goodbye.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::{Answer, GET, KEEP_NONE, PATH, REFUSED_STREAM, answer, assert_works, silent};
use crate::frames::{self, DATA, HEADERS, RST_STREAM, frame, get, headers};
use crate::rig::{Plan, TLS, with_certificate};

const OK: Answer = Answer::Status(200);

#[test]
fn prefaces_that_are_wrong() {
    let backend = Backend::http_with(|_| response(200, "ok"));
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{head: 300ms}}\n{TLS}"))
        .pool(KEEP_NONE)
        .run_with(with_certificate(Start::new()));
    let plain = Plan::new(&[backend.address()])
        .listener("timeouts: {head: 300ms}")
        .pool(KEEP_NONE)
        .run();
    let before = (rig.proxy.settled(), plain.proxy.settled());
    // With prior knowledge: what is no preface is a request of HTTP/1.
    for (name, sent, expected) in [
        ("another version", "PRI * HTTP/3.0\r\n\r\n", "505"),
        ("half of it", "PRI * HTTP/2.0\r\n\r\nSM", "408"),
        (
            "another second half",
            "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
            "505",
        ),
    ] {
        let mut client = silent(&plain);
        client.raw.send(sent).expect("send");
        let head = client
            .raw
            .head()
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(head.split(' ').nth(1), Some(expected), "{name}");
        assert_eq!(
            client.raw.to_end().map(|_| ()).ok(),
            Some(()),
            "{name}: closed in order"
        );
    }
    // The preface alone, without SETTINGS, is a connection that is idle.
    let mut client = silent(&plain);
    client.raw.send(frames::PREFACE).expect("send");
    client.raw.send(get(1, PATH)).expect("send");
    assert_eq!(answer(&mut client, 1), OK, "without SETTINGS");
    drop(client);
    // By ALPN there is no other protocol to be, and no waiting for ever.
    for (name, sent) in [
        ("nothing", &b""[..]),
        ("half of it", b"PRI * HTTP/2.0\r\n"),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: site\r\n\r\n"),
    ] {
        let got = over_tls(rig.bind, sent);
        assert!(
            !got.windows(9).any(|w| w == b"HTTP/1.1 "),
            "{name}: {got:?}"
        );
    }
    assert_works(&plain);
    assert_eq!(backend.take_received().len(), 2);
    rig.proxy.assert_nothing_left(before.0, 8 << 20);
    plain.proxy.assert_nothing_left(before.1, 8 << 20);
}

/// Agrees on h2, sends `bytes` and gives what came until the proxy ended the connection.
fn over_tls(address: std::net::SocketAddr, bytes: &[u8]) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut openssl = std::process::Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-alpn",
            "h2",
            "-connect",
            &address.to_string(),
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut input = openssl.stdin.take().expect("stdin");
    let _ = input.write_all(bytes);
    let _ = input.flush();
    let ended = eventually(DEADLINE, || openssl.try_wait().expect("wait").is_some());
    let _ = openssl.kill();
    assert!(ended, "the connection is still open");
    let mut got = Vec::new();
    let mut output = openssl.stdout.take().expect("stdout");
    output.read_to_end(&mut got).expect("output");
    let _ = openssl.wait();
    got
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let gate = Arc::new(AtomicBool::new(false));
    let open = gate.clone();
    let backend = Backend::http_with(move |_| {
        let _ = eventually(DEADLINE, || open.load(Ordering::SeqCst));
        response(200, "ok")
    });
    let rig = Plan::new(&[backend.address()])
        .listener("limits: {streams: 4}")
        .pool(KEEP_NONE)
        .run();
    let before = rig.proxy.settled();
    let mut client = frames::Client::connect(rig.bind);
    for n in 0..6 {
        client.request(1 + 2 * n, PATH);
    }
    let mut refused = Vec::new();
    while refused.len() < 2 {
        let frame = client.next_of(&[RST_STREAM, HEADERS, frames::GOAWAY]);
        assert_eq!(
            (frame.kind, frame.code()),
            (RST_STREAM, REFUSED_STREAM),
            "{frame:?}"
        );
        refused.push(frame.stream);
    }
    assert_eq!(refused, [9, 11]);
    gate.store(true, Ordering::SeqCst);
    let mut answered: Vec<u32> = (0..4)
        .map(|_| client.next_of(&[RST_STREAM, HEADERS, frames::GOAWAY]))
        .map(|frame| {
            assert_eq!(frame.kind, HEADERS, "{frame:?}");
            frame.stream
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 3, 5, 7]);
    client.request(13, PATH);
    assert_eq!(answer(&mut client, 13), OK);
    assert_eq!(backend.received().len(), 5);
    drop(client);
    rig.proxy.assert_nothing_left(before, 8 << 20);
}

#[test]
fn a_client_that_says_goodbye_gets_what_it_asked_for() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = frames::Client::connect(rig.bind);
    let goodbye = frame(frames::GOAWAY, 0, 0, &[0; 8]);
    let bytes = [headers(1, &GET), goodbye].concat();
    client.raw.send(bytes).expect("send");
    assert_eq!(answer(&mut client, 1), OK);
    assert_eq!(client.next_of(&[DATA]).payload, b"web1");
    assert_eq!(answer(&mut client, 3), Answer::Close);
}
