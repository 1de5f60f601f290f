//! HTTP/2 clients that break the protocol, use it as a weapon, are slow, or leave: what each is answered, what of it the
//! backend sees, that the next stream or connection works, and that nothing is left behind.

mod aborts;
mod conduct;
mod connections;
mod fields;
mod floods;
mod slow;

use std::sync::atomic::{AtomicUsize, Ordering};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;

use super::frames::{self, Client, Frame};
use super::rig::{Plan, Rig};

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// The first thing a client is told about what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A response on the stream.
    Status(u16),
    /// RST_STREAM on the stream with this code.
    Reset(u32),
    /// GOAWAY with this code, and the end of the connection.
    GoAway(u32),
    /// The end of the connection without an error code.
    Close,
}

/// One thing to do to a fresh connection.
struct Case {
    name: &'static str,
    /// Sent after the preface and SETTINGS.
    send: Vec<u8>,
    /// What happens on stream 1, or to the connection.
    answer: Answer,
    /// What may happen as well, where it depends on what is under way.
    or: Option<Answer>,
    /// Requests whose path begins with `/case` that the backend gets of it.
    reaches: usize,
}

impl Case {
    fn new(name: &'static str, send: Vec<u8>, answer: Answer) -> Self {
        Self {
            name,
            send,
            answer,
            or: None,
            reaches: 0,
        }
    }

    fn reaching(mut self, requests: usize) -> Self {
        self.reaches = requests;
        self
    }

    fn or(mut self, answer: Answer) -> Self {
        self.or = Some(answer);
        self
    }
}

/// The path that stands for the case's own: `run` gives each connection one that the backend can tell apart.
const PATH: &str = "/case-----";

/// Upstream connections that are kept would count as left behind.
const KEEP_NONE: &str = "keep-alive: {max: 0}";

/// GET of [`PATH`].
const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "site"),
];

/// POST of [`PATH`].
const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "site"),
];

/// Runs every case on a connection of its own, several at a time, and reports all that differ together.
fn run(listener: &str, cases: &[Case]) {
    let backend = Backend::http_with(|_| response(200, "ok"));
    let rig = Plan::new(&[backend.address()])
        .listener(listener)
        .pool(KEEP_NONE)
        .run();
    assert_works(&rig);
    let before = rig.proxy.settled();
    let next = AtomicUsize::new(0);
    let differ: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut differ = Vec::new();
                    loop {
                        let n = next.fetch_add(1, Ordering::SeqCst);
                        let Some(case) = cases.get(n) else {
                            return differ;
                        };
                        if let Err(how) = check(&rig, &backend, case, n) {
                            differ.push(format!("{}: {how}", case.name));
                        }
                    }
                })
            })
            .collect();
        let each = workers
            .into_iter()
            .flat_map(|w| w.join().expect("no panic"));
        each.collect()
    });
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    rig.proxy.assert_nothing_left(before, 8 << 20);
}

fn check(rig: &Rig, backend: &Backend, case: &Case, n: usize) -> Result<(), String> {
    let path = format!("/case-{n:04}");
    let mut client = Client::connect(rig.bind);
    // The connection may end before all of it is taken.
    let _ = client.raw.send(replaced(&case.send, PATH, &path));
    let got = answer(&mut client, 1);
    if got != case.answer && Some(got) != case.or {
        return Err(format!("{got:?} instead of {:?}", case.answer));
    }
    match got {
        Answer::Status(_) | Answer::Reset(_) => {
            let _ = client.raw.send(frames::get(99, "/after"));
            match answer(&mut client, 99) {
                Answer::Status(200) => {}
                other => return Err(format!("then the next stream gets {other:?}")),
            }
        }
        Answer::GoAway(_) | Answer::Close => assert_works(rig),
    }
    let reached = backend
        .received()
        .iter()
        .filter(|r| r.target().starts_with(&path))
        .count();
    match reached == case.reaches {
        true => Ok(()),
        false => Err(format!(
            "the backend got {reached} requests instead of {}",
            case.reaches
        )),
    }
}

/// The first answer to `stream` or to the whole connection. A GOAWAY without error counts for nothing until the end.
fn answer(client: &mut Client, stream: u32) -> Answer {
    while let Some(frame) = client.next() {
        match frame {
            Frame {
                kind: frames::GOAWAY,
                ..
            } if frame.code() == NO_ERROR => {}
            Frame {
                kind: frames::GOAWAY,
                ..
            } => {
                let code = frame.code();
                while client.next().is_some() {}
                return Answer::GoAway(code);
            }
            Frame {
                kind: frames::HEADERS,
                ..
            } if frame.stream == stream => {
                return Answer::Status(frame.status());
            }
            Frame {
                kind: frames::RST_STREAM,
                ..
            } if frame.stream == stream => {
                return Answer::Reset(frame.code());
            }
            _ => {}
        }
    }
    Answer::Close
}

/// A new connection gets its answer.
fn assert_works(rig: &Rig) {
    let mut client = Client::connect(rig.bind);
    client.request(1, "/works");
    assert_eq!(answer(&mut client, 1), Answer::Status(200));
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at + from.len() <= out.len() {
        if out[at..].starts_with(from.as_bytes()) {
            out[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        at += 1;
    }
    out
}

/// A raw connection on which nothing was sent.
fn silent(rig: &Rig) -> Client {
    Client {
        raw: Raw::connect(rig.bind),
    }
}
