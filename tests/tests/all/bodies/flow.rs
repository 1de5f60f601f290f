//! Large bodies: memory stays flat, and who is slow slows the other side down.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, curl_within};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::rig;

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
    let mut before = 0;
    let still = eventually(DEADLINE, || {
        let now = sent.load(Ordering::SeqCst);
        let same = now == before && now > 0;
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(200));
        same
    });
    assert!(still && before < LARGE / 2, "{before} bytes were taken");
    assert!(rig.proxy.resources().resident_bytes < 300 << 20);
}
