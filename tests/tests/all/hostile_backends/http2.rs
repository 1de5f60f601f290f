//! HTTP/2 backends that are hostile, frame by frame.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::sockets::is_connected_to;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::table::{Expect, GET, Then, ask};
use crate::frames::{GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame, headers};
use crate::rig::{Plan, Rig};

const DATA: u8 = 0;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const POST: &str = "POST PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
const RESET: Expect = Expect::Failure(502, "connection_terminated", "upstream-reset");
const MALFORMED: Expect = Expect::Failure(502, "http_protocol_error", "upstream-malformed");
const LATE: Expect = Expect::Failure(504, "http_response_timeout", "response-timeout");
const NEXT: Expect = Expect::Whole(&[], 200, "next");

/// What the backend sends when it sees the first request, on that request's stream.
type Script = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

struct Case {
    name: &'static str,
    request: &'static str,
    retries: u32,
    settings: Vec<u8>,
    script: Script,
    /// Sent again and again after the script until nobody takes it.
    endlessly: Vec<u8>,
    then: Then,
    expect: Expect,
    /// Requests that the backend saw when the client has its answer.
    requests: usize,
}

fn case(
    name: &'static str,
    expect: Expect,
    script: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    Case {
        name,
        request: GET,
        retries: 0,
        settings: Vec::new(),
        script: Box::new(script),
        endlessly: Vec::new(),
        then: Then::Hang,
        expect,
        requests: 1,
    }
}

impl Case {
    fn post(mut self) -> Self {
        self.request = POST;
        self
    }

    /// With a retry allowed, so many requests reach the backend.
    fn retried(mut self, requests: usize) -> Self {
        (self.retries, self.requests) = (1, requests);
        self
    }

    fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    fn endlessly(mut self, bytes: Vec<u8>) -> Self {
        self.endlessly = bytes;
        self
    }

    fn setting(mut self, id: u8, value: u32) -> Self {
        self.settings.extend([0, id]);
        self.settings.extend(value.to_be_bytes());
        self
    }
}

/// One connection of a backend that speaks frames.
struct Peer {
    raw: Raw,
}

impl Peer {
    /// None: what came is no HTTP/2 client.
    fn accept(stream: std::net::TcpStream, settings: &[u8]) -> Option<Self> {
        let mut raw = Raw::over(stream);
        let preface = raw.exactly(24).ok()?;
        assert_eq!(preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.send(frame(SETTINGS, 0, 0, settings)).ok()?;
        Some(Self { raw })
    }

    /// The next frame: kind, flags, stream, payload. Settings are acknowledged on the way.
    fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.raw.exactly(9).ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = self.raw.exactly(length).ok()?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        if head[3] == SETTINGS && head[4] & 1 == 0 {
            self.raw.send(frame(SETTINGS, 1, 0, &[])).ok()?;
        }
        Some((head[3], head[4], stream, payload))
    }

    /// The stream of the next request.
    fn request(&mut self) -> Option<u32> {
        loop {
            let (kind, _, stream, _) = self.frame()?;
            if kind == HEADERS {
                return Some(stream);
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.raw.send(bytes).ok()
    }

    fn discard(&mut self) {
        while self.frame().is_some() {}
    }
}

fn head(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = headers(stream, fields);
    bytes[4] = END_HEADERS;
    bytes
}

fn ok(stream: u32) -> Vec<u8> {
    head(stream, &[(":status", "200")])
}

fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

fn reset(stream: u32, code: u8) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, code])
}

fn goaway(last: u32, code: u8) -> Vec<u8> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend([0, 0, 0, code]);
    frame(GOAWAY, 0, 0, &payload)
}

/// A whole answer with a length, so that an HTTP/1.1 client sees its body as it is.
fn next(stream: u32) -> Vec<u8> {
    let fields = [(":status", "200"), ("content-length", "4")];
    [head(stream, &fields), data(stream, END_STREAM, b"next")].concat()
}

/// A field block as it stands, in one frame.
fn block(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block)
}

