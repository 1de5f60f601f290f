//! Upgrades, interim responses, and bodies of every size and pace.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl, curl_within, field};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::rig::Plan;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches protocols, then sends back what it gets.
fn websocket() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        let Ok(head) = raw.head() else { return };
        assert_eq!(field(&head, "upgrade"), Some("websocket"), "{head}");
        assert_eq!(field(&head, "connection"), Some("upgrade"), "{head}");
        let _ = raw.send(SWITCHED);
        let mut bytes = [0; 4096];
        let mut stream = &stream;
        while let Ok(n @ 1..) = stream.read(&mut bytes) {
            if stream.write_all(&bytes[..n]).is_err() {
                return;
            }
        }
        // After the client's end, one last word: half-close works.
        let _ = stream.write_all(b"bye");
    })
}

#[test]
fn a_websocket_passes_frames_both_ways_and_closes_in_order() {
    let backend = websocket();
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send(UPGRADE).expect("send");
    let head = raw.head().expect("head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(field(&head, "connection"), Some("upgrade"));
    assert_eq!(
        field(&head, "sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for n in 0..50u8 {
        let frame = [0x82, 0x80 | 4, 1, 2, 3, 4, n, n, n, n];
        raw.send(frame).expect("send");
        assert_eq!(raw.exactly(10).expect("echo"), frame);
    }
    raw.stream()
        .shutdown(std::net::Shutdown::Write)
        .expect("shutdown");
    assert_eq!(raw.to_end().expect("an orderly end"), b"bye");
    let record = rig.record("/ws");
    assert_eq!(
        (&record["status"], &record["upgraded"]),
        (&101.into(), &true.into())
    );
    assert!(record["reason"].is_null(), "{record}");
    assert_eq!(record["bytes_in"], 500);
    rig.settles();
}

#[test]
fn a_protocol_that_is_not_allowed_is_not_forwarded() {
    let backend = Backend::http("plain");
    for (options, upgrade) in [("", "h2c"), ("", "foo"), ("upgrade: []", "websocket")] {
        let rig = Plan::new(&[backend.address()]).listener(options).run();
        let answer = rig.ask(format!(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
        ));
        assert_eq!((answer.status, answer.text().as_str()), (200, "plain"));
        let got = backend.take_received().remove(0);
        assert_eq!(
            (got.field("upgrade"), got.field("connection")),
            (None, None),
            "{}",
            got.head
        );
    }
}

#[test]
fn no_byte_moves_before_a_valid_101() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nstolen",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\nstolen",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nstolen",
    ] {
        let got = Arc::new(AtomicUsize::new(0));
        let counted = got.clone();
        let backend = Backend::raw(move |stream, _| {
            let mut raw = Raw::over(stream);
            if raw.head().is_ok() {
                let _ = raw.send(answer);
                let rest = raw.to_end().unwrap_or_default();
                counted.fetch_add(rest.len(), Ordering::SeqCst);
            }
        });
        let rig = Plan::new(&[backend.address()]).pool("retries: 0").run();
        let mut raw = rig.raw();
        raw.send(format!("{UPGRADE}early bytes of the client"))
            .expect("send");
        let reply = raw.response().expect("response");
        assert_eq!(reply.status, 502, "{answer:?}");
        assert!(!reply.text().contains("stolen"));
        assert_eq!(got.load(Ordering::SeqCst), 0, "{answer:?}");
    }
}

/// Reads a request with its body, tells what it was, switches protocols with this answer, and sends back what it gets.
fn switches(answer: &'static str) -> (Backend, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let told = seen.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        let Ok(head) = raw.head() else { return };
        let Ok(body) = raw.body(&head, 0) else { return };
        let body = String::from_utf8_lossy(&body);
        told.lock()
            .expect("lock")
            .push(format!("{head}\r\n\r\n{body}"));
        let _ = raw.send(answer);
        while let Ok(byte) = raw.exactly(1) {
            if raw.send(byte).is_err() {
                return;
            }
        }
    });
    (backend, seen)
}

const TCP: &str = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                   Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

