//! Large bodies: memory stays flat, and who is slow slows the other side down.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl_within, field};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::super::rig::Plan;
use super::{filters, module, rig};

const LARGE: usize = 100 << 20;

#[test]
fn a_large_body_passes_with_flat_memory() {
    // Sends and counts 100 MB, piece by piece.
    let backend = Backend::raw(|mut stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if raw.head().is_err() {
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..LARGE >> 20 {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let rig = rig(
        &backend,
        &["settings: {response: {mode: transform, act: upper}}"],
    );
    let before = rig.proxy.resources().resident_bytes;
    let done = curl_within(
        DEADLINE * 4,
        &["-o", "/dev/null", "-w", "%{size_download}", &rig.url("/x")],
    );
    assert_eq!(done.body, LARGE.to_string(), "{}", done.stderr);
    let grown = rig.proxy.resources().resident_bytes.saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
}

#[test]
fn a_client_that_does_not_read_holds_its_backend_up() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if raw.head().is_err() {
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..LARGE / piece.len() {
            if stream.write_all(&piece).is_err() {
                return;
            }
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let rig = rig(
        &backend,
        &["settings: {response: {mode: transform, act: grow}}"],
    );
    let mut client = TcpStream::connect(rig.bind).expect("connect");
    client
        .write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    // What the kernel's buffers take, and no more: it stands still well before the end.
    let taken = stands_still(&sent);
    assert!(taken < LARGE / 2, "{taken} bytes were taken");
    assert!(rig.proxy.resources().resident_bytes < 300 << 20);
}

/// Takes the heads of requests, waits until it is told to read, and says how much of a body it got.
fn reader(go: Arc<AtomicBool>) -> Backend {
    Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        if !eventually(DEADLINE, || go.load(Ordering::SeqCst)) {
            return;
        }
        let mut got = 0;
        match field(&head, "content-length") {
            Some(_) => {
                while got < LARGE && raw.exactly(1 << 20).is_ok() {
                    got += 1 << 20;
                }
            }
            None => loop {
                let Ok(line) = raw.line() else { return };
                let Ok(size) = usize::from_str_radix(&line, 16) else {
                    return;
                };
                if raw.exactly(size + 2).is_err() {
                    return;
                }
                if size == 0 {
                    break;
                }
                got += size;
            },
        }
        let _ = raw.send(response(200, &got.to_string()));
    })
}

#[test]
fn a_backend_that_does_not_read_holds_its_client_up_and_memory_stays_flat() {
    for (mode, act, protocol) in [
        ("watch", "none", "http1"),
        ("transform", "upper", "http1"),
        ("transform", "upper", "http2"),
    ] {
        let go = Arc::new(AtomicBool::new(false));
        let backend = reader(go.clone());
        let filter = format!("settings: {{request: {{mode: {mode}, act: {act}}}}}");
        // For HTTP/2 there is another proxy between.
        let inner = (protocol == "http2").then(|| Plan::new(&[backend.address()]).run());
        let endpoint = inner.as_ref().map_or(backend.address(), |inner| inner.bind);
        let rig = Plan::new(&[endpoint])
            .pool(&format!("protocol: {protocol}"))
            .listener(&filters(&[&filter]))
            .run_with(Start::new().file("bodies.wasm", module()));
        let before = rig.proxy.resources().resident_bytes;
        let sent = AtomicUsize::new(0);
        let answer = std::thread::scope(|scope| {
            let mut raw = rig.raw();
            let mut sender = raw.stream().try_clone().expect("a second handle");
            sender.set_write_timeout(None).expect("no timeout");
            let count = &sent;
            scope.spawn(move || {
                let head =
                    format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n");
                sender.write_all(head.as_bytes()).expect("head");
                let piece = vec![b'x'; 64 << 10];
                for _ in 0..LARGE / piece.len() {
                    if sender.write_all(&piece).is_err() {
                        return;
                    }
                    count.fetch_add(piece.len(), Ordering::SeqCst);
                }
            });
            let taken = stands_still(count);
            assert!(taken < LARGE / 2, "{mode}: {taken} bytes were taken");
            let grown = rig.proxy.resources().resident_bytes.saturating_sub(before);
            assert!(grown < 16 << 20, "{mode}: grew by {grown} bytes");
            go.store(true, Ordering::SeqCst);
            raw.response().expect("a response")
        });
        assert_eq!(answer.text(), LARGE.to_string(), "{mode} {protocol}");
        let grown = rig.proxy.resources().resident_bytes.saturating_sub(before);
        assert!(grown < 16 << 20, "{mode}: grew by {grown} bytes");
        let record = rig.record("/x");
        assert_eq!(record["bytes_in"], LARGE, "{record}");
    }
}

/// How far it came when it stood still. That it pauses on a busy machine is no harm: what is asked is that it does not
/// come too far.
fn stands_still(count: &AtomicUsize) -> usize {
    let mut before = 0;
    let still = eventually(DEADLINE, || {
        let now = count.load(Ordering::SeqCst);
        let same = now == before && now > 0;
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(200));
        same
    });
    assert!(still, "{before} bytes, and more come");
    before
}

#[test]
fn a_slow_client_gets_all_of_a_transformed_response() {
    const SIZE: usize = 20 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if raw.head().is_err() {
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..SIZE / piece.len() {
            if stream.write_all(&piece).is_err() {
                return;
            }
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let rig = rig(
        &backend,
        &["settings: {response: {mode: transform, act: grow}}"],
    );
    let before = rig.proxy.resources().resident_bytes;
    // HTTP/2 has windows of its own.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let done = curl_within(
            DEADLINE * 4,
            &[
                version,
                "--limit-rate",
                "16M",
                "-o",
                "/dev/null",
                "-w",
                "%{size_download}",
                &rig.url("/x"),
            ],
        );
        assert_eq!(done.body, (2 * SIZE).to_string(), "{}", done.stderr);
        let grown = rig.proxy.resources().resident_bytes.saturating_sub(before);
        assert!(grown < 16 << 20, "{version}: grew by {grown} bytes");
    }
    assert_eq!(sent.load(Ordering::SeqCst), 2 * SIZE);
}