fn run(cases: Vec<Case>) {
    let (at, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while let Some(case) = cases.get(at.fetch_add(1, Ordering::SeqCst)) {
                    if let Err(why) = check(case) {
                        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                        failures.push(format!("{}: {why}", case.name));
                    }
                }
            });
        }
    });
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check(case: &Case) -> Result<(), String> {
    let requests = AtomicUsize::new(0);
    // The backend's threads end with the scope's proxy, whose connections they serve.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    std::thread::scope(|scope| {
        let (requests, listener) = (&requests, &listener);
        scope.spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if stream
                    .peer_addr()
                    .is_ok_and(|peer| peer.ip().to_string() == "127.0.0.9")
                {
                    return;
                }
                scope.spawn(move || {
                    serve(case, requests, stream);
                });
            }
        });
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let rig = Plan::new(&[address])
                .top("workers: 1")
                .pool(&format!("retries: {}\nprotocol: http2", case.retries))
                .listener("timeouts: {response-head: 700ms, body-idle: 700ms}")
                .run();
            let before = rig.proxy.settled();
            ask(&rig, case.request, "/x", &case.expect)?;
            // One more by `ask` for the next exchange.
            let seen = requests.load(Ordering::SeqCst);
            if seen != case.requests + 1 {
                return Err(format!("the backend saw {seen} requests"));
            }
            // The connection that serves now stays.
            let mut room = before;
            room.descriptors += 1;
            rig.proxy.assert_nothing_left(room, 32 << 20);
            Ok(())
        }));
        // Tells the accepting thread that it is over.
        drop(Raw::connect_from(
            std::net::IpAddr::from([127, 0, 0, 9]),
            address,
        ));
        checked.unwrap_or_else(|_| Err("it panicked".to_owned()))
    })
}

fn serve(case: &Case, requests: &AtomicUsize, stream: std::net::TcpStream) -> Option<()> {
    let mut peer = Peer::accept(stream, &case.settings)?;
    loop {
        let stream = peer.request()?;
        if requests.fetch_add(1, Ordering::SeqCst) > 0 {
            peer.send(&next(stream))?;
            continue;
        }
        peer.send(&(case.script)(stream))?;
        if !case.endlessly.is_empty() {
            while peer.send(&case.endlessly).is_some() {}
            return None;
        }
        match case.then {
            Then::Close => return None,
            Then::Reset => {
                super::reset(peer.raw.stream());
                return None;
            }
            Then::Hang => {
                peer.discard();
                return None;
            }
            Then::Listen => {}
        }
    }
}

#[test]
fn requests_that_were_not_looked_at_go_elsewhere_whatever_the_method() {
    run(vec![
        case("a refused stream", RESET, |s| reset(s, 7)).then(Then::Listen),
        case("a refused POST, repeated", NEXT, |s| reset(s, 7))
            .post()
            .then(Then::Listen)
            .retried(2),
        case("a failed stream, repeated", NEXT, |s| reset(s, 2))
            .then(Then::Listen)
            .retried(2),
        case("a failed POST, not repeated", RESET, |s| reset(s, 2))
            .post()
            .then(Then::Listen)
            .retried(1),
        case("GOAWAY before the stream", NEXT, |_| goaway(0, 0))
            .post()
            .retried(2),
        case("GOAWAY before the stream, and an end", NEXT, |_| {
            goaway(0, 0)
        })
        .post()
        .then(Then::Close)
        .retried(2),
        case("GOAWAY after the stream, and an answer", NEXT, |s| {
            [goaway(s, 0), next(s)].concat()
        }),
        case("GOAWAY after the stream, and an end", RESET, |s| {
            goaway(s, 0)
        })
        .post()
        .then(Then::Close)
        .retried(1),
        case("an end", RESET, |_| Vec::new())
            .post()
            .then(Then::Close)
            .retried(1),
        case("a reset of the connection", RESET, |_| Vec::new()).then(Then::Reset),
    ]);
}

#[test]
fn answers_that_break_off() {
    let cut = |name, script: fn(u32) -> Vec<u8>| {
        case(
            name,
            Expect::Aborted(200, "5\r\nhello\r\n", "upstream-truncated"),
            script,
        )
    };
    run(vec![
        cut("CANCEL in the body", |s| {
            [ok(s), data(s, 0, b"hello"), reset(s, 8)].concat()
        })
        .then(Then::Listen),
        cut("NO_ERROR in the body", |s| {
            [ok(s), data(s, 0, b"hello"), reset(s, 0)].concat()
        })
        .then(Then::Listen),
        cut("an end in the body", |s| {
            [ok(s), data(s, 0, b"hello")].concat()
        })
        .then(Then::Close),
        case(
            "a length that is not reached",
            Expect::Aborted(200, "", "upstream-truncated"),
            |s| {
                let fields = [(":status", "200"), ("content-length", "9")];
                [head(s, &fields), data(s, END_STREAM, b"hello")].concat()
            },
        ),
        case(
            "a length that is exceeded",
            Expect::Aborted(200, "", "upstream-truncated"),
            |s| {
                let fields = [(":status", "200"), ("content-length", "2")];
                [head(s, &fields), data(s, END_STREAM, b"hello")].concat()
            },
        ),
    ]);
}