#[test]
fn a_request_with_a_body_may_upgrade() {
    let body = "{\"Detach\":false,\"Tty\":false }";
    assert_eq!(body.len(), 29);
    let framed = [
        format!("Content-Length: 29\r\n\r\n{body}"),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n10\r\n{}\r\nd\r\n{}\r\n0\r\n\r\n",
            &body[..16],
            &body[16..]
        ),
    ];
    for filters in [
        "",
        "filters: [{module: \"builtin:headers\", settings: {response: [{set: x-seen, value: \"yes\"}]}}]",
    ] {
        for framed in &framed {
            for early in ["", "ls\n"] {
                let (backend, seen) = switches(TCP);
                let rig = Plan::new(&[backend.address()])
                    .listener("upgrade: [tcp]")
                    .listener(filters)
                    .run();
                let mut raw = rig.raw();
                raw.send(format!(
                    "POST /exec/1/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
                     Content-Type: application/json\r\n{framed}{early}"
                ))
                .expect("send");
                let head = raw.head().expect("head");
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                assert_eq!(field(&head, "upgrade"), Some("tcp"));
                assert_eq!(
                    field(&head, "content-type"),
                    Some("application/vnd.docker.raw-stream")
                );
                let got = seen.lock().expect("lock").remove(0);
                let (got, got_body) = got.split_once("\r\n\r\n").expect("a body");
                assert_eq!(got_body, body);
                assert_eq!(
                    (field(got, "upgrade"), field(got, "connection")),
                    (Some("tcp"), Some("upgrade")),
                    "{got}"
                );
                raw.send("more").expect("send");
                let expected = format!("{early}more");
                assert_eq!(
                    raw.exactly(expected.len()).expect("echo"),
                    expected.as_bytes()
                );
                drop(raw);
                let record = rig.record("/exec/1/start");
                assert_eq!(
                    (&record["status"], &record["upgraded"]),
                    (&101.into(), &true.into())
                );
                rig.settles();
            }
        }
    }
}

#[test]
fn a_101_that_comes_before_the_body_has_ended_waits_for_it() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if raw.head().is_err() || raw.send(TCP).is_err() || raw.send("welcome").is_err() {
            return;
        }
        let Ok(body) = raw.exactly(10) else { return };
        let _ = raw.send(body);
        let Ok(rest) = raw.exactly(4) else { return };
        let _ = raw.send(rest);
    });
    let rig = Plan::new(&[backend.address()])
        .listener("upgrade: [tcp]")
        .run();
    let mut raw = rig.raw();
    raw.send("POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 10\r\n\r\n12345")
        .expect("send");
    // No raw byte of either side is taken for a part of the message.
    assert!(eventually(DEADLINE, || backend.connections() == 1));
    raw.send("67890rest").expect("send");
    assert!(raw.head().expect("head").starts_with("HTTP/1.1 101 "));
    assert_eq!(raw.exactly(21).expect("all"), b"welcome1234567890rest");
    // A body that breaks off is no upgrade.
    let mut raw = rig.raw();
    raw.send("POST /b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 10\r\n\r\n12345")
        .expect("send");
    raw.stream()
        .shutdown(std::net::Shutdown::Write)
        .expect("shutdown");
    assert_eq!(raw.to_end().expect("the end"), b"");
    assert_eq!(rig.record("/b")["reason"], "client-gone");
}

