//! Every timeout, each set short.

use std::time::{Duration, Instant};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::Start;

use super::rig::{Plan, TLS, with_certificate};

const SHORT: &str = "300ms";

/// Runs `work` and wants it to take about as long as the short timeout.
fn takes_the_timeout<T>(work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(250), "too early: {took:?}");
    assert!(took < Duration::from_secs(10), "too late: {took:?}");
    done
}

/// Takes a request and says nothing.
fn silent() -> Backend {
    Backend::raw(|stream, _| {
        let _ = Raw::over(stream).to_end();
    })
}

#[test]
fn a_request_head_that_does_not_end_is_408() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{head: {SHORT}}}"))
        .run();
    // Also one that dribbles: the clock runs from the first byte.
    for dribble in [false, true] {
        let mut raw = rig.raw();
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n").expect("send");
        let answer = takes_the_timeout(|| {
            if dribble {
                for _ in 0..20 {
                    std::thread::sleep(Duration::from_millis(50));
                    if raw.send("X: y\r\n").is_err() {
                        break;
                    }
                }
            }
            raw.head()
        });
        if let Ok(head) = answer {
            assert!(head.starts_with("HTTP/1.1 408"), "{head}");
        } else {
            assert!(dribble, "no answer");
        }
    }
    // Who says nothing is told nothing.
    let mut raw = rig.raw();
    let said = takes_the_timeout(|| raw.to_end()).expect("an end");
    assert_eq!(said, b"");
    rig.settles();
}

#[test]
fn a_request_body_that_pauses_is_408() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{body-idle: {SHORT}}}"))
        .run();
    let mut raw = rig.raw();
    raw.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        .expect("send");
    let answer = takes_the_timeout(|| raw.response()).expect("response");
    assert_eq!(
        (answer.status, answer.field("connection")),
        (408, Some("close"))
    );
    assert_eq!(raw.to_end().expect("close"), b"");
    assert_eq!(rig.record("/x")["reason"], "request-body-timeout");
    // A body that keeps coming may take as long as it needs.
    let mut raw = rig.raw();
    raw.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        .expect("send");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(60));
        raw.send("x").expect("send");
    }
    assert_eq!(raw.response().expect("response").status, 200);
    drop(raw);
    rig.settles();
}

#[test]
fn an_upstream_that_does_not_read_the_body_is_504() {
    let backend = Backend::raw(|stream, _| {
        let _ = Raw::over(stream).head();
        std::thread::sleep(Duration::from_secs(20));
    });
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{body-idle: {SHORT}}}"))
        .run();
    let mut raw = rig.raw();
    raw.stream()
        .set_write_timeout(Some(Duration::from_millis(500)))
        .expect("timeout");
    raw.send(format!(
        "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        1u64 << 30
    ))
    .expect("send");
    while raw.send(vec![b'x'; 1 << 20]).is_ok() {}
    let record = rig.record("/x");
    assert_eq!(
        (&record["status"], &record["reason"]),
        (&504.into(), &"response-timeout".into())
    );
}

#[test]
fn a_response_head_that_does_not_come_is_504() {
    let backend = silent();
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{response-head: {SHORT}}}"))
        .run();
    for request in [
        "GET /x HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let mut raw = rig.raw();
        raw.send(request).expect("send");
        let answer = takes_the_timeout(|| raw.response()).expect("response");
        assert_eq!(answer.status, 504);
        // Nothing is wrong with the client's connection.
        assert_eq!(answer.field("connection"), None);
    }
    rig.settles();
}

#[test]
fn a_response_body_that_pauses_is_aborted() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok() {
            let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
            let _ = raw.to_end();
        }
    });
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{stream-idle: {SHORT}}}"))
        .run();
    let mut raw = rig.raw();
    raw.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(takes_the_timeout(|| raw.response()).is_err());
    assert_eq!(rig.record("/x")["reason"], "idle-timeout");
    rig.settles();
}

#[test]
fn a_response_body_that_nobody_reads_is_aborted() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok() {
            let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            while raw.send([0; 65536]).is_ok() {}
        }
    });
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{stream-idle: {SHORT}}}"))
        .run();
    let mut raw = rig.raw();
    raw.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert_eq!(rig.record("/x")["reason"], "idle-timeout");
    rig.settles();
}

#[test]
fn a_silent_tunnel_ends_and_a_busy_one_does_not() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if raw.head().is_ok() {
            let _ = raw.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            let _ = std::io::copy(&mut &stream, &mut &stream);
        }
    });
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{stream-idle: {SHORT}}}"))
        .run();
    let mut raw = rig.raw();
    raw.send("GET /x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .expect("send");
    raw.head().expect("101");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(60));
        raw.send("ping").expect("send");
        assert_eq!(raw.exactly(4).expect("echo"), b"ping");
    }
    let _ = takes_the_timeout(|| raw.to_end());
    assert_eq!(rig.record("/x")["reason"], "idle-timeout");
    rig.settles();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{keep-alive: {SHORT}}}"))
        .run();
    let mut raw = rig.raw();
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    raw.response().expect("response");
    assert_eq!(takes_the_timeout(|| raw.to_end()).expect("close"), b"");
    rig.settles();
}

#[test]
fn an_idle_http2_connection_is_closed() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{keep-alive: {SHORT}, head: 1s}}"))
        .run();
    let mut raw = rig.raw();
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .expect("send");
    let bytes = takes_the_timeout(|| raw.to_end()).unwrap_or_default();
    // Among the frames is a GOAWAY (type 7).
    assert!(
        bytes.windows(9).any(|f| f[3] == 7 && f[..2] == [0, 0]),
        "{bytes:x?}"
    );
    rig.settles();
}

#[test]
fn the_whole_exchange_has_a_limit_of_its_own() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            if head.contains("/silent") {
                let _ = raw.to_end();
                return;
            }
            let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            while raw.send("x").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{total: {SHORT}}}"))
        .run();
    let mut raw = rig.raw();
    raw.send("GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert_eq!(
        takes_the_timeout(|| raw.response())
            .expect("response")
            .status,
        504
    );
    assert_eq!(rig.record("/silent")["reason"], "total-timeout");
    drop(raw);
    let mut raw = rig.raw();
    raw.send("GET /trickle HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(takes_the_timeout(|| raw.response()).is_err());
    assert_eq!(rig.record("/trickle")["reason"], "total-timeout");
    rig.settles();
}

#[test]
fn a_try_that_times_out_goes_to_another_endpoint() {
    let (slow, good) = (silent(), Backend::http_with(|_| response(200, "good")));
    let rig = Plan::new(&[slow.address(), good.address()])
        .listener("filters: [{module: \"builtin:router\", settings: {rules: [{timeouts: {try: 200ms}}]}}]")
        .run();
    for n in 0..4 {
        assert_eq!(rig.get(&format!("/{n}")).text(), "good");
    }
    assert!(slow.connections() > 0);
}

#[test]
fn a_handshake_that_does_not_end_is_closed() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("timeouts: {{handshake: {SHORT}}}\n{TLS}"))
        .run_with(with_certificate(Start::new()));
    let mut raw = rig.raw();
    raw.send("\x16\x03\x01").expect("send");
    let _ = takes_the_timeout(|| raw.to_end());
    let record = super::rig::record(&rig.proxy, |r| r["reason"] == "tls-handshake");
    assert!(record["status"].is_null());
    rig.settles();
}
