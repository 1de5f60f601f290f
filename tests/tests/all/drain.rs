//! How the process ends: what runs is finished, what waits is closed, and a second signal cuts.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::rig::{Plan, Rig, records};

/// Answers `/slow` once it is let go.
fn gated() -> (Backend, Arc<AtomicBool>) {
    let gate = Arc::new(AtomicBool::new(false));
    let open = gate.clone();
    let backend = Backend::http_with(move |request| {
        if request.target() == "/slow" {
            let _ = eventually(DEADLINE, || open.load(Ordering::SeqCst));
        }
        response(200, "done")
    });
    (backend, gate)
}

fn drains(rig: &Rig) {
    rig.proxy.wait_for_log("draining");
}

#[test]
fn what_runs_is_finished_and_what_waits_is_closed() {
    let (backend, gate) = gated();
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut idle = rig.raw();
    idle.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert_eq!(idle.response().expect("response").field("connection"), None);
    let mut fresh = rig.raw();
    let mut active = rig.raw();
    active
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(eventually(DEADLINE, || backend.connections() >= 1
        && rig
            .proxy
            .metric("sluicegate_exchanges_active{listener=\"web\"}")
            == 1.0));
    rig.proxy.signal(Signal::TERM);
    drains(&rig);
    assert_eq!(rig.proxy.admin("GET", "/ready").expect("admin").status, 503);
    assert_eq!(idle.to_end().expect("closed in order"), b"");
    assert_eq!(fresh.to_end().expect("closed in order"), b"");
    assert!(rig.proxy.is_running());
    let refused = || std::net::TcpStream::connect(rig.bind).is_err();
    assert!(eventually(DEADLINE, refused), "it still accepts");
    gate.store(true, Ordering::SeqCst);
    let answer = active.response().expect("the answer");
    assert_eq!(
        (answer.text().as_str(), answer.field("connection")),
        ("done", Some("close"))
    );
    assert!(rig.proxy.wait().success());
    let all = records(&rig.proxy);
    assert_eq!(all.len(), 2, "{all:?}");
}

#[test]
fn readiness_fails_before_the_listeners_close() {
    let backend = Backend::http("web1");
    let mut rig = Plan::new(&[backend.address()])
        .top("drain: {pre-stop: 700ms}")
        .run();
    rig.proxy.signal(Signal::TERM);
    drains(&rig);
    assert_eq!(rig.proxy.admin("GET", "/ready").expect("admin").status, 503);
    assert_eq!(
        rig.get("/").status,
        200,
        "still served while the load balancer notices"
    );
    assert!(rig.proxy.wait().success());
}

#[test]
fn a_second_signal_cuts_now_and_every_exchange_has_its_record() {
    let (backend, _gate) = gated();
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut active = rig.raw();
    active
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    let running = || {
        rig.proxy
            .metric("sluicegate_exchanges_active{listener=\"web\"}")
            == 1.0
    };
    assert!(eventually(DEADLINE, running));
    rig.proxy.signal(Signal::TERM);
    drains(&rig);
    let started = Instant::now();
    rig.proxy.signal(Signal::TERM);
    assert!(rig.proxy.wait().success());
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(active.response().is_err());
    let all = records(&rig.proxy);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["reason"], "drained");
}

#[test]
fn the_deadline_cuts_what_is_left() {
    let (backend, _gate) = gated();
    let mut rig = Plan::new(&[backend.address()])
        .top("drain: {timeout: 500ms}")
        .run();
    let mut active = rig.raw();
    active
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    let running = || {
        rig.proxy
            .metric("sluicegate_exchanges_active{listener=\"web\"}")
            == 1.0
    };
    assert!(eventually(DEADLINE, running));
    let started = Instant::now();
    rig.proxy.signal(Signal::INT);
    assert!(rig.proxy.wait().success());
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(450) && took < Duration::from_secs(10),
        "{took:?}"
    );
    assert_eq!(records(&rig.proxy)[0]["reason"], "drained");
}

#[test]
fn websockets_close_within_the_window() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if raw.head().is_ok() {
            let _ = raw.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            let _ = std::io::copy(&mut &stream, &mut &stream);
        }
    });
    let mut rig = Plan::new(&[backend.address()])
        .top("drain: {timeout: 2s}")
        .run();
    let mut sockets: Vec<Raw> = (0..8)
        .map(|_| {
            let mut raw = rig.raw();
            raw.send(
                "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .expect("send");
            raw.head().expect("101");
            raw
        })
        .collect();
    rig.proxy.signal(Signal::TERM);
    drains(&rig);
    let started = Instant::now();
    let ends: Vec<Duration> = sockets
        .iter_mut()
        .map(|socket| {
            let _ = socket.to_end();
            started.elapsed()
        })
        .collect();
    assert!(rig.proxy.wait().success());
    let last = ends.last().expect("some");
    assert!(*last < Duration::from_secs(4), "{ends:?}");
    assert_eq!(
        records(&rig.proxy)
            .iter()
            .filter(|r| r["reason"] == "drained")
            .count(),
        8
    );
}

#[test]
fn http2_gets_a_goaway_at_once_and_its_streams_finish() {
    let (backend, gate) = gated();
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut client = Command::new("nghttp")
        .args(["-v", &rig.url("/slow")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("nghttp runs");
    let running = || {
        rig.proxy
            .metric("sluicegate_exchanges_active{listener=\"web\"}")
            == 1.0
    };
    assert!(eventually(DEADLINE, running));
    rig.proxy.signal(Signal::TERM);
    drains(&rig);
    std::thread::sleep(Duration::from_millis(300));
    gate.store(true, Ordering::SeqCst);
    let mut text = String::new();
    client
        .stdout
        .take()
        .expect("stdout")
        .read_to_string(&mut text)
        .expect("output");
    let _ = client.wait();
    let goaway = text
        .find("recv GOAWAY")
        .unwrap_or_else(|| panic!("no GOAWAY in {text}"));
    let answer = text
        .find("recv (stream_id=")
        .unwrap_or_else(|| panic!("no answer in {text}"));
    assert!(goaway < answer, "{text}");
    assert!(text.contains("done"), "{text}");
    assert!(rig.proxy.wait().success());
}

#[test]
fn an_upload_in_flight_is_finished() {
    let backend = Backend::http_with(|r| response(200, &r.body.len().to_string()));
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        .expect("send");
    let running = || {
        rig.proxy
            .metric("sluicegate_exchanges_active{listener=\"web\"}")
            == 1.0
    };
    assert!(eventually(DEADLINE, running));
    rig.proxy.signal(Signal::TERM);
    drains(&rig);
    raw.stream().write_all(b"67890").expect("send");
    assert_eq!(raw.response().expect("response").text(), "10");
    assert!(rig.proxy.wait().success());
}
