//! What a client is told when something fails, and how the record says why.

use std::io::Write;
use std::time::Duration;

use sluicegate_tests::backend::{Backend, refused};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;

use super::guest::{Guest, Phase};
use super::rig::{Plan, Rig, record};

/// One failing GET of `/x`: its status, its `Proxy-Status` error and the record's reason.
fn fails(rig: &Rig, status: u16, error: &str, reason: &str) -> sluicegate_tests::client::Response {
    let answer = rig.ask("GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.status, status, "{}", answer.head);
    let said = answer.field("proxy-status").unwrap_or_default();
    assert!(
        said.starts_with(&format!("sluicegate; error={error}")),
        "{said}"
    );
    let record = rig.record("/x");
    assert_eq!(record["reason"], reason);
    assert_eq!(record["status"], status);
    answer
}

/// Reads one request head, then writes `bytes` and closes.
fn says(bytes: &'static str) -> Backend {
    Backend::raw(move |mut stream, _| {
        let _ = Raw::over(stream.try_clone().expect("clone")).head();
        let _ = stream.write_all(bytes.as_bytes());
    })
}

/// Takes connections and requests, and never says a word.
fn silent() -> Backend {
    Backend::raw(|stream, _| {
        let _ = Raw::over(stream).to_end();
    })
}

#[test]
fn no_route_is_404() {
    // A listener needs a pool or a filter that may choose one; this one never does.
    let guest = Guest::default().answers(Phase::Request, &[]).build();
    let rig = Plan::new(&[])
        .listener("filters: [{module: guest.wasm}]")
        .run_with(Start::new().file("guest.wasm", guest));
    fails(&rig, 404, "destination_not_found", "no-route");
}

#[test]
fn no_healthy_endpoint_is_503_with_retry_after() {
    let rig = Plan::new(&[refused()])
        .pool("check: {tcp: {}, interval: 100ms}")
        .run();
    let answer = fails(&rig, 503, "destination_unavailable", "no-healthy-endpoint");
    assert!(answer.field("retry-after").is_some());
}

#[test]
fn a_full_pool_is_503_with_retry_after() {
    let backend = silent();
    let rig = Plan::new(&[backend.address()])
        .pool("max-connections: 1")
        .run();
    let mut busy = rig.raw();
    busy.send("GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(sluicegate_tests::wait::eventually(
        Duration::from_secs(10),
        || backend.connections() == 1
    ));
    let answer = fails(&rig, 503, "connection_limit_reached", "overload");
    assert!(answer.field("retry-after").is_some());
}

#[test]
fn connect_refused_is_502() {
    let rig = Plan::new(&[refused()]).run();
    fails(&rig, 502, "connection_refused", "connect-refused");
}

#[test]
fn an_upstream_that_closes_without_an_answer_is_502() {
    let backend = says("");
    let rig = Plan::new(&[backend.address()]).run();
    fails(&rig, 502, "connection_terminated", "upstream-reset");
}

#[test]
fn a_malformed_or_truncated_upstream_head_is_502() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-",
        "nonsense\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
    ] {
        let backend = says(bytes);
        let rig = Plan::new(&[backend.address()]).run();
        fails(&rig, 502, "http_protocol_error", "upstream-malformed");
    }
}

#[test]
fn an_oversized_upstream_head_is_502() {
    let backend = Backend::raw(|mut stream, _| {
        let _ = Raw::over(stream.try_clone().expect("clone")).head();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream
            .write_all(&[b"X: ", &[b'y'; 1000][..], b"\r\n"].concat())
            .is_ok()
        {}
    });
    let rig = Plan::new(&[backend.address()]).run();
    fails(
        &rig,
        502,
        "http_response_header_section_size",
        "response-headers-too-large",
    );
}

#[test]
fn an_upstream_that_does_not_answer_is_504() {
    let backend = silent();
    let rig = Plan::new(&[backend.address()])
        .listener("timeouts: {response-head: 200ms}")
        .run();
    fails(&rig, 504, "http_response_timeout", "response-timeout");
}

#[test]
fn an_upstream_that_cannot_be_reached_in_time_is_504() {
    // A full backlog takes no further connection: SYNs are dropped.
    let full = full_backlog();
    let rig = Plan::new(&[full.0]).pool("connect-timeout: 200ms").run();
    fails(&rig, 504, "connection_timeout", "connect-timeout");
}

