//! Answers that come before the end of the request's body: the client that is still sending gets them.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;

use rustix::process::Signal;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;

use super::frames::{Client, DATA, HEADERS, RST_STREAM, data, headers_open};
use super::rig::{Plan, Rig, TLS, with_certificate};

const TIMES: usize = 8;
const BYTES: usize = 20 << 20;

/// Python's own client sends the whole body before it looks for an answer, and fails when it cannot.
const UPLOAD: &str = "
import http.client, ssl, sys
address, secure, size, times = sys.argv[1], sys.argv[2] == 'tls', int(sys.argv[3]), int(sys.argv[4])
context = ssl._create_unverified_context()
body = bytes(size)
for _ in range(times):
    if secure:
        client = http.client.HTTPSConnection(address, timeout=60, context=context)
    else:
        client = http.client.HTTPConnection(address, timeout=60)
    try:
        client.request('POST', '/upload', body)
        answer = client.getresponse()
        print(answer.status, len(answer.read()) > 0)
    except OSError as error:
        print(type(error).__name__)
    client.close()
";

fn uploads(address: SocketAddr, secure: bool) -> Vec<String> {
    let done = Command::new("python3")
        .args(["-c", UPLOAD])
        .arg(address.to_string())
        .arg(if secure { "tls" } else { "plain" })
        .args([BYTES.to_string(), TIMES.to_string()])
        .output()
        .expect("python3 runs");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    text.lines().map(str::to_owned).collect()
}

fn all(status: u16) -> Vec<String> {
    vec![format!("{status} True"); TIMES]
}

/// A listener that refuses everybody.
fn refusing(tls: bool) -> Rig {
    let backend = Backend::http("never asked");
    let plan = Plan::new(&[backend.address()]).listener(
        "filters: [{module: \"builtin:ua-block\", settings: {deny: [\"*\"], missing: deny, action: {reply: {body: no}}}}]",
    );
    match tls {
        false => plan.run(),
        true => plan.listener(TLS).run_with(with_certificate(Start::new())),
    }
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    for tls in [false, true] {
        let rig = refusing(tls);
        assert_eq!(uploads(rig.bind, tls), all(403), "TLS: {tls}");
    }
}

#[test]
fn over_http2_the_answer_comes_before_the_stream_is_reset() {
    let rig = refusing(false);
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(BYTES as u64).expect("a size");
    let upload = file.path().display().to_string();
    let url = rig.url("/upload");
    for _ in 0..TIMES {
        let done = curl(&[
            "--http2-prior-knowledge",
            "-T",
            &upload,
            "-w",
            " %{http_code}",
            &url,
        ]);
        assert_eq!((done.code, &*done.body), (0, "no 403"), "{}", done.stderr);
    }
    // A client that goes on sending is told to stop, without an error, and its connection goes on.
    let mut client = Client::connect(rig.bind);
    let post = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/upload"),
        (":authority", "site"),
    ];
    client.raw.send(headers_open(1, &post)).expect("send");
    client.raw.send(data(1, &[0; 16384])).expect("send");
    let mut seen = Vec::new();
    while seen.last() != Some(&(RST_STREAM, Some(0))) {
        let frame = client.next_of(&[HEADERS, DATA, RST_STREAM]);
        seen.push((frame.kind, (frame.kind == RST_STREAM).then(|| frame.code())));
    }
    assert_eq!(seen, [(HEADERS, None), (DATA, None), (RST_STREAM, Some(0))]);
    client.raw.send(data(1, &[0; 16384])).expect("send");
    client.request(3, "/next");
    assert_eq!(client.next_of(&[HEADERS]).stream, 3);
}

#[test]
fn a_backends_early_answer_reaches_a_client_that_is_still_sending() {
    // It has read nothing but the head when it closes, so that its kernel answers what follows with resets.
    let answer = "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate";
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if raw.head().is_ok() {
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    for tls in [false, true] {
        let plan = Plan::new(&[backend.address()]);
        let rig = match tls {
            false => plan.run(),
            true => plan.listener(TLS).run_with(with_certificate(Start::new())),
        };
        assert_eq!(uploads(rig.bind, tls), all(413), "TLS: {tls}");
    }
}

#[test]
fn a_body_that_a_reset_cuts_never_looks_whole() {
    // The end of the connection would be the end of the body, but there is none: the backend resets it, as one that dies with
    // unread bytes does. The proxy learns of it while it writes.
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if raw.head().is_ok() {
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\nthe first half, ");
            std::thread::sleep(std::time::Duration::from_millis(300));
            super::hostile_backends::reset(&stream);
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    for n in 0..2 {
        let mut raw = rig.raw();
        let mut sender = Raw::over(raw.stream().try_clone().expect("clone"));
        let target = format!("/cut/{n}");
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
        let got = std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = sender.send(head);
                for _ in 0..1000 {
                    if sender.send(vec![0; 50_000]).is_err() {
                        return;
                    }
                }
            });
            raw.response()
        });
        assert!(got.is_err(), "{got:?}");
        let record = rig.record(&target);
        assert_eq!(record["reason"], "upstream-truncated", "{record}");
    }
}

/// A client that is refused and has only begun to send.
fn refused(rig: &Rig) -> Raw {
    let mut raw = rig.raw();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        1u64 << 40
    );
    raw.send(head).expect("send");
    assert_eq!(raw.response().expect("an answer").status, 403);
    raw
}

/// A listener that refuses everybody and reads on within `bounds`.
fn lingering(bounds: &str) -> Rig {
    let backend = Backend::http("never asked");
    Plan::new(&[backend.address()])
        .listener(
            "filters: [{module: \"builtin:ua-block\", settings: {missing: deny, action: reply}}]",
        )
        .listener(bounds)
        .run()
}

#[test]
fn reading_on_holds_no_drain_up() {
    let mut rig = lingering("timeouts: {linger: 10m}");
    // One began before the drain.
    let _before = refused(&rig);
    let began = std::time::Instant::now();
    rig.proxy.signal(Signal::TERM);
    assert_eq!(rig.proxy.wait().code(), Some(0));
    assert!(began.elapsed() < std::time::Duration::from_secs(25));
}

#[test]
fn reading_on_after_an_answer_has_its_bounds() {
    let rig = lingering("limits: {linger-bytes: 1MiB}");
    let mut raw = refused(&rig);
    // What the socket's buffers hold comes on top of what is read.
    let sent = (0..64)
        .take_while(|_| raw.send(vec![0; 1 << 20]).is_ok())
        .count();
    assert!(sent < 64, "{sent} MiB were taken");
    rig.settles();
}
