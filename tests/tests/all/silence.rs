//! Endpoints that fall silent on an HTTP/2 connection: what waits, what goes elsewhere, and how often they are asked.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::rig::{Plan, Rig};

/// A server for HTTP/2: this proxy before an HTTP/1.1 backend.
fn server(backend: &Backend) -> Rig {
    Plan::new(&[backend.address()]).run()
}

fn rig(endpoints: &[SocketAddr], pool: &str) -> Rig {
    Plan::new(endpoints)
        .pool(&format!("protocol: http2\n{pool}"))
        .top("workers: 1")
        .run_with(Start::new())
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// How many of `count` requests, one every `pace` and each on a connection of its own, are answered within the deadline.
fn answered(rig: &Rig, count: usize, pace: Duration, expected: &str) -> usize {
    let good = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..count {
            let good = &good;
            scope.spawn(move || {
                let mut raw = rig.raw();
                raw.send(get(&format!("/{n}"))).expect("send");
                let answer = raw.response();
                let right = answer.is_ok_and(|a| a.status == 200 && expected.contains(&a.text()));
                good.fetch_add(usize::from(right), Ordering::SeqCst);
            });
            std::thread::sleep(pace);
        }
    });
    good.into_inner()
}

/// Passes bytes on to `target`, but on its first connection only until `frozen`.
fn relay(target: SocketAddr, frozen: &Arc<AtomicBool>) -> Backend {
    let frozen = frozen.clone();
    Backend::raw(move |client, connection| {
        let Ok(server) = TcpStream::connect(target) else {
            return;
        };
        let copy = |mut from: &TcpStream, mut to: &TcpStream| {
            let mut buffer = [0; 16 << 10];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                while connection == 0 && frozen.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| copy(&client, &server));
            copy(&server, &client);
        });
    })
}

#[test]
fn a_connection_that_stalls_is_replaced_by_another() {
    let backend = Backend::http("served");
    let server = server(&backend);
    let frozen = Arc::new(AtomicBool::new(false));
    let relay = relay(server.bind, &frozen);
    let rig = rig(&[relay.address()], "retries: 0");
    assert_eq!(rig.get("/first").text(), "served");
    frozen.store(true, Ordering::SeqCst);
    // Those that were sent before the silence was noticed are asked again.
    let pace = Duration::from_millis(150);
    assert_eq!(answered(&rig, 30, pace, "served"), 30);
    assert_eq!(relay.connections(), 2);
    frozen.store(false, Ordering::SeqCst);
    assert_eq!(answered(&rig, 10, Duration::ZERO, "served"), 10);
    rig.settles();
}

#[test]
fn requests_go_to_another_endpoint_while_one_is_stopped() {
    let (one, two) = (Backend::http("one"), Backend::http("two"));
    let (first, second) = (server(&one), server(&two));
    let rig = rig(&[first.bind, second.bind], "");
    for _ in 0..4 {
        rig.get("/warm");
    }
    first.proxy.signal(Signal::STOP);
    let started = Instant::now();
    let good = answered(&rig, 40, Duration::from_millis(100), "one two");
    assert_eq!(good, 40, "after {:?}", started.elapsed());
    first.proxy.signal(Signal::CONT);
    // It is heard again.
    assert!(eventually(DEADLINE, || rig.get("/after").text() == "one"));
    assert_eq!(answered(&rig, 10, Duration::ZERO, "one two"), 10);
    rig.settles();
}

#[test]
fn one_that_is_only_slow_is_left_in_peace() {
    // It answers pings while the backend behind it takes its time.
    let seen = Arc::new(AtomicUsize::new(0));
    let counts = seen.clone();
    let backend = Backend::http_with(move |_| {
        counts.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1500));
        sluicegate_tests::backend::response(200, "slow")
    });
    let (first, second) = (server(&backend), server(&backend));
    let pings = "http2: {ping-interval: 100ms, ping-timeout: 1s}";
    let rig = rig(&[first.bind, second.bind], pings);
    assert_eq!(answered(&rig, 6, Duration::from_millis(50), "slow"), 6);
    assert_eq!(seen.load(Ordering::SeqCst), 6, "none was asked twice");
}

/// Reads one frame: its type, flags and payload.
fn frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], payload))
}

#[test]
fn servers_that_count_pings_have_no_cause_for_complaint() {
    const PING: u8 = 6;
    let pings = Arc::new(AtomicUsize::new(0));
    let counts = pings.clone();
    // Answers every PING and no request, as a server does whose stream has nothing to say for an hour.
    let backend = Backend::raw(move |mut stream, _| {
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).is_err() {
            return;
        }
        let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        while let Some((kind, flags, payload)) = frame(&mut stream) {
            if kind == PING && flags & 1 == 0 {
                counts.fetch_add(1, Ordering::SeqCst);
                let mut ack = vec![0, 0, 8, PING, 1, 0, 0, 0, 0];
                ack.extend_from_slice(&payload);
                let _ = stream.write_all(&ack);
            }
        }
    });
    let pool = "http2: {ping-interval: 40ms, ping-timeout: 1s}";
    let rig = rig(&[backend.address()], pool);
    let mut waiting: Vec<Raw> = Vec::new();
    // A question from time to time, of which any would be worth a PING.
    for n in 0..20 {
        let mut raw = rig.raw();
        raw.send(get(&format!("/{n}"))).expect("send");
        waiting.push(raw);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(pings.load(Ordering::SeqCst), 2);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn pings_can_be_turned_off() {
    let backend = Backend::http("served");
    let server = server(&backend);
    let frozen = Arc::new(AtomicBool::new(false));
    let relay = relay(server.bind, &frozen);
    let rig = rig(&[relay.address()], "http2: {ping-interval: off}");
    assert_eq!(rig.get("/first").text(), "served");
    frozen.store(true, Ordering::SeqCst);
    let mut raw = rig.raw();
    raw.send(get("/second")).expect("send");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(relay.connections(), 1);
    frozen.store(false, Ordering::SeqCst);
    assert_eq!(raw.response().expect("an answer").text(), "served");
}
