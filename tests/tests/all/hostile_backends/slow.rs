//! Backends that read slowly or not at all, and interim responses that are of use only at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::sockets::is_connected_to;
use sluicegate_tests::wait::{DEADLINE, eventually};

use crate::rig::Plan;

#[test]
fn an_upload_nobody_reads_is_504_and_held_back() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        if head.contains("/next") {
            let _ = raw.send(response(200, "next"));
        } else {
            std::thread::sleep(Duration::from_secs(20));
        }
    });
    let rig = Plan::new(&[backend.address()])
        // The answer is not waited for by this client; what it sends after that is another matter.
        .listener("timeouts: {body-idle: 400ms}\nlimits: {linger-bytes: 1MiB}")
        .run();
    assert_eq!(rig.get("/next").text(), "next");
    // The end of that connection may come late, and a request that is sent before it is lost.
    assert!(eventually(DEADLINE, || !is_connected_to(backend.address())));
    let before = peak(rig.proxy.pid());
    for (target, framing) in [
        ("/length", "Content-Length: 1073741824"),
        ("/chunks", "Transfer-Encoding: chunked"),
    ] {
        let mut raw = rig.raw();
        let timeout = Some(Duration::from_millis(500));
        raw.stream().set_write_timeout(timeout).expect("timeout");
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
        raw.send(head).expect("send");
        let mut chunk = b"100000\r\n".to_vec();
        chunk.extend(vec![b'x'; 1 << 20]);
        chunk.extend(b"\r\n");
        // Far more than all buffers on the way hold.
        let mut sent = 0;
        while sent < 1 << 30 && raw.send(&chunk).is_ok() {
            sent += 1 << 20;
        }
        assert!(sent < 64 << 20, "{target}: {sent} bytes were taken");
        let record = rig.record(target);
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&504.into(), &"response-timeout".into())
        );
    }
    let after = peak(rig.proxy.pid());
    assert!(
        after - before < 8 << 20,
        "{before} bytes before, {after} at most"
    );
    assert_eq!(rig.get("/next").text(), "next");
}

#[test]
fn hints_arrive_before_the_response_they_hint_at() {
    let seen = Arc::new(AtomicBool::new(false));
    let waits = seen.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        if head.starts_with("POST") && raw.exactly(4).is_err() {
            return;
        }
        let _ = raw.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
        if eventually(DEADLINE, || waits.swap(false, Ordering::SeqCst)) {
            let _ = raw.send(response(200, "page"));
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let mut raw = rig.raw();
        raw.send(request).expect("send");
        let hint = raw.head().expect("103");
        assert!(hint.starts_with("HTTP/1.1 103"), "{hint}");
        assert!(hint.contains("link: </style.css>"), "{hint}");
        seen.store(true, Ordering::SeqCst);
        assert_eq!(raw.response().expect("200").text(), "page");
        // The backend ends its connection, which may be heard of late.
        assert!(eventually(DEADLINE, || !is_connected_to(backend.address())));
    }
}

/// The most memory the process ever had.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let word = line.and_then(|l| l.split_ascii_whitespace().next());
    word.and_then(|w| w.parse::<u64>().ok()).expect("a number") * 1024
}
