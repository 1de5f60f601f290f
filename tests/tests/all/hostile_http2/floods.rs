//! Frames as a weapon: each flood ends in GOAWAY(ENHANCE_YOUR_CALM), at once in terms of memory, and the backend sees
//! little of it.

use std::time::Duration;

use super::{
    Answer, ENHANCE_YOUR_CALM, GET, KEEP_NONE, POST, PROTOCOL_ERROR, answer, assert_works,
};
use crate::frames::{
    self, ACK, CONTINUATION, Client, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, SETTINGS,
    block, cancel, data, frame, get, headers, headers_open, integer, window_update,
};
use crate::rig::Plan;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};

/// What the process may grow by under one flood, with what the allocator keeps.
const MEMORY_MAX: u64 = 16 << 20;

struct Flood {
    name: &'static str,
    /// Sent once.
    first: Vec<u8>,
    /// Sent until the connection ends, for the streams 3, 5, 7 and so on.
    wave: fn(u32) -> Vec<u8>,
    waves: u32,
    answer: Answer,
    /// Another end that it may come to, depending on what is under way.
    or: Option<Answer>,
    /// Requests that may reach the backend.
    reaches_max: usize,
}

impl Flood {
    fn new(name: &'static str, wave: fn(u32) -> Vec<u8>) -> Self {
        Self {
            name,
            first: Vec::new(),
            wave,
            waves: 20_000,
            answer: Answer::GoAway(ENHANCE_YOUR_CALM),
            or: None,
            reaches_max: 0,
        }
    }

    fn first(mut self, bytes: Vec<u8>) -> Self {
        self.first = bytes;
        self
    }

    fn or(mut self, answer: Answer) -> Self {
        self.or = Some(answer);
        self
    }

    fn reaching(mut self, requests: usize) -> Self {
        self.reaches_max = requests;
        self
    }
}

fn open(stream: u32) -> Vec<u8> {
    headers_open(stream, &POST)
}

fn floods() -> Vec<Flood> {
    vec![
        Flood::new("rapid reset (CVE-2023-44487)", |s| {
            [get(s, "/"), cancel(s)].concat()
        })
        .reaching(5),
        Flood::new("reset by a window of 0 (CVE-2025-8671)", |s| {
            [open(s), window_update(s, i32::MAX as u32)].concat()
        })
        .reaching(150),
        Flood::new("reset by data after a length", |s| {
            [
                headers_open(s, &[&POST[..], &[("content-length", "1")]].concat()),
                data(s, b"12"),
            ]
            .concat()
        })
        .reaching(150),
        Flood::new("reset by a priority of itself", |s| {
            [
                open(s),
                frame(PRIORITY, 0, s, &[&s.to_be_bytes()[..], &[0]].concat()),
            ]
            .concat()
        })
        .reaching(150),
        Flood::new("reset by a malformed head", |s| headers(s, &[GET[0]])),
        Flood::new("reset by trailers that do not end", |s| {
            [
                open(s),
                frame(HEADERS, END_HEADERS, s, &block(&[("x", "1")])),
            ]
            .concat()
        })
        .reaching(150)
        // Trailers of a stream that was refused are headers of one that is over.
        .or(Answer::GoAway(PROTOCOL_ERROR)),
        Flood::new("refused streams", open).reaching(100),
        Flood::new("PING", |_| frame(PING, 0, 0, &[0; 8])),
        Flood::new("acknowledgements of PING", |_| frame(PING, ACK, 0, &[0; 8])),
        Flood::new("SETTINGS", |_| frame(SETTINGS, 0, 0, &[])),
        Flood::new("SETTINGS that move every window", |n| {
            frames::setting(4, 1000 + n % 2)
        })
        .first(open(1))
        .reaching(1),
        Flood::new("PRIORITY", |s| frame(PRIORITY, 0, s, &[0, 0, 0, 0, 7])),
        Flood::new("WINDOW_UPDATE of the connection", |_| window_update(0, 1)),
        Flood::new("WINDOW_UPDATE of a stream", |_| window_update(1, 1))
            .first(open(1))
            .reaching(1),
        Flood::new("unknown frames", |_| frame(0x42, 0, 0, b"")),
        Flood::new("RST_STREAM of a stream that is over", |_| cancel(1))
            .first([open(1), cancel(1)].concat())
            .reaching(1),
        Flood::new("empty DATA", |_| data(1, b""))
            .first(open(1))
            .reaching(1),
        Flood::new("empty DATA with padding", |_| {
            frame(frames::DATA, frames::PADDED, 1, &[3, 0, 0, 0])
        })
        .first(open(1))
        .reaching(1),
        Flood::new("CONTINUATION without content", |_| {
            frame(CONTINUATION, 0, 1, &[])
        })
        .first(frame(HEADERS, END_STREAM, 1, &block(&GET))),
        Flood::new("CONTINUATION with content", |_| {
            frame(CONTINUATION, 0, 1, &block(&[("x", &"v".repeat(4000))]))
        })
        .first(frame(HEADERS, END_STREAM, 1, &block(&GET))),
        Flood::new("an HPACK bomb", |s| {
            // One field of 3000 bytes in the table, named four thousand times in a head of four kilobytes.
            let mut fields = block(&GET);
            fields.push(0x40);
            fields.extend(integer(0, 7, 1));
            fields.push(b'x');
            fields.extend(integer(0, 7, 3000));
            fields.extend([b'v'; 3000]);
            fields.extend([0xbe; 4000]);
            frame(HEADERS, 5, s, &fields)
        }),
    ]
}

