//! How one case of a hostile backend is run, once by an HTTP/1.1 client and once over HTTP/2.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl};

use crate::rig::{Plan, Rig};

/// What a backend does with one request, and what is to come of it.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    request: &'static str,
    says: Vec<Say>,
    then: Then,
    expect: Expect,
}

#[derive(Clone)]
enum Say {
    Bytes(Vec<u8>),
    /// One byte every 100 ms.
    Slowly(&'static [u8]),
    /// Again and again until nobody takes it.
    Endlessly(&'static [u8]),
}

/// How the backend goes on after it spoke.
#[derive(Clone, Copy, PartialEq)]
pub enum Then {
    Close,
    Reset,
    /// Neither a byte nor an end.
    Hang,
    /// Waits for the next request, which must not come: the connection is spoilt.
    Listen,
}

/// What the client sees.
#[derive(Clone)]
pub enum Expect {
    /// An answer of the proxy: status, error of `Proxy-Status`, reason in the record.
    Failure(u16, &'static str, &'static str),
    /// A head with this status, these bytes as they are framed, and then an end that is no end of a message.
    Aborted(u16, &'static str, &'static str),
    /// Interim statuses, the status, and the bytes behind the head as they are framed.
    Whole(&'static [u16], u16, &'static str),
}

pub const GET: &str = "GET PATH HTTP/1.1\r\nHost: x\r\n\r\n";

pub fn failure(name: &'static str, status: u16, error: &'static str, reason: &'static str) -> Case {
    Case::new(name, Expect::Failure(status, error, reason))
}

/// 502 for what is no HTTP response.
pub fn malformed(name: &'static str, says: impl Into<Vec<u8>>) -> Case {
    failure(name, 502, "http_protocol_error", "upstream-malformed").says(says)
}

/// A response whose fields are more than the pool allows.
pub fn too_large(name: &'static str, says: impl Into<Vec<u8>>) -> Case {
    let error = "http_response_header_section_size";
    failure(name, 502, error, "response-headers-too-large").says(says)
}

/// The same for trailers, when the body has come as far as `body`.
pub fn trailers_too_large(
    name: &'static str,
    body: &'static str,
    says: impl Into<Vec<u8>>,
) -> Case {
    Case::new(
        name,
        Expect::Aborted(200, body, "response-headers-too-large"),
    )
    .says(says)
}

/// A response of status 200 whose body breaks off after `body`, as the client's connection frames it.
pub fn truncated(name: &'static str, body: &'static str, says: impl Into<Vec<u8>>) -> Case {
    Case::new(name, Expect::Aborted(200, body, "upstream-truncated")).says(says)
}

/// A response that is whole, with `body` as the client's connection frames it.
pub fn whole(
    name: &'static str,
    status: u16,
    body: &'static str,
    says: impl Into<Vec<u8>>,
) -> Case {
    Case::new(name, Expect::Whole(&[], status, body)).says(says)
}

impl Case {
    fn new(name: &'static str, expect: Expect) -> Self {
        Self {
            name,
            request: GET,
            says: Vec::new(),
            then: Then::Close,
            expect,
        }
    }

    pub fn says(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.says.push(Say::Bytes(bytes.into()));
        self
    }

    pub fn slowly(mut self, bytes: &'static str) -> Self {
        self.says.push(Say::Slowly(bytes.as_bytes()));
        self
    }

    pub fn endlessly(mut self, bytes: &'static str) -> Self {
        self.says.push(Say::Endlessly(bytes.as_bytes()));
        self
    }

    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    /// Another request than GET; `PATH` stands for the target.
    pub fn to(mut self, request: &'static str) -> Self {
        self.request = request;
        self
    }

    pub fn after(mut self, interim: &'static [u16]) -> Self {
        if let Expect::Whole(before, ..) = &mut self.expect {
            *before = interim;
        }
        self
    }
}

/// Runs all cases beside one another against one proxy; every failure is told.
pub fn run(cases: Vec<Case>) {
    let spoilt: Arc<Vec<AtomicBool>> =
        Arc::new(cases.iter().map(|_| AtomicBool::new(false)).collect());
    let backend = {
        let (cases, spoilt) = (cases.clone(), spoilt.clone());
        Backend::raw(move |stream, _| serve(&cases, &spoilt, stream))
    };
    let rig = Plan::new(&[backend.address()])
        .pool("retries: 0\nkeep-alive: {timeout: 1s}")
        .listener("timeouts: {response-head: 700ms}")
        .run();
    assert_eq!(rig.get("/next").text(), "next");
    let before = rig.proxy.settled();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        // Mostly they wait for the access log, which is flushed once a second.
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let n = cases.iter().position(|c| c.name == case.name).unwrap_or(0);
                    for check in [by_http1, by_http2] {
                        if let Err(why) = check(&rig, case, n) {
                            let mut failures =
                                failures.lock().unwrap_or_else(PoisonError::into_inner);
                            failures.push(format!("{}: {why}", case.name));
                        }
                    }
                }
            });
        }
    });
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    for (case, spoilt) in cases.iter().zip(spoilt.iter()) {
        if spoilt.load(Ordering::SeqCst) {
            failures.push(format!("{}: its connection was used again", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    rig.proxy.assert_nothing_left(before, 32 << 20);
}

/// One of the backend's connections.
fn serve(cases: &[Case], spoilt: &[AtomicBool], stream: TcpStream) {
    let mut raw = Raw::over(stream);
    while let Ok(head) = raw.head() {
        let number = head.split(['/', ' ']).nth(2).unwrap_or_default();
        let Ok(number) = number.parse::<usize>() else {
            if raw.send(response(200, "next")).is_err() {
                return;
            }
            continue;
        };
        let case = &cases[number];
        for say in &case.says {
            let mut stream = raw.stream();
            let said = match say {
                Say::Bytes(bytes) => stream.write_all(bytes),
                Say::Slowly(bytes) => bytes.iter().try_for_each(|byte| {
                    std::thread::sleep(Duration::from_millis(100));
                    stream.write_all(&[*byte])
                }),
                Say::Endlessly(bytes) => loop {
                    if let Err(error) = stream.write_all(bytes) {
                        break Err(error);
                    }
                },
            };
            if said.is_err() {
                return;
            }
        }
        match case.then {
            Then::Close => return,
            Then::Reset => {
                super::reset(raw.stream());
                return;
            }
            Then::Hang => {
                let _ = raw.to_end();
                return;
            }
            Then::Listen => {
                if raw.head().is_ok() {
                    spoilt[number].store(true, Ordering::SeqCst);
                }
                return;
            }
        }
    }
}

fn by_http1(rig: &Rig, case: &Case, n: usize) -> Result<(), String> {
    ask(rig, case.request, &format!("/{n}/h1"), &case.expect)
}

/// One request by an HTTP/1.1 client and what it wants to see, then another whose answer must be `next`.
pub fn ask(rig: &Rig, request: &str, target: &str, expect: &Expect) -> Result<(), String> {
    let mut raw = rig.raw();
    let io = |error: std::io::Error| format!("HTTP/1.1: {error}");
    raw.send(request.replace("PATH", target)).map_err(io)?;
    let mut interim = Vec::new();
    let head = loop {
        let head = raw.head().map_err(io)?;
        match status(&head) {
            status @ 100..=199 => interim.push(status),
            _ => break head,
        }
    };
    let closes = head.to_ascii_lowercase().contains("connection: close");
    match *expect {
        Expect::Failure(expected, error, reason) => {
            same("status", status(&head), expected)?;
            let said = sluicegate_tests::client::field(&head, "proxy-status").unwrap_or_default();
            let error = format!("sluicegate; error={error}; details=\"{reason}\"");
            same("Proxy-Status", said, error.as_str())?;
            let length = sluicegate_tests::client::field(&head, "content-length");
            let length = length.and_then(|n| n.parse().ok()).unwrap_or(0);
            raw.exactly(length).map_err(io)?;
            recorded(rig, target, expected, Value::from(reason))?;
        }
        Expect::Aborted(expected, body, reason) => {
            same("status", status(&head), expected)?;
            let rest = raw.to_end().map_err(io)?;
            same("broken body", &*String::from_utf8_lossy(&rest), body)?;
            recorded(rig, target, expected, Value::from(reason))?;
            raw = rig.raw();
        }
        Expect::Whole(before, expected, body) => {
            same("interim", &interim[..], before)?;
            same("status", status(&head), expected)?;
            let rest = match closes {
                true => raw.to_end(),
                false => raw.exactly(body.len()),
            };
            let rest = rest.map_err(io)?;
            same("body", &*String::from_utf8_lossy(&rest), body)?;
            recorded(rig, target, expected, Value::Null)?;
        }
    }
    if closes {
        let rest = raw.to_end().map_err(io)?;
        same("rest", rest.len(), 0)?;
        raw = rig.raw();
    }
    raw.send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        .map_err(io)?;
    let next = raw
        .response()
        .map_err(|why| format!("the next exchange: {why}"))?;
    same("the next exchange", &*next.text(), "next")
}

/// The same over HTTP/2, when curl can send the request.
fn by_http2(rig: &Rig, case: &Case, n: usize) -> Result<(), String> {
    let option = match case.request {
        GET => "-sS",
        r if r.starts_with("HEAD") => "--head",
        _ => return Ok(()),
    };
    let target = format!("/{n}/h2");
    let format = "%{stderr}%{http_code}";
    let url = rig.url(&target);
    let done = curl(&[option, "--http2-prior-knowledge", "-w", format, &url]);
    let status: u16 = done
        .stderr
        .get(done.stderr.len().saturating_sub(3)..)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    match case.expect {
        Expect::Failure(expected, _, reason) => {
            same("HTTP/2 status", status, expected)?;
            same("HTTP/2 curl", done.code, 0)?;
            recorded(rig, &target, expected, Value::from(reason))
        }
        Expect::Aborted(expected, _, reason) => {
            same("HTTP/2 curl", done.code, 92)?;
            recorded(rig, &target, expected, Value::from(reason))
        }
        Expect::Whole(_, expected, _) => {
            same("HTTP/2 status", status, expected)?;
            same("HTTP/2 curl", done.code, 0)?;
            recorded(rig, &target, expected, Value::Null)
        }
    }
}

fn recorded(rig: &Rig, target: &str, status: u16, reason: Value) -> Result<(), String> {
    let record = rig.record(target);
    same("recorded status", &record["status"], &Value::from(status))?;
    same("recorded reason", &record["reason"], &reason)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what} is {found:?}, not {expected:?}"))
}

fn status(head: &str) -> u16 {
    let word = head.split(' ').nth(1);
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}
