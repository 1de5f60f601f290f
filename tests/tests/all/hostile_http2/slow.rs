//! Clients that are slow on purpose: memory stays bounded and time ends them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{Answer, CANCEL, GET, KEEP_NONE, POST, answer, assert_works, silent};
use crate::frames::{
    self, Client, DATA, END_STREAM, HEADERS, RST_STREAM, block, data, frame, get, headers_open,
    setting, window_update,
};
use crate::rig::{Plan, records};
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};

const MIB: usize = 1 << 20;

/// Sends a response of 256 MiB as far as anyone takes it.
fn endless() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        while raw.head().is_ok() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 256 * MIB);
            let _ = raw.send(head);
            let piece = vec![b'x'; 64 * 1024];
            for _ in 0..256 * MIB / piece.len() {
                if (&stream).write_all(&piece).is_err() {
                    return;
                }
            }
        }
    })
}

#[test]
fn readers_without_a_window_hold_little_and_are_ended() {
    let backend = endless();
    let rig = Plan::new(&[backend.address()])
        .listener("timeouts: {stream-idle: 1500ms}")
        .pool(KEEP_NONE)
        .run();
    let before = rig.proxy.settled();
    // No window at all: SETTINGS_INITIAL_WINDOW_SIZE of 0.
    let mut client = silent(&rig);
    client.raw.send(frames::PREFACE).expect("send");
    client.raw.send(setting(4, 0)).expect("send");
    let streams: Vec<u32> = (0..100).map(|n| 1 + 2 * n).collect();
    let requests: Vec<u8> = streams.iter().flat_map(|s| get(*s, "/big")).collect();
    client.raw.send(requests).expect("send");
    let mut heads = 0;
    let mut ended = Vec::new();
    let mut grown = 0;
    while ended.len() < streams.len() {
        match client.next().expect("a frame") {
            f if f.kind == HEADERS => {
                assert_eq!(f.status(), 200);
                heads += 1;
                let now = rig.proxy.resources().resident_bytes;
                grown = grown.max(now.saturating_sub(before.resident_bytes));
            }
            f if f.kind == RST_STREAM => {
                assert_eq!(f.code(), CANCEL);
                ended.push(f.stream);
            }
            f => assert_ne!(f.kind, DATA, "data without a window"),
        }
    }
    // On a machine that is busy the time of some is over before their heads have left.
    assert!(heads > 0);
    assert!(grown < 32 << 20, "{grown} bytes more");
    let idle = || {
        let all = records(&rig.proxy);
        let idle = all.iter().filter(|r| r["reason"] == "idle-timeout");
        idle.count() == streams.len()
    };
    assert!(eventually(DEADLINE, idle), "{}", rig.proxy.stdout());
    drop(client);
    rig.proxy.assert_nothing_left(before, 32 << 20);
}

#[test]
fn a_reader_who_opens_the_window_bit_by_bit_gets_all_of_it() {
    let body = "0123456789".repeat(10_000);
    let sent = body.clone();
    let backend = Backend::http_with(move |_| response(200, &sent));
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = silent(&rig);
    client.raw.send(frames::PREFACE).expect("send");
    client.raw.send(setting(4, 0)).expect("send");
    client.request(1, "/");
    assert_eq!(answer(&mut client, 1), Answer::Status(200));
    let mut got = Vec::new();
    let mut wanted = 0;
    for step in [1, 7, 1000, 16 * 1024, 30_000, 70_000] {
        wanted = (wanted + step).min(body.len());
        client
            .raw
            .send(window_update(1, step as u32))
            .expect("send");
        client
            .raw
            .send(window_update(0, step as u32))
            .expect("send");
        while got.len() < wanted {
            got.extend(client.next_of(&[DATA]).payload);
        }
        assert_eq!(got.len(), wanted, "no more than the window");
    }
    assert_eq!(got, body.as_bytes());
}