#[test]
fn a_client_that_is_gone_is_499_in_the_record_and_ends_the_upstream_exchange() {
    let closed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = closed.clone();
    let backend = Backend::raw(move |stream, _| {
        let _ = Raw::over(stream).to_end();
        seen.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(sluicegate_tests::wait::eventually(
        Duration::from_secs(10),
        || backend.connections() == 1
    ));
    drop(raw);
    let record = rig.record("/x");
    assert_eq!(
        (&record["status"], &record["reason"]),
        (&499.into(), &"client-gone".into())
    );
    assert!(sluicegate_tests::wait::eventually(
        Duration::from_secs(10),
        || closed.load(std::sync::atomic::Ordering::SeqCst)
    ));
    rig.settles();
}

#[test]
fn a_client_that_leaves_a_silent_stream_ends_it() {
    let closed = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = closed.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok() {
            let _ =
                raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            let _ = raw.to_end();
            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    raw.head().expect("head");
    drop(raw);
    assert_eq!(rig.record("/x")["reason"], "client-gone");
    let gone = |n| {
        sluicegate_tests::wait::eventually(Duration::from_secs(10), || {
            closed.load(std::sync::atomic::Ordering::SeqCst) == n
        })
    };
    assert!(gone(1), "HTTP/1");
    // The same over HTTP/2, where the stream is cancelled.
    let done = curl(&["--http2-prior-knowledge", "--max-time", "1", &rig.url("/y")]);
    assert_eq!((done.code, done.body.as_str()), (28, "data: 1\n\n"));
    assert_eq!(rig.record("/y")["reason"], "client-gone");
    assert!(gone(2), "HTTP/2");
    rig.settles();
}

#[test]
fn a_failure_after_the_head_aborts_and_never_looks_like_a_clean_end() {
    // Three framings towards the upstream, all ending early.
    for (name, bytes) in [
        (
            "length",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        ),
        (
            "chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ),
        (
            "bad chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        ),
    ] {
        let backend = says(bytes);
        let rig = Plan::new(&[backend.address()]).run();
        let h1 = curl(&[&rig.url("/x")]);
        assert!(matches!(h1.code, 18 | 56), "{name}: {h1:?}");
        assert_eq!(h1.body, "hello", "{name}");
        let h2 = curl(&["--http2-prior-knowledge", &rig.url("/y")]);
        assert_eq!(h2.code, 92, "{name}: {h2:?}");
        assert_eq!(rig.record("/x")["reason"], "upstream-truncated", "{name}");
        assert_eq!(rig.record("/y")["reason"], "upstream-truncated", "{name}");
        // To an HTTP/1.0 client the end of the connection is the end of the body, so it must be a reset.
        let mut old = rig.raw();
        old.send("GET /z HTTP/1.0\r\n\r\n").expect("send");
        let end = old.to_end();
        let clean = match (&end, name) {
            // With a length, a clean close tells as well.
            (Ok(bytes), "length") => !String::from_utf8_lossy(bytes).contains("100"),
            (Ok(_), _) => true,
            (Err(_), _) => false,
        };
        assert!(!clean, "{name}: {end:?}");
        rig.settles();
    }
}

#[test]
fn a_refused_request_has_one_record_with_its_reason() {
    let rig = Plan::new(&[refused()]).run();
    rig.ask("GET / HTTP/1.1\r\n\r\n");
    let record = record(&rig.proxy, |r| r["reason"] == "bad-request");
    assert_eq!(record["status"], 400);
    rig.settles();
}

/// An address whose accept queue is full, and what keeps it so.
pub(crate) fn full_backlog() -> (std::net::SocketAddr, Vec<socket2::Socket>) {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("address");
    listener.bind(&any.into()).expect("bind");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().expect("address");
    let bound = address.as_socket().expect("an IP address");
    let mut held = vec![listener];
    for _ in 0..8 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        client.set_nonblocking(true).expect("nonblocking");
        let _ = client.connect(&address);
        held.push(client);
    }
    // Let the kernel finish the handshakes it will finish.
    std::thread::sleep(Duration::from_millis(50));
    (bound, held)
}