#[test]
fn heads_and_frames_that_are_none() {
    let bad = |name, script: fn(u32) -> Vec<u8>| case(name, MALFORMED, script);
    let with = |name, fields: &'static [(&'static str, &'static str)]| {
        case(name, MALFORMED, move |s| head(s, fields))
    };
    run(vec![
        bad("HTTP/1.1", |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).then(Then::Close),
        bad("a frame of 1 MiB", |s| frame(DATA, 0, s, &vec![0; 1 << 20])),
        bad("an index that is none", |s| block(s, &[0x80])),
        bad("a table that is too large", |s| {
            block(s, &[0x3f, 0xff, 0xff, 0xff, 0x7f])
        }),
        bad("no status", |s| head(s, &[("x", "y")])),
        with("status 99", &[(":status", "99")]),
        with("status 1000", &[(":status", "1000")]),
        with("status abc", &[(":status", "abc")]),
        with("status 101", &[(":status", "101")]),
        with("two statuses", &[(":status", "200"), (":status", "200")]),
        with("a pseudo-header late", &[("x", "y"), (":status", "200")]),
        with("an upper-case name", &[(":status", "200"), ("X-Y", "z")]),
        with("a blank in a name", &[(":status", "200"), ("x y", "z")]),
        with(
            "a line feed in a value",
            &[(":status", "200"), ("x", "a\nb")],
        ),
        with("NUL in a value", &[(":status", "200"), ("x", "a\0b")]),
        with("connection", &[(":status", "200"), ("connection", "close")]),
        with(
            "chunks",
            &[(":status", "200"), ("transfer-encoding", "chunked")],
        ),
        with(
            "two lengths",
            &[
                (":status", "200"),
                ("content-length", "4"),
                ("content-length", "5"),
            ],
        ),
        with(
            "a length that is none",
            &[(":status", "200"), ("content-length", "+4")],
        ),
        bad("data before the head", |s| data(s, 0, b"hello")),
        bad("a promise", |s| {
            frame(PUSH_PROMISE, END_HEADERS, s, &[0, 0, 0, 2, 0x82])
        }),
        bad("a window that grows by nothing", |s| {
            frame(WINDOW_UPDATE, 0, s, &[0; 4])
        }),
        bad("a window over its limit", |_| {
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])
        }),
        bad("2000 fields", |s| {
            let mut fields = vec![(":status", "200")];
            fields.resize(2000, ("x", "y"));
            let block = &headers(s, &fields)[9..];
            frame(
                HEADERS,
                END_HEADERS,
                s,
                &block[..block.len().min(16000) / 4 * 4 - 6 + 4],
            )
        }),
        bad("a head of 200 KB", |s| {
            let value = "y".repeat(100);
            let mut fields = vec![(":status", "200")];
            fields.resize(2000, ("x", value.as_str()));
            let block = headers(s, &fields)[9..].to_vec();
            let mut bytes = frame(HEADERS, 0, s, &block[..10_000]);
            let rest: Vec<&[u8]> = block[10_000..].chunks(10_000).collect();
            for (n, piece) in rest.iter().enumerate() {
                let flags = if n + 1 == rest.len() { END_HEADERS } else { 0 };
                bytes.extend(frame(CONTINUATION, flags, s, piece));
            }
            bytes
        }),
        bad("a head without end", |s| frame(HEADERS, 0, s, &[0x88])).endlessly({
            let field = headers(1, &[("x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy")]);
            frame(CONTINUATION, 0, 1, &field[9..])
        }),
        bad("interim answers without end", |s| {
            head(s, &[(":status", "103")])
        })
        .endlessly(head(1, &[(":status", "103")])),
    ]);
}