#[test]
fn every_flood_ends_calmly_and_reaches_nobody() {
    // Takes connections and answers nothing: what reached it is counted by the requests it was sent.
    let backend = Backend::raw(|stream, _| {
        let _ = Raw::over(stream).to_end();
    });
    let rig = Plan::new(&[backend.address()])
        .pool("retries: 0")
        .listener("timeouts: {head: 1s}")
        .run();
    let before = rig.proxy.settled();
    let mut differ = Vec::new();
    for flood in floods() {
        let reached = backend.connections();
        let mut client = Client::connect(rig.bind);
        let mut sender = Client {
            raw: Raw::over(client.raw.stream().try_clone().expect("clone")),
        };
        let wave = flood.wave;
        let got = std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = sender.raw.send(&flood.first);
                for some in (0..flood.waves).collect::<Vec<_>>().chunks(64) {
                    let bytes: Vec<u8> = some.iter().flat_map(|n| wave(3 + 2 * n)).collect();
                    if sender.raw.send(bytes).is_err() {
                        return;
                    }
                }
            });
            answer(&mut client, 1)
        });
        if got != flood.answer && Some(got) != flood.or {
            differ.push(format!(
                "{}: {got:?} instead of {:?}",
                flood.name, flood.answer
            ));
        }
        let reached = backend.connections() - reached;
        if reached > flood.reaches_max {
            differ.push(format!(
                "{}: {reached} requests reached the backend",
                flood.name
            ));
        }
        let grown = rig
            .proxy
            .resources()
            .resident_bytes
            .saturating_sub(before.resident_bytes);
        if grown > MEMORY_MAX {
            differ.push(format!("{}: {grown} bytes more", flood.name));
        }
        if !eventually(DEADLINE, || {
            rig.proxy
                .metric("sluicegate_exchanges_active{listener=\"web\"}")
                == 0.0
        }) {
            differ.push(format!("{}: exchanges go on", flood.name));
        }
        // Dials of this one, which the backend may take late, are not to count for the next.
        let is_quiet = || {
            let seen = backend.connections();
            std::thread::sleep(Duration::from_millis(50));
            seen == backend.connections()
        };
        assert!(eventually(DEADLINE, is_quiet), "{}", flood.name);
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    rig.proxy.assert_nothing_left(before, MEMORY_MAX);
}

/// Each request is let reach the backend before it is cancelled, so that only counting cancellations helps.
#[test]
fn a_patient_rapid_reset_ends_too() {
    // Takes requests and answers none of them until their connection ends.
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok_and(|head| head.contains("/works")) {
            let _ = raw.send(sluicegate_tests::backend::response(200, "ok"));
        }
        let _ = raw.to_end();
    });
    let rig = Plan::new(&[backend.address()])
        .pool(KEEP_NONE)
        .listener("limits: {streams: 100}")
        .run();
    let before = rig.proxy.settled();
    let mut client = Client::connect(rig.bind);
    let over = || rig.proxy.metric(CANCELLATIONS) > 0.0;
    let mut sent = 0u32;
    while sent < 3000 {
        let streams = sent..sent + 100;
        sent = streams.end;
        let asked: Vec<u8> = streams.clone().flat_map(|n| get(1 + 2 * n, "/")).collect();
        let taken = client.raw.send(asked).is_ok()
            && eventually(DEADLINE, || {
                backend.connections() >= sent as usize || over()
            });
        let cancelled: Vec<u8> = streams.flat_map(|n| cancel(1 + 2 * n)).collect();
        if !taken || client.raw.send(cancelled).is_err() || over() {
            break;
        }
    }
    assert_eq!(
        answer(&mut client, 99_999),
        Answer::GoAway(ENHANCE_YOUR_CALM)
    );
    assert!(backend.connections() < 2000, "{}", backend.connections());
    drop(client);
    assert_works(&rig);
    rig.proxy.assert_nothing_left(before, MEMORY_MAX);
}