#[test]
fn a_declined_upgrade_with_a_body_is_an_ordinary_exchange() {
    let backend = Backend::http_with(|got| response(200, &String::from_utf8_lossy(&got.body)));
    let rig = Plan::new(&[backend.address()])
        .listener("upgrade: [tcp]")
        .run();
    let mut raw = rig.raw();
    for body in ["first", "second"] {
        raw.send(format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .expect("send");
        assert_eq!(raw.response().expect("response").text(), body);
    }
}

#[test]
fn of_several_protocols_those_that_are_allowed_are_asked_for() {
    let cases = [
        // What the client lists, what the endpoint is asked, what it answers.
        ("Upgrade: h2c, websocket\r\n", "websocket", "websocket"),
        (
            "Upgrade: h2c\r\nUpgrade: WebSocket\r\n",
            "WebSocket",
            "websocket",
        ),
        ("Upgrade: websocket, , TCP,h2c\r\n", "websocket, TCP", "tcp"),
        (
            "Upgrade: websocket\r\nUpgrade: SPDY/3.1\r\n",
            "websocket, SPDY/3.1",
            "spdy/3.1",
        ),
        (
            "Upgrade: websocket, tcp\r\n",
            "websocket, tcp",
            "WEBSOCKET, TCP",
        ),
    ];
    for (listed, asked, answered) in cases {
        let answer =
            format!("HTTP/1.1 101 S\r\nConnection: UPGRADE\r\nUpgrade: {answered}\r\n\r\n");
        let (backend, seen) = switches(Box::leak(answer.into_boxed_str()));
        let rig = Plan::new(&[backend.address()])
            .listener("upgrade: [websocket, tcp, spdy/3.1]")
            .run();
        let mut raw = rig.raw();
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{listed}\r\n"
        ))
        .expect("send");
        let head = raw.head().expect("head");
        assert!(head.starts_with("HTTP/1.1 101 "), "{listed}: {head}");
        assert_eq!(field(&head, "upgrade"), Some(answered));
        assert_eq!(
            field(&seen.lock().expect("lock")[0], "upgrade"),
            Some(asked),
            "{listed}"
        );
        raw.send("ping").expect("send");
        assert_eq!(raw.exactly(4).expect("echo"), b"ping");
    }
    // Neither what was not allowed nor what was not offered may be switched to.
    for answered in ["h2c", "tcp", "websocket, tcp", ""] {
        let answer =
            format!("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: {answered}\r\n\r\n");
        let (backend, _) = switches(Box::leak(answer.into_boxed_str()));
        let rig = Plan::new(&[backend.address()])
            .listener("upgrade: [websocket, tcp]")
            .run();
        let answer = rig.ask(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n",
        );
        assert_eq!(answer.status, 502, "{answered:?}");
    }
}

#[test]
fn an_upgrade_that_the_backend_declines_is_an_ordinary_exchange() {
    let backend = Backend::http("no");
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send(UPGRADE).expect("send");
    assert_eq!(raw.response().expect("response").text(), "no");
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    assert_eq!(raw.response().expect("response").text(), "no");
}

#[test]
fn the_100_of_the_backend_is_relayed() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let expects = field(&head, "expect") == Some("100-continue");
            if expects && raw.send("HTTP/1.1 100 Continue\r\n\r\n").is_err() {
                return;
            }
            let length = field(&head, "content-length")
                .and_then(|l| l.parse().ok())
                .unwrap_or(0);
            let Ok(body) = raw.exactly(length) else {
                return;
            };
            let _ = raw.send(response(200, &String::from_utf8_lossy(&body)));
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    for _ in 0..2 {
        raw.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            .expect("send");
        assert_eq!(raw.head().expect("interim"), "HTTP/1.1 100 Continue");
        raw.send("hello").expect("send");
        assert_eq!(raw.response().expect("response").text(), "hello");
    }
    // Without the expectation there is no interim response.
    raw.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        .expect("send");
    assert_eq!(raw.response().expect("response").text(), "hi");
}

#[test]
fn a_final_answer_instead_of_100_is_the_answer_and_the_connection_closes() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while raw.head().is_ok() {
            let _ = raw.send(response(413, "too large"));
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send(
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 500000000\r\n\r\n",
    )
    .expect("send");
    let answer = raw.response().expect("response");
    assert_eq!(
        (answer.status, answer.field("connection")),
        (413, Some("close"))
    );
    assert_eq!(raw.to_end().expect("close"), b"");
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok() {
            let _ = raw.exactly(1000);
            let _ = raw.send(response(403, "enough"));
            // Reads no further, and closes.
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("body");
    std::fs::write(&file, vec![b'x'; 8 << 20]).expect("file");
    let upload = format!("@{}", file.display());
    let done = curl(&["-H", "Expect:", "--data-binary", &upload, &rig.url("/x")]);
    assert_eq!(done.body, "enough", "{done:?}");
    assert_eq!(rig.record("/x")["status"], 403);
    rig.settles();
}

#[test]
fn informational_responses_pass_and_are_bounded() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let hints = if head.contains("/flood") { 1000 } else { 2 };
            for _ in 0..hints {
                let _ = raw.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X\r\nX: y\r\n\r\n");
            }
            let _ = raw.send(response(200, "ok"));
        }
    });
    let rig = Plan::new(&[backend.address()]).pool("retries: 0").run();
    let mut raw = rig.raw();
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    for _ in 0..2 {
        let head = raw.head().expect("interim");
        assert!(head.starts_with("HTTP/1.1 103 Early Hints"), "{head}");
        assert!(
            field(&head, "link").is_some() && field(&head, "x").is_none(),
            "{head}"
        );
    }
    assert_eq!(raw.response().expect("response").text(), "ok");
    // An HTTP/1.0 client cannot take them.
    let old = rig.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((old.status, old.text().as_str()), (200, "ok"));
    let h2 = curl(&["--http2-prior-knowledge", &rig.url("/")]);
    assert_eq!(h2.body, "ok", "{h2:?}");
    let mut raw = rig.raw();
    raw.send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    let last = std::iter::from_fn(|| raw.head().ok())
        .last()
        .expect("a head");
    assert!(last.starts_with("HTTP/1.1 502"), "{last}");
}