#[test]
fn answers_that_are_odd_but_whole() {
    run(vec![
        case("hints", Expect::Whole(&[103], 200, "next"), |s| {
            [head(s, &[(":status", "103"), ("link", "</a>")]), next(s)].concat()
        })
        .then(Then::Listen),
        case("no body", Expect::Whole(&[], 204, ""), |s| {
            headers(s, &[(":status", "204")])
        })
        .then(Then::Listen),
        case("a body on 204", Expect::Whole(&[], 204, ""), |s| {
            [head(s, &[(":status", "204")]), data(s, END_STREAM, b"no")].concat()
        })
        .then(Then::Listen),
        case("an empty body", Expect::Whole(&[], 200, ""), |s| {
            headers(s, &[(":status", "200")])
        })
        .then(Then::Listen),
        case(
            "trailers",
            Expect::Whole(&[], 200, "5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n"),
            |s| {
                let trailers = headers(s, &[("grpc-status", "0"), ("host", "x")]);
                [ok(s), data(s, 0, b"hello"), trailers].concat()
            },
        )
        .then(Then::Listen),
        case(
            "an answer before the upload ends",
            Expect::Whole(&[], 413, "big"),
            |s| {
                let fields = [(":status", "413"), ("content-length", "3")];
                [head(s, &fields), data(s, END_STREAM, b"big"), reset(s, 0)].concat()
            },
        )
        .then(Then::Listen)
        .big(),
    ]);
}

impl Case {
    fn big(mut self) -> Self {
        self.request = "POST PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbeginning";
        self
    }
}

#[test]
fn answers_that_do_not_come() {
    run(vec![
        case("silence", LATE, |_| Vec::new()),
        case("silence after hints", LATE, |s| {
            head(s, &[(":status", "102")])
        }),
        case("pings without end", LATE, |_| Vec::new()).endlessly(frame(PING, 0, 0, &[0; 8])),
        case("settings without end", LATE, |_| Vec::new()).endlessly(frame(SETTINGS, 0, 0, &[])),
        case("no window for the body", LATE, |_| Vec::new())
            .post()
            .setting(4, 0),
    ]);
}

fn rig(backend: &Backend) -> Rig {
    Plan::new(&[backend.address()])
        .top("workers: 1")
        .pool("protocol: http2")
        .run()
}

