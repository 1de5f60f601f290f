//! Clients that take their time, many at once: each is let go when its time is over, others are served meanwhile, and
//! none costs more memory than it may.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::DEADLINE;

use super::{SLACK, report, same};
use crate::rig::{Plan, Rig};

/// Of each kind.
const CLIENTS: usize = 60;

/// How often those who dribble send a byte.
const DRIBBLE: Duration = Duration::from_millis(100);

/// What a proxy may hold for one client that does not read: a piece of its response, and what is around it.
const BYTES_UNREAD: u64 = 128 << 10;

/// And for any other.
const BYTES_EACH: u64 = 8 << 10;

/// The time for a step, and for a whole exchange. Sockets hold little, so that soon nothing moves for who does not read.
const LISTENER: &str = "\
timeouts: {head: 1s, body-idle: 1s, stream-idle: 1s, keep-alive: 1s, total: 3s}
tcp: {socket-buffer: 64KiB}";

/// A machine on which the clients themselves are late by this says nothing about which timeout comes first.
const STALL: Duration = Duration::from_millis(400);

/// A kind of slowness.
struct Kind {
    name: &'static str,
    sends: &'static str,
    /// Sent again and again.
    dribbles: &'static str,
    /// What the answer begins with when it gets one.
    answer: &'static str,
    /// Why it is let go, as `sluicegate_endings_total` counts. None: an idle connection is no failure.
    reason: Option<&'static str>,
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind { name: "says nothing", sends: "", dribbles: "", answer: "", reason: None },
    Kind { name: "sends empty lines", sends: "\r\n", dribbles: "\r\n", answer: "", reason: None },
    Kind { name: "stops in the request line", sends: "GET /sl", dribbles: "", answer: "HTTP/1.1 408", reason: Some("request-head-timeout") },
    Kind { name: "dribbles a target", sends: "GET /", dribbles: "x", answer: "HTTP/1.1 408", reason: Some("request-head-timeout") },
    Kind { name: "dribbles fields", sends: "GET / HTTP/1.1\r\nHost: x\r\n", dribbles: "X: y\r\n", answer: "HTTP/1.1 408", reason: Some("request-head-timeout") },
    Kind { name: "stops in a body", sends: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx", dribbles: "", answer: "HTTP/1.1 408", reason: Some("request-body-timeout") },
    Kind { name: "stops in a chunk's size", sends: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1", dribbles: "", answer: "HTTP/1.1 408", reason: Some("request-body-timeout") },
    Kind { name: "dribbles a body", sends: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", dribbles: "x", answer: "HTTP/1.1 504", reason: Some("total-timeout") },
    Kind { name: "dribbles chunks", sends: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", dribbles: "1\r\nx\r\n", answer: "HTTP/1.1 504", reason: Some("total-timeout") },
    Kind { name: "dribbles a chunk extension", sends: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", dribbles: "x", answer: "HTTP/1.1 408", reason: Some("request-body-timeout") },
    Kind { name: "does not read", sends: "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n", dribbles: "", answer: "HTTP/1.1 200", reason: Some("idle-timeout") },
    Kind { name: "asks once and stays", sends: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", dribbles: "", answer: "HTTP/1.1 200", reason: None },
];

/// One client of a kind until it is let go.
struct Client {
    kind: &'static Kind,
    raw: Raw,
    got: Vec<u8>,
    ended: bool,
}

impl Client {
    fn begin(rig: &Rig, kind: &'static Kind) -> Self {
        let mut raw = rig.raw();
        // Its window is small, so that what the kernels hold between the two is soon full.
        let _ = socket2::SockRef::from(raw.stream()).set_recv_buffer_size(4096);
        raw.send(kind.sends).expect("send");
        raw.stream().set_nonblocking(true).expect("nonblocking");
        Self {
            kind,
            raw,
            got: Vec::new(),
            ended: false,
        }
    }

    /// Dribbles, and looks whether it was let go. Of a response that it does not read it takes the first bytes alone.
    fn step(&mut self) {
        let _ = self.raw.send(self.kind.dribbles);
        let max = match self.kind.answer {
            "HTTP/1.1 200" => self.kind.answer.len(),
            _ => usize::MAX,
        };
        let mut piece = [0; 1024];
        while self.got.len() < max {
            let room = piece.len().min(max - self.got.len());
            match std::io::Read::read(&mut self.raw.stream(), &mut piece[..room]) {
                Ok(0) => return self.ended = true,
                Ok(n) => self.got.extend_from_slice(&piece[..n]),
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.ended = true,
            }
        }
        // It does not read on, so its end shows only as an error, or when nothing more is sent to it.
        self.ended = true;
    }

    /// Was it let go, with the answer of its kind?
    fn check(&self, stalled: bool) -> Result<(), String> {
        let got = String::from_utf8_lossy(&self.got);
        // What a client still sends can meet the end of the connection and take the answer with it.
        let lost = got.is_empty() && !self.kind.dribbles.is_empty();
        match self.ended && (lost || stalled || got.starts_with(self.kind.answer)) {
            true => Ok(()),
            false => Err(format!(
                "{}: {got:?}, let go: {}",
                self.kind.name, self.ended
            )),
        }
    }
}

/// What came of all kinds at once.
struct Outcome {
    failures: Vec<String>,
    /// The most memory that was in use.
    peak: u64,
    /// The clients were late themselves.
    stalled: bool,
}

/// All kinds at once, served beside others.
fn round(rig: &Rig) -> Outcome {
    let (mut failures, mut peak, mut stalled) = (Vec::new(), 0, false);
    let mut clients: Vec<Client> = KINDS
        .iter()
        .flat_map(|kind| (0..CLIENTS).map(move |_| kind))
        .map(|kind| Client::begin(rig, kind))
        .collect();
    let began = Instant::now();
    while clients.iter().any(|c| !c.ended) && began.elapsed() < DEADLINE {
        let step = Instant::now();
        for client in clients.iter_mut().filter(|c| !c.ended) {
            client.step();
        }
        let answer = rig.get("/next");
        failures.extend(same("served meanwhile", "/next".to_owned(), answer.text()).err());
        peak = peak.max(rig.proxy.resources().resident_bytes);
        std::thread::sleep(DRIBBLE);
        stalled |= step.elapsed() > STALL;
    }
    for kind in KINDS {
        let of_kind = clients.iter().filter(|c| std::ptr::eq(c.kind, kind));
        // One tells for all of its kind.
        failures.extend(of_kind.filter_map(|c| c.check(stalled).err()).next());
    }
    // Those who do not read hold on until the proxy lets them go; the others would be lingered for.
    clients.retain(|c| c.kind.sends.contains("/flood"));
    rig.settles();
    Outcome {
        failures,
        peak,
        stalled,
    }
}

#[test]
fn slow_clients_are_let_go_and_cost_little_meanwhile() {
    let backend = backend();
    let rig = Plan::new(&[backend.address()])
        .listener(LISTENER)
        .pool("keep-alive: {max: 1}")
        .top("workers: 1")
        .run();
    let first = round(&rig);
    let before = rig.proxy.settled();
    let second = round(&rig);
    let mut failures = [first.failures, second.failures].concat();
    let reasons = [
        "request-head-timeout",
        "request-body-timeout",
        "total-timeout",
        "idle-timeout",
    ];
    let counted = reasons.map(|reason| {
        let series = format!("sluicegate_endings_total{{listener=\"web\",reason=\"{reason}\"}}");
        rig.proxy.metric(&series)
    });
    let stated = reasons.map(|reason| {
        let kinds = KINDS.iter().filter(|k| k.reason == Some(reason)).count();
        (2 * kinds * CLIENTS) as f64
    });
    // On a busy machine one may end for yet another reason, as when its backend was not reached in time.
    let text = rig.proxy.admin("GET", "/metrics").expect("metrics").text();
    let endings = text
        .lines()
        .filter(|l| l.starts_with("sluicegate_endings_total"));
    let count = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    let all: f64 = endings.filter_map(count).sum();
    failures.extend(same("endings", stated.iter().sum(), all).err());
    if !first.stalled && !second.stalled {
        failures.extend(same("endings by reason", stated, counted).err());
    }
    let most = CLIENTS as u64 * (BYTES_UNREAD + KINDS.len() as u64 * BYTES_EACH);
    let grown = second.peak.saturating_sub(before.resident_bytes);
    if grown > most {
        failures.push(format!("{grown} bytes for them, {most} at most"));
    }
    report(&failures, KINDS.len() * CLIENTS);
    // What an allocator keeps depends on who happened to be there at one time.
    rig.proxy.assert_nothing_left(before, 4 * SLACK);
}

/// Answers with the target; `/flood` with a body that does not end. To a POST not at all.
pub fn backend() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let target = head.split(' ').nth(1).unwrap_or_default();
            if head.starts_with("POST") {
                let _ = raw.to_end();
                return;
            }
            if target == "/flood" {
                let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                while raw.send([b'x'; 0x8000]).is_ok() {}
                return;
            }
            if raw.send(response(200, target)).is_err() {
                return;
            }
        }
    })
}
