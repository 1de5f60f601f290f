//! How HTTP/2 connections end with the process: GOAWAY at once, streams are finished, and a second signal cuts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::frames::{
    ACK, Client, DATA, Frame, GOAWAY, HEADERS, PING, RST_STREAM, data_end, frame, get, headers_open,
};
use super::rig::{Plan, Rig, records};

const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/upload"),
    (":authority", "site"),
];

/// Answers `/upload` with what it was sent, `/half` by halves and `/whole` at once; all after the gate has opened, but
/// for the first half.
fn gated() -> (Backend, Arc<AtomicBool>) {
    let gate = Arc::new(AtomicBool::new(false));
    let open = gate.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        let wait = || assert!(eventually(DEADLINE, || open.load(Ordering::SeqCst)));
        while let Ok(head) = raw.head() {
            let done = match head.split(' ').nth(1) {
                Some("/upload") => {
                    let mut body = Vec::new();
                    while !body.ends_with(b"0\r\n\r\n") {
                        match raw.exactly(1) {
                            Ok(byte) => body.extend(byte),
                            Err(_) => return,
                        }
                    }
                    raw.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nuploaded")
                }
                Some("/half") => {
                    let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
                    wait();
                    raw.send("half")
                }
                _ => {
                    wait();
                    raw.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole")
                }
            };
            if done.is_err() {
                return;
            }
        }
    });
    (backend, gate)
}

/// Three streams in flight, in three phases.
fn in_flight(rig: &Rig) -> Client {
    let mut client = Client::connect(rig.bind);
    let asked = [get(1, "/whole"), get(3, "/half"), headers_open(5, &POST)];
    client.raw.send(asked.concat()).expect("send");
    assert_eq!(client.next_of(&[HEADERS]).stream, 3);
    assert_eq!(client.next_of(&[DATA]).payload, b"half");
    let gauge = "sluicegate_exchanges_active{listener=\"web\"}";
    assert!(eventually(DEADLINE, || rig.proxy.metric(gauge) == 3.0));
    client
}

/// The last stream that a GOAWAY without error promises to serve.
fn promised(frame: &Frame) -> u32 {
    assert_eq!((frame.kind, frame.code()), (GOAWAY, 0));
    u32::from_be_bytes(frame.payload[..4].try_into().expect("four bytes"))
}

#[test]
fn streams_in_flight_are_finished_after_a_goaway() {
    let (backend, gate) = gated();
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut client = in_flight(&rig);
    rig.proxy.signal(Signal::TERM);
    // At once, before anything is finished, and without taking back what is under way.
    assert_eq!(promised(&client.next_of(&[GOAWAY])), i32::MAX as u32);
    let ping = client.next_of(&[PING]);
    // What was sent before the goodbye arrived is served too.
    client.request(7, "/whole");
    let pong = frame(PING, ACK, 0, &ping.payload);
    client.raw.send(pong).expect("send");
    assert_eq!(promised(&client.next_of(&[GOAWAY])), 7);
    // What comes later is not: the client knows that it may send it elsewhere.
    client.request(9, "/late");
    client.raw.send(data_end(5, b"x")).expect("send");
    gate.store(true, Ordering::SeqCst);
    let mut bodies = vec![(3, b"half".to_vec())];
    let mut ended = 0;
    while let Some(frame) = client.next() {
        assert_ne!(frame.kind, RST_STREAM, "{frame:?}");
        assert_ne!(frame.stream, 9, "{frame:?}");
        if frame.kind == DATA {
            match bodies
                .iter_mut()
                .find(|(stream, _)| *stream == frame.stream)
            {
                Some((_, body)) => body.extend(frame.payload),
                None => bodies.push((frame.stream, frame.payload)),
            }
            ended += 1;
        }
    }
    bodies.sort();
    let expected = [(1, "whole"), (3, "halfhalf"), (5, "uploaded"), (7, "whole")];
    assert_eq!(bodies, expected.map(|(s, body)| (s, body.into())));
    assert!(ended >= 4);
    assert!(rig.proxy.wait().success());
    let all = records(&rig.proxy);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(
        all.iter()
            .all(|r| r["status"] == 200 && r["reason"].is_null()),
        "{all:?}"
    );
}

#[test]
fn a_second_signal_cuts_every_stream() {
    let (backend, _gate) = gated();
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut client = in_flight(&rig);
    rig.proxy.signal(Signal::TERM);
    promised(&client.next_of(&[GOAWAY]));
    let began = Instant::now();
    rig.proxy.signal(Signal::TERM);
    assert!(rig.proxy.wait().success());
    assert!(began.elapsed() < Duration::from_secs(10));
    while let Some(frame) = client.next() {
        let ends = [DATA, HEADERS].contains(&frame.kind);
        assert!(!ends, "a response that was cut looks whole: {frame:?}");
    }
    let all = records(&rig.proxy);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all.iter().all(|r| r["reason"] == "drained"), "{all:?}");
}

#[test]
fn the_deadline_cuts_streams_too() {
    let (backend, _gate) = gated();
    let mut rig = Plan::new(&[backend.address()])
        .top("drain: {timeout: 500ms}")
        .run();
    let _client = in_flight(&rig);
    rig.proxy.signal(Signal::TERM);
    assert!(rig.proxy.wait().success());
    let all = records(&rig.proxy);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all.iter().all(|r| r["reason"] == "drained"), "{all:?}");
}

/// Idle clients that do not react hold nothing up: one has asked before, one has sent a preface, one nothing.
#[test]
fn idle_connections_do_not_hold_the_drain_up() {
    let backend = Backend::http("web1");
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut asked = Client::connect(rig.bind);
    asked.request(1, "/");
    assert_eq!(asked.next_of(&[DATA]).payload, b"web1");
    let mut greeted = Client::connect(rig.bind);
    let mut silent = rig.raw();
    let gauge = "sluicegate_connections_active{listener=\"web\"}";
    assert!(eventually(DEADLINE, || rig.proxy.metric(gauge) == 3.0));
    let began = Instant::now();
    rig.proxy.signal(Signal::TERM);
    for client in [&mut asked, &mut greeted] {
        promised(&client.next_of(&[GOAWAY]));
        while client.next().is_some() {}
    }
    assert_eq!(silent.to_end().expect("closed in order"), b"");
    drop((asked, greeted, silent));
    assert!(rig.proxy.wait().success());
    assert!(began.elapsed() < Duration::from_secs(20));
}