#[test]
fn http_1_0_clients_get_what_they_can_read() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let answer: &[u8] = match head.contains("/chunked") {
                true => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n",
                false => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
            };
            let _ = raw.send(answer);
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    // No chunks: the end of the connection is the end of the body.
    let mut raw = rig.raw();
    raw.send("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .expect("send");
    let all = String::from_utf8(raw.to_end().expect("end")).expect("text");
    assert!(all.ends_with("\r\n\r\nabcde"), "{all}");
    assert!(
        !all.contains("chunked") && all.contains("connection: close"),
        "{all}"
    );
    // With a length the connection can be kept, and says so.
    let mut raw = rig.raw();
    for _ in 0..2 {
        raw.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .expect("send");
        let answer = raw.response().expect("response");
        assert_eq!(
            (answer.text().as_str(), answer.field("connection")),
            ("abcde", Some("keep-alive"))
        );
    }
    let mut raw = rig.raw();
    raw.send("GET / HTTP/1.0\r\n\r\n").expect("send");
    assert!(
        raw.to_end()
            .expect("closed without being asked to keep")
            .ends_with(b"abcde")
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::http_with(|r| response(200, r.target()));
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    let mut all = String::new();
    for n in 0..100 {
        all.push_str(&match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"),
            _ => format!("POST /{n} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
        });
    }
    raw.send(&all).expect("send");
    for n in 0..100 {
        assert_eq!(raw.response().expect("response").text(), format!("/{n}"));
    }
    // The last of a pipeline may ask to close.
    raw.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert_eq!(raw.response().expect("response").text(), "/a");
    let last = raw.response().expect("response");
    assert_eq!(
        (last.text().as_str(), last.field("connection")),
        ("/b", Some("close"))
    );
    assert_eq!(raw.to_end().expect("close"), b"");
}

#[test]
fn a_head_that_comes_byte_by_byte_is_a_head() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    for byte in b"POST /s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n" {
        raw.send([*byte]).expect("send");
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(raw.response().expect("response").text(), "web1");
    assert_eq!(backend.take_received()[0].body, b"hi");
}

/// A body in which every position tells, made once: byte by byte it takes a debug build its time.
static PATTERN: std::sync::LazyLock<Vec<u8>> =
    std::sync::LazyLock::new(|| (0..BIG).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect());

fn pattern(from: usize, len: usize) -> Vec<u8> {
    PATTERN[from..from + len].to_vec()
}

const BIG: usize = 64 << 20;
const PIECE: usize = 1 << 20;
/// 64 MiB through a debug build on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// Streams `BIG` bytes of pattern to `/down` (as chunks for `/down-chunked`); checks what is sent to it elsewhere.
fn big_backend() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let chunked = target == "/down-chunked";
            if target.starts_with("/down") {
                let framing = if chunked {
                    "Transfer-Encoding: chunked".to_owned()
                } else {
                    format!("Content-Length: {BIG}")
                };
                if raw
                    .send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))
                    .is_err()
                {
                    return;
                }
                for from in (0..BIG).step_by(PIECE) {
                    let mut piece = pattern(from, PIECE);
                    if chunked {
                        piece = [
                            format!("{PIECE:x}\r\n").into_bytes(),
                            piece,
                            b"\r\n".to_vec(),
                        ]
                        .concat();
                    }
                    if raw.send(piece).is_err() {
                        return;
                    }
                }
                if chunked && raw.send("0\r\n\r\n").is_err() {
                    return;
                }
                continue;
            }
            let mut at = 0;
            let mut intact = true;
            if field(&head, "transfer-encoding").is_some() {
                loop {
                    let mut line = Vec::new();
                    while !line.ends_with(b"\r\n") {
                        match raw.exactly(1) {
                            Ok(byte) => line.extend(byte),
                            Err(_) => return,
                        }
                    }
                    let size = String::from_utf8_lossy(&line);
                    let size = usize::from_str_radix(size.trim(), 16).expect("a size");
                    let Ok(piece) = raw.exactly(size + 2) else {
                        return;
                    };
                    if size == 0 {
                        break;
                    }
                    intact &= piece[..size] == pattern(at, size);
                    at += size;
                }
            } else {
                let length: usize = field(&head, "content-length")
                    .and_then(|l| l.parse().ok())
                    .unwrap_or(0);
                while at < length {
                    let Ok(piece) = raw.exactly((length - at).min(PIECE)) else {
                        return;
                    };
                    intact &= piece == pattern(at, piece.len());
                    at += piece.len();
                }
            }
            let _ = raw.send(response(200, &format!("{at} {intact}")));
        }
    })
}