#[test]
fn a_client_that_leaves_cancels_its_stream_alone() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let counts = cancelled.clone();
    let backend = Backend::raw(move |stream, _| {
        let Some(mut peer) = Peer::accept(stream, &[]) else {
            return;
        };
        while let Some((kind, _, stream, payload)) = peer.frame() {
            match kind {
                // The first request waits for ever.
                HEADERS if stream > 1 => drop(peer.send(&next(stream))),
                RST_STREAM if stream == 1 && payload == [0, 0, 0, 8] => {
                    counts.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    });
    let rig = rig(&backend);
    let mut raw = rig.raw();
    raw.send("GET /gone HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(eventually(DEADLINE, || backend.connections() == 1));
    assert_eq!(rig.get("/").text(), "next");
    drop(raw);
    assert!(eventually(DEADLINE, || cancelled.load(Ordering::SeqCst) == 1));
    assert_eq!(rig.record("/gone")["reason"], "client-gone");
    assert_eq!(rig.get("/").text(), "next");
    assert_eq!(backend.connections(), 1);
    rig.settles();
}

#[test]
fn a_connection_that_ends_while_nobody_uses_it_costs_nothing() {
    for ends in ["an end", "a reset", "GOAWAY"] {
        let ended = Arc::new(AtomicUsize::new(0));
        let counts = ended.clone();
        let backend = Backend::raw(move |stream, connection| {
            let Some(mut peer) = Peer::accept(stream, &[]) else {
                return;
            };
            while let Some(stream) = peer.request() {
                let _ = peer.send(&next(stream));
                if connection > 0 {
                    continue;
                }
                match ends {
                    "GOAWAY" => drop(peer.send(&goaway(stream, 0))),
                    "a reset" => super::reset(peer.raw.stream()),
                    _ => drop(peer.raw.stream().shutdown(std::net::Shutdown::Both)),
                }
                counts.fetch_add(1, Ordering::SeqCst);
                peer.discard();
                return;
            }
        });
        let rig = Plan::new(&[backend.address()])
            .top("workers: 1")
            .pool("protocol: http2\nretries: 0")
            .run();
        assert_eq!(rig.get("/").text(), "next", "{ends}");
        assert!(eventually(DEADLINE, || ended.load(Ordering::SeqCst) == 1));
        // What the proxy's machine has not heard of, the proxy cannot know.
        let heard = || ends == "GOAWAY" || !is_connected_to(backend.address());
        assert!(eventually(DEADLINE, heard), "{ends}");
        let answer = rig.ask(POST.replace("PATH", "/x"));
        assert_eq!(answer.text(), "next", "{ends}");
        assert_eq!(backend.connections(), 2, "{ends}");
    }
}

#[test]
fn every_goaway_to_an_endpoint_is_counted() {
    for reason in ["protocol", "flood"] {
        let backend = Backend::raw(move |stream, _| {
            let Some(mut peer) = Peer::accept(stream, &[]) else {
                return;
            };
            while let Some(stream) = peer.request() {
                let bytes = match reason {
                    "protocol" => frame(DATA, 0, 0, b"of no stream"),
                    _ => [
                        head(stream, &[(":status", "200")]),
                        frame(DATA, 0, stream, b"").repeat(1000),
                    ]
                    .concat(),
                };
                let _ = peer.send(&bytes);
            }
        });
        let rig = rig(&backend);
        let mut raw = rig.raw();
        raw.send(POST.replace("PATH", "/x")).expect("send");
        let series = format!(
            "sluicegate_endpoint_http2_goaways_total{{pool=\"web\",endpoint=\"{}\",reason=\"{reason}\"}}",
            backend.address()
        );
        assert!(
            eventually(DEADLINE, || rig.proxy.metric(&series) == 1.0),
            "{series}"
        );
    }
}

#[test]
fn streams_beyond_what_the_endpoint_allows_get_another_connection() {
    // One stream a connection; answers come when both are there.
    let waiting = Arc::new(AtomicUsize::new(0));
    let counts = waiting.clone();
    let backend = Backend::raw(move |stream, _| {
        let Some(mut peer) = Peer::accept(stream, &[0, 3, 0, 0, 0, 1]) else {
            return;
        };
        while let Some(stream) = peer.request() {
            counts.fetch_add(1, Ordering::SeqCst);
            assert!(eventually(DEADLINE, || counts.load(Ordering::SeqCst) >= 3));
            if peer.send(&next(stream)).is_none() {
                return;
            }
        }
    });
    let rig = rig(&backend);
    // So that the endpoint's settings are known.
    waiting.store(2, Ordering::SeqCst);
    assert_eq!(rig.get("/").text(), "next");
    waiting.store(0, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(rig.get("/").text(), "next"));
        }
    });
    assert_eq!(backend.connections(), 3);
    rig.settles();
}

/// More than a request may dial itself.
#[test]
fn a_request_waits_for_as_many_dials_of_others_as_there_are() {
    const REQUESTS: usize = 16;
    let waiting = Arc::new(AtomicUsize::new(0));
    let counts = waiting.clone();
    let backend = Backend::raw(move |stream, _| {
        // One stream a connection, and each has its answer when all have been asked.
        let Some(mut peer) = Peer::accept(stream, &[0, 3, 0, 0, 0, 1]) else {
            return;
        };
        while let Some(stream) = peer.request() {
            counts.fetch_add(1, Ordering::SeqCst);
            assert!(eventually(DEADLINE, || counts.load(Ordering::SeqCst) >= REQUESTS));
            if peer.send(&next(stream)).is_none() {
                return;
            }
        }
    });
    let rig = rig(&backend);
    std::thread::scope(|scope| {
        for _ in 0..REQUESTS {
            scope.spawn(|| assert_eq!(rig.get("/").text(), "next"));
        }
    });
    assert_eq!(backend.connections(), REQUESTS);
    rig.settles();
}

#[test]
fn requests_share_a_connection_and_a_dial() {
    let streams = Arc::new(AtomicUsize::new(0));
    let counts = streams.clone();
    let backend = Backend::raw(move |stream, _| {
        // Slow to be accepted, so that all are there before the connection is.
        std::thread::sleep(Duration::from_millis(200));
        let Some(mut peer) = Peer::accept(stream, &[]) else {
            return;
        };
        let mut open = Vec::new();
        while let Some(stream) = peer.request() {
            counts.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
            if open.len() == 40 {
                for stream in open.drain(..).rev() {
                    let _ = peer.send(&next(stream));
                }
            }
        }
    });
    let rig = rig(&backend);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_eq!(rig.get("/").text(), "next"));
        }
    });
    assert_eq!(
        (backend.connections(), streams.load(Ordering::SeqCst)),
        (1, 40)
    );
    rig.settles();
}