/// A peer that does not even read its socket: neither GOAWAY nor PING can reach it.
#[test]
fn a_client_that_stops_reading_is_cut() {
    let backend = endless();
    let rig = Plan::new(&[backend.address()])
        .listener("timeouts: {stream-idle: 1s, keep-alive: 1s, head: 1s}")
        .pool(KEEP_NONE)
        .run();
    let before = rig.proxy.settled();
    let mut client = silent(&rig);
    client.raw.send(frames::PREFACE).expect("send");
    client.raw.send(setting(4, i32::MAX as u32)).expect("send");
    client
        .raw
        .send(window_update(0, i32::MAX as u32 - 65_535))
        .expect("send");
    let requests: Vec<u8> = (0..100).flat_map(|n| get(1 + 2 * n, "/big")).collect();
    client.raw.send(requests).expect("send");
    assert!(eventually(DEADLINE, || connections(&rig) == 1.0));
    let mut grown = 0;
    let cut = eventually(DEADLINE, || {
        let now = rig.proxy.resources().resident_bytes;
        grown = grown.max(now.saturating_sub(before.resident_bytes));
        connections(&rig) == 0.0
    });
    assert!(cut, "still there");
    assert!(grown < 64 << 20, "{grown} bytes more");
    assert_works_after(&rig);
    drop(client);
    rig.proxy.assert_nothing_left(before, 64 << 20);
}

fn connections(rig: &crate::rig::Rig) -> f64 {
    rig.proxy
        .metric("sluicegate_connections_active{listener=\"web\"}")
}

fn assert_works_after(rig: &crate::rig::Rig) {
    let mut client = Client::connect(rig.bind);
    client.request(1, "/big");
    assert_eq!(answer(&mut client, 1), Answer::Status(200));
}

#[test]
fn what_is_never_finished_is_ended() {
    let backend = Backend::http_with(|_| response(200, "ok"));
    let rig = Plan::new(&[backend.address()])
        .listener("timeouts: {head: 300ms, body-idle: 300ms, keep-alive: 300ms}")
        .pool(KEEP_NONE)
        .run();
    let before = rig.proxy.settled();
    let cases: [(&str, Vec<u8>, Answer); 6] = [
        ("nothing after the preface", Vec::new(), Answer::Close),
        ("half a frame's head", vec![0, 0], Answer::Close),
        ("half a frame", data(0, b"x")[..9].to_vec(), Answer::Close),
        (
            "a header block without end",
            frame(HEADERS, END_STREAM, 1, &block(&GET)),
            Answer::Close,
        ),
        (
            "a body that never comes",
            headers_open(1, &POST),
            Answer::Status(408),
        ),
        (
            "a body that stops",
            [headers_open(1, &POST), data(1, b"12")].concat(),
            Answer::Status(408),
        ),
    ];
    std::thread::scope(|scope| {
        for (name, bytes, expected) in &cases {
            let rig = &rig;
            scope.spawn(move || {
                let began = Instant::now();
                let mut client = Client::connect(rig.bind);
                client.raw.send(bytes).expect("send");
                let got = answer(&mut client, 1);
                assert_eq!(got, *expected, "{name}");
                assert!(began.elapsed() < Duration::from_secs(20), "{name}");
                // And then the connection, which does not say that it heard, is closed.
                while client.next().is_some() {}
                let mut one = [0];
                let _ = client.raw.stream().read(&mut one);
            });
        }
    });
    assert_works(&rig);
    assert!(backend.received().iter().all(|r| r.target() == "/works"));
    rig.proxy.assert_nothing_left(before, 8 << 20);
}

/// Pings keep no connection open that asks for nothing.
#[test]
fn a_client_that_only_pings_is_closed() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener("timeouts: {keep-alive: 500ms}")
        .run();
    let mut client = Client::connect(rig.bind);
    let closed = eventually(DEADLINE, || {
        let sent = client.raw.send(frame(frames::PING, 0, 0, &[7; 8])).is_ok();
        std::thread::sleep(Duration::from_millis(50));
        !sent
    });
    assert!(closed, "still open");
    rig.settles();
}