#[test]
fn big_bodies_arrive_intact_both_ways_over_both_protocols() {
    let backend = big_backend();
    let rig = Plan::new(&[backend.address()]).run();
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("body");
    std::fs::write(&file, pattern(0, BIG)).expect("file");
    let down = dir.path().join("down");
    let (up, down) = (file.display().to_string(), down.display().to_string());
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let sent = curl_within(PATIENCE, &[protocol, "-T", &up, &rig.url("/up")]);
        assert_eq!(
            sent.body,
            format!("{BIG} true"),
            "{protocol}: {}",
            sent.stderr
        );
        let streamed = [
            "-c",
            &format!(
                "cat {up} | curl -q -sS {protocol} --max-time 120 -T - {}",
                rig.url("/up2")
            ),
        ];
        let streamed = std::process::Command::new("sh")
            .args(streamed)
            .output()
            .expect("sh");
        assert_eq!(
            String::from_utf8_lossy(&streamed.stdout),
            format!("{BIG} true"),
            "{protocol}: {streamed:?}"
        );
        for target in ["/down", "/down-chunked"] {
            let got = curl_within(PATIENCE, &[protocol, "-o", &down, &rig.url(target)]);
            assert_eq!(got.code, 0, "{protocol} {target}: {}", got.stderr);
            let same = std::fs::read(&down).expect("file") == std::fs::read(&file).expect("file");
            assert!(same, "{protocol} {target}");
        }
    }
    let record = rig.record("/down-chunked");
    assert_eq!(record["bytes_out"], BIG);
    assert_eq!(rig.record("/up2")["bytes_in"], BIG);
    rig.settles();
}

#[test]
fn slow_readers_and_slow_backends_cost_bounded_memory() {
    let backend = big_backend();
    let slow = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        let _ = raw.head();
        std::thread::sleep(DEADLINE);
    });
    let rig = Plan::new(&[backend.address()]).run();
    let rig2 = Plan::new(&[slow.address()]).run();
    assert_eq!(curl(&["-o", "/dev/null", &rig.url("/down")]).code, 0);
    let before = [rig.proxy.resources(), rig2.proxy.resources()];
    // Thirty downloads that nobody reads: 2 GiB if they were held.
    let readers: Vec<Raw> = (0..30)
        .map(|n| {
            let mut raw = rig.raw();
            let target = if n % 2 == 0 { "/down" } else { "/down-chunked" };
            raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .expect("send");
            raw
        })
        .collect();
    // And uploads that the backend does not read.
    let writers: Vec<Raw> = (0..10)
        .map(|_| {
            let mut raw = rig2.raw();
            raw.stream()
                .set_write_timeout(Some(Duration::from_millis(100)))
                .expect("timeout");
            raw.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                .expect("send");
            let piece = [
                b"100000\r\n".to_vec(),
                vec![b'x'; 0x10_0000],
                b"\r\n".to_vec(),
            ]
            .concat();
            while raw.send(&piece).is_ok() {}
            raw
        })
        .collect();
    assert!(eventually(DEADLINE, || backend.connections() >= 30));
    std::thread::sleep(Duration::from_millis(500));
    let after = [rig.proxy.resources(), rig2.proxy.resources()];
    for (before, after) in before.iter().zip(&after) {
        let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
        assert!(grown < 32 << 20, "{grown} bytes more");
    }
    drop((readers, writers));
    rig.settles();
}
