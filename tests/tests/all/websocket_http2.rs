//! WebSocket over HTTP/2 (RFC 8441), to endpoints that know it over HTTP/1.1.

use std::sync::{Arc, Mutex};

use sluicegate::protocol::http::websocket::accept;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, field};

use super::frames::*;
use super::rig::{Plan, Rig};

/// Switches protocols as RFC 6455 wants it, with `extra` field lines, and sends back what it gets. With the heads that came.
fn websocket(extra: &'static str) -> (Backend, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let told = seen.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        let key = field(&head, "sec-websocket-key")
            .unwrap_or_default()
            .to_owned();
        told.lock().expect("lock").push(head);
        let _ = raw.send(format!(
            "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n{extra}\r\n",
            accept(key.as_bytes())
        ));
        while let Ok(byte) = raw.exactly(1) {
            if raw.send(byte).is_err() {
                return;
            }
        }
        // After the client's end, one last word: half-close works.
        let _ = raw.send("bye");
    });
    (backend, seen)
}

fn connect(stream: u32, protocol: &str, path: &str) -> Vec<u8> {
    headers_open(
        stream,
        &[
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":path", path),
            (":authority", "site"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
            ("origin", "http://site"),
        ],
    )
}

/// `SETTINGS_ENABLE_CONNECT_PROTOCOL` of the first SETTINGS frame.
fn is_enabled(client: &mut Client) -> bool {
    let settings = client.next_of(&[SETTINGS]);
    settings
        .payload
        .chunks(6)
        .any(|setting| *setting == [0, 8, 0, 0, 0, 1])
}

fn opened(rig: &Rig, path: &str) -> (Client, Frame) {
    let mut client = Client::connect(rig.bind);
    client
        .raw
        .send(connect(1, "websocket", path))
        .expect("send");
    let answer = client.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
    (client, answer)
}

/// So many bytes of DATA of stream 1, and whether they were the last.
fn bytes(client: &mut Client, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        all.extend(client.next_of(&[DATA]).payload);
    }
    all
}

#[test]
fn a_websocket_over_http2_is_one_over_http1_to_the_endpoint() {
    let (backend, seen) = websocket("Sec-WebSocket-Protocol: chat\r\n");
    let rig = Plan::new(&[backend.address()]).run();
    let (mut client, answer) = opened(&rig, "/ws?a");
    assert_eq!((answer.kind, answer.status()), (HEADERS, 200), "{answer:?}");
    let head = seen.lock().expect("lock").remove(0);
    assert!(head.starts_with("GET /ws?a HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", "site"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "http://site"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    assert_eq!(field(&head, "sec-websocket-key").map(str::len), Some(24));
    assert_eq!(
        field(&head, "content-length").or(field(&head, "transfer-encoding")),
        None
    );
    for n in 0..50u8 {
        let message = [0x82, 0x84, 1, 2, 3, 4, n, n, n, n];
        client.raw.send(data(1, &message)).expect("send");
        assert_eq!(bytes(&mut client, 10), message);
    }
    client.raw.send(data_end(1, b"last")).expect("send");
    assert_eq!(bytes(&mut client, 7), b"lastbye");
    let record = rig.record("/ws?a");
    assert_eq!(
        (&record["status"], &record["upgraded"], &record["version"]),
        (&200.into(), &true.into(), &"HTTP/2".into()),
        "{record}"
    );
    assert_eq!(
        (&record["bytes_in"], &record["bytes_out"]),
        (&504.into(), &507.into())
    );
    assert!(record["reason"].is_null(), "{record}");
    drop(client);
    rig.settles();
}

#[test]
fn it_is_offered_where_websocket_is_allowed() {
    let (backend, seen) = websocket("");
    for (options, enabled) in [
        ("", true),
        ("upgrade: [tcp]", false),
        ("upgrade: []", false),
    ] {
        let rig = Plan::new(&[backend.address()]).listener(options).run();
        let mut client = Client::connect(rig.bind);
        assert_eq!(is_enabled(&mut client), enabled, "{options}");
    }
    // Another protocol, an ordinary CONNECT, a pool that cannot: refused on the stream alone.
    let rig = Plan::new(&[backend.address()]).run();
    for wish in [
        connect(1, "connect-udp", "/"),
        headers_open(1, &[(":method", "CONNECT"), (":authority", "site:80")]),
    ] {
        let mut client = Client::connect(rig.bind);
        client.raw.send(wish).expect("send");
        assert_eq!(client.next_of(&[HEADERS]).status(), 405);
        client.request(3, "/after");
    }
    let rig = Plan::new(&[backend.address()])
        .pool("protocol: http2")
        .run();
    let (_client, answer) = opened(&rig, "/");
    assert_eq!(answer.status(), 405);
    assert!(
        seen.lock()
            .expect("lock")
            .iter()
            .all(|head| head.contains("/after"))
    );
}

#[test]
fn what_is_no_handshake_opens_nothing() {
    let backends = [
        // A success that is none.
        Backend::http_with(|_| response(200, "a page")),
        // An answer to another key.
        Backend::raw(|stream, _| {
            let mut raw = Raw::over(stream);
            if raw.head().is_ok() {
                let _ = raw.send(format!(
                    "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\nstolen",
                    accept(b"another")
                ));
                let _ = raw.to_end();
            }
        }),
        Backend::raw(|stream, _| {
            let mut raw = Raw::over(stream);
            if raw.head().is_ok() {
                let _ = raw.send(
                    "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nstolen",
                );
                let _ = raw.to_end();
            }
        }),
    ];
    for backend in &backends {
        let rig = Plan::new(&[backend.address()]).pool("retries: 0").run();
        let (mut client, answer) = opened(&rig, "/no");
        assert_eq!(answer.status(), 502);
        assert!(!String::from_utf8_lossy(&client.next_of(&[DATA]).payload).contains("stolen"));
        assert_eq!(rig.record("/no")["reason"], "upstream-malformed");
    }
    // A refusal is passed on as it is.
    let backend = Backend::http_with(|_| response(403, "no"));
    let rig = Plan::new(&[backend.address()]).run();
    let (mut client, answer) = opened(&rig, "/403");
    assert_eq!(answer.status(), 403);
    assert_eq!(bytes(&mut client, 2), b"no");
}

#[test]
fn a_stream_that_is_reset_ends_its_tunnel_alone() {
    let (backend, _) = websocket("");
    let rig = Plan::new(&[backend.address()]).run();
    let (mut client, answer) = opened(&rig, "/a");
    assert_eq!(answer.status(), 200);
    client
        .raw
        .send(connect(3, "websocket", "/b"))
        .expect("send");
    client.next_of(&[HEADERS]);
    client.cancel(1);
    rig.record("/a");
    client.raw.send(data(3, b"ping")).expect("send");
    assert_eq!(bytes(&mut client, 4), b"ping");
    drop(client);
    rig.record("/b");
    rig.settles();
}
