//! Frames that are wrong, or come when they may not.
//!
//! Where RFC 9113 names FRAME_SIZE_ERROR, COMPRESSION_ERROR or the h2 crate says PROTOCOL_ERROR.

use super::{
    Answer, Case, FLOW_CONTROL_ERROR, GET, KEEP_NONE, PATH, POST, PROTOCOL_ERROR, REFUSED_STREAM,
    answer, assert_works, run, silent,
};
use crate::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, cancel, data, data_end, frame, get, headers,
    headers_open, setting, window_update,
};
use crate::rig::{Plan, TLS, with_certificate};
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

const ENDS: Answer = Answer::GoAway(PROTOCOL_ERROR);
const OK: Answer = Answer::Status(200);

fn get1() -> Vec<u8> {
    headers(1, &GET)
}

fn post1() -> Vec<u8> {
    headers_open(1, &POST)
}

#[test]
fn frames_that_are_not_allowed_where_they_come() {
    run(
        "",
        &[
            Case::new("DATA on an idle stream", data(1, b"x"), ENDS),
            Case::new("DATA on stream 0", data(0, b"x"), ENDS),
            Case::new("HEADERS on stream 0", headers(0, &GET), ENDS),
            Case::new("an even stream", headers(2, &GET), ENDS),
            Case::new(
                "a stream below one that began",
                [headers_open(3, &POST), get1()].concat(),
                ENDS,
            ),
            Case::new("RST_STREAM on an idle stream", cancel(1), ENDS),
            Case::new("RST_STREAM on stream 0", cancel(0), ENDS),
            Case::new("WINDOW_UPDATE on an idle stream", window_update(1, 1), ENDS),
            Case::new("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), ENDS),
            Case::new("PING on a stream", frame(PING, 0, 1, &[0; 8]), ENDS),
            Case::new(
                "GOAWAY on a stream",
                frame(frames::GOAWAY, 0, 1, &[0; 8]),
                ENDS,
            ),
            Case::new("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), ENDS),
            Case::new(
                "PUSH_PROMISE",
                [
                    post1(),
                    frame(
                        5,
                        END_HEADERS,
                        1,
                        &[&[0, 0, 0, 2], &block(&GET)[..]].concat(),
                    ),
                ]
                .concat(),
                ENDS,
            ),
            Case::new(
                "CONTINUATION of nothing",
                frame(CONTINUATION, END_HEADERS, 1, &[]),
                ENDS,
            ),
            Case::new(
                "CONTINUATION of another stream",
                {
                    [
                        frame(HEADERS, END_STREAM, 1, &block(&GET)),
                        frame(CONTINUATION, END_HEADERS, 3, &[]),
                    ]
                    .concat()
                },
                ENDS,
            ),
            Case::new(
                "a frame amid a header block",
                {
                    [
                        frame(HEADERS, END_STREAM, 1, &block(&GET)),
                        frame(PING, 0, 0, &[0; 8]),
                    ]
                    .concat()
                },
                ENDS,
            ),
            Case::new(
                "an unknown frame amid a header block",
                {
                    [
                        frame(HEADERS, END_STREAM, 1, &block(&GET)),
                        frame(0x42, 0, 0, b"?"),
                    ]
                    .concat()
                },
                ENDS,
            ),
            Case::new(
                "an acknowledgement of settings nobody sent",
                frame(SETTINGS, ACK, 0, &[]).repeat(2),
                ENDS,
            ),
            Case::new(
                "an acknowledgement of a ping nobody sent",
                [frame(PING, ACK, 0, &[7; 8]), get1()].concat(),
                OK,
            )
            .reaching(1),
            Case::new(
                "an unknown frame",
                [frame(0x42, 0xff, 0, b"?"), get1()].concat(),
                OK,
            )
            .reaching(1),
            Case::new(
                "an unknown setting",
                [setting(0x4242, 7), get1()].concat(),
                OK,
            )
            .reaching(1),
        ],
    );
}

#[test]
fn a_client_that_says_goodbye_gets_what_it_asked_for() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = frames::Client::connect(rig.bind);
    let goodbye = frame(frames::GOAWAY, 0, 0, &[0; 8]);
    let bytes = [get1(), goodbye].concat();
    client.raw.send(bytes).expect("send");
    assert_eq!(answer(&mut client, 1), OK);
    assert_eq!(client.next_of(&[DATA]).payload, b"web1");
    assert_eq!(answer(&mut client, 3), Answer::Close);
}

#[test]
fn frames_of_a_wrong_size() {
    run(
        "",
        &[
            Case::new(
                "DATA larger than allowed",
                [post1(), data(1, &[0; 16 * 1024 + 1])].concat(),
                Answer::GoAway(super::FRAME_SIZE_ERROR),
            ),
            Case::new(
                "HEADERS larger than allowed",
                frame(HEADERS, 5, 1, &[0; 16 * 1024 + 1]),
                Answer::GoAway(super::FRAME_SIZE_ERROR),
            ),
            Case::new(
                "the largest frame a head can tell",
                [0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1].to_vec(),
                Answer::GoAway(super::FRAME_SIZE_ERROR),
            ),
            Case::new("PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), ENDS),
            Case::new("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), ENDS),
            Case::new(
                "an acknowledgement with content",
                frame(SETTINGS, ACK, 0, &[0; 6]),
                ENDS,
            ),
            Case::new(
                "RST_STREAM of 3 bytes",
                [post1(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
                ENDS,
            ),
            Case::new(
                "WINDOW_UPDATE of 3 bytes",
                frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
                ENDS,
            ),
            Case::new("PRIORITY of 4 bytes", frame(PRIORITY, 0, 1, &[0; 4]), ENDS),
            Case::new(
                "padding beyond DATA",
                [post1(), frame(DATA, PADDED, 1, &[9, 0, 0])].concat(),
                ENDS,
            ),
            Case::new(
                "padding beyond HEADERS",
                frame(HEADERS, PADDED | 5, 1, &[&[200][..], &block(&GET)].concat()),
                ENDS,
            ),
            Case::new(
                "a frame that is all padding",
                [post1(), frame(DATA, PADDED | END_STREAM, 1, &[3, 0, 0, 0])].concat(),
                OK,
            )
            .reaching(1),
        ],
    );
}

#[test]
fn settings_windows_and_priorities_that_are_wrong() {
    run(
        "",
        &[
            Case::new("ENABLE_PUSH of 2", setting(2, 2), ENDS),
            Case::new(
                "INITIAL_WINDOW_SIZE beyond 2^31-1",
                setting(4, 1 << 31),
                ENDS,
            ),
            Case::new("MAX_FRAME_SIZE below 2^14", setting(5, 100), ENDS),
            Case::new("MAX_FRAME_SIZE beyond 2^24-1", setting(5, 1 << 24), ENDS),
            Case::new(
                "a window of 0 more for the connection",
                window_update(0, 0),
                ENDS,
            ),
            Case::new(
                "a window of 0 more for a stream",
                [post1(), window_update(1, 0)].concat(),
                ENDS,
            ),
            Case::new(
                "a connection's window beyond 2^31-1",
                window_update(0, i32::MAX as u32),
                Answer::GoAway(FLOW_CONTROL_ERROR),
            ),
            Case::new(
                "a stream's window beyond 2^31-1",
                [post1(), window_update(1, i32::MAX as u32)].concat(),
                Answer::Reset(FLOW_CONTROL_ERROR),
            ),
            Case::new(
                "more data than a stream's window",
                {
                    let piece = data(1, &[0; 16 * 1024]);
                    [post1(), piece.repeat(5)].concat()
                },
                Answer::Reset(FLOW_CONTROL_ERROR),
            )
            // The connection's window grows when our update is out.
            .or(Answer::GoAway(FLOW_CONTROL_ERROR)),
            Case::new(
                "a stream that depends on itself",
                [post1(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])].concat(),
                Answer::Reset(PROTOCOL_ERROR),
            ),
            Case::new(
                "HEADERS that depend on themselves",
                {
                    frame(
                        HEADERS,
                        0x25,
                        1,
                        &[&[0, 0, 0, 1, 0], &block(&GET)[..]].concat(),
                    )
                },
                Answer::Reset(PROTOCOL_ERROR),
            ),
            Case::new(
                "data after the end",
                [headers(1, &POST), data(1, b"x")].concat(),
                ENDS,
            ),
            Case::new(
                "a second end",
                [post1(), data_end(1, b"x"), data_end(1, b"x")].concat(),
                ENDS,
            ),
            Case::new(
                "headers after the end",
                [headers(1, &POST), headers(1, &POST)].concat(),
                ENDS,
            ),
        ],
    );
}

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
    let gate = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let open = gate.clone();
    let backend = Backend::http_with(move |_| {
        let _ = eventually(DEADLINE, || open.load(std::sync::atomic::Ordering::SeqCst));
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
    gate.store(true, std::sync::atomic::Ordering::SeqCst);
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