const CANCELLATIONS: &str =
    "sluicegate_http2_goaways_total{listener=\"web\",reason=\"cancellations\"}";

/// A map that is panned asks for tiles and cancels nine of ten, for as long as somebody pans. A rapid reset does the same
/// as fast as it can, and is over before it has done much.
#[test]
fn impatience_goes_on_and_a_rapid_reset_ends() {
    let backend = Backend::http_with(|_| sluicegate_tests::backend::response(200, "tile"));
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = Client::connect(rig.bind);
    for pan in 0..100u32 {
        let tiles = 10 * pan..10 * pan + 10;
        let wanted = 1 + 2 * (tiles.end - 1);
        let asked: Vec<u8> = tiles.clone().flat_map(|n| get(1 + 2 * n, "/")).collect();
        client.raw.send(asked).expect("send");
        let unwanted = tiles.start..tiles.end - 1;
        let cancelled: Vec<u8> = unwanted.flat_map(|n| cancel(1 + 2 * n)).collect();
        client.raw.send(cancelled).expect("send");
        assert_eq!(
            answer(&mut client, wanted),
            Answer::Status(200),
            "pan {pan}"
        );
        // The pace of the hand, not of the proxy.
        std::thread::sleep(Duration::from_millis(25));
    }
    drop(client);
    let before = backend.received().len();
    let mut client = Client::connect(rig.bind);
    let mut sender = Client {
        raw: Raw::over(client.raw.stream().try_clone().expect("clone")),
    };
    let got = std::thread::scope(|scope| {
        scope.spawn(move || {
            for stream in 0..20_000 {
                let both = [get(1 + 2 * stream, "/"), cancel(1 + 2 * stream)];
                // Both in one segment each, so that many are seen before they are cancelled.
                if both.iter().any(|bytes| sender.raw.send(bytes).is_err()) {
                    return;
                }
            }
        });
        answer(&mut client, 99_999)
    });
    assert_eq!(got, Answer::GoAway(ENHANCE_YOUR_CALM));
    let reached = backend.received().len() - before;
    assert!(reached < 1000, "{reached} requests reached the backend");
    assert_works(&rig);
}

/// A client that leaves page after page, and looks at some: what a browser does.
#[test]
fn cancelling_now_and_then_is_no_attack() {
    let backend = Backend::http_with(|_| sluicegate_tests::backend::response(200, "ok"));
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = Client::connect(rig.bind);
    for n in 0..600u32 {
        let stream = 1 + 4 * n;
        client.request(stream, "/looked-at");
        client.request(stream + 2, "/left");
        client.cancel(stream + 2);
        assert_eq!(answer(&mut client, stream), Answer::Status(200), "page {n}");
        while client.next_of(&[frames::DATA]).stream != stream {}
    }
}

/// Pings between requests and windows for what was sent are what every client does.
#[test]
fn busy_clients_may_send_many_small_frames() {
    let body = "b".repeat(2000);
    let backend = Backend::http_with(move |_| sluicegate_tests::backend::response(200, &body));
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = Client::connect(rig.bind);
    for n in 0..600u32 {
        let stream = 1 + 2 * n;
        let small = [
            get(stream, "/"),
            frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 7]),
            frame(PING, 0, 0, &[0; 8]),
        ];
        client.raw.send(small.concat()).expect("send");
        assert_eq!(
            answer(&mut client, stream),
            Answer::Status(200),
            "request {n}"
        );
        while client.next_of(&[frames::DATA]).stream != stream {}
        let windows = [window_update(0, 2000), frame(PING, ACK, 0, &[0; 8])];
        client.raw.send(windows.concat()).expect("send");
    }
}
