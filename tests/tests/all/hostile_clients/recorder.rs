//! A backend that remembers every byte it was sent, reads requests as strictly as can be, and says what was wrong.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::field;
use sluicegate_tests::wait::{DEADLINE, eventually};

/// Answers every whole request 200 with its target as the body; see [`Seen`] for what it remembers.
pub struct Recorder {
    backend: Backend,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    seen: Seen,
    /// By connection: bytes that are no whole request yet.
    partial: BTreeMap<usize, Vec<u8>>,
    ended: usize,
}

/// Fields that end at the proxy when nothing is upgraded. Transfer-Encoding is its own.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "http2-settings",
    "proxy-authorization",
];

/// What frames, routes or authenticates, or says who sent it, is no trailer.
const NO_TRAILERS: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "host",
    "authorization",
    "cookie",
    "trailer",
    "x-forwarded-for",
    "forwarded",
];

/// What reached a recorder since it was last asked.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub requests: Vec<Request>,
    /// Bytes that made no whole request.
    pub fragments: String,
    /// What a proxy must never write.
    pub complaints: Vec<String>,
}

/// A whole request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Request line and field lines, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
    /// Field lines behind a chunked body.
    pub trailers: String,
}

impl Request {
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

impl Recorder {
    pub fn start() -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let recording = log.clone();
        let backend = Backend::raw(move |stream, connection| {
            record(stream, connection, &recording);
            lock(&recording).ended += 1;
        });
        Self { backend, log }
    }

    pub fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// What came since the last call, which is then forgotten. Waits until all connections but one, which the proxy
    /// keeps, have ended and been read to their ends.
    pub fn take(&self) -> Seen {
        let ended = || self.backend.connections() <= lock(&self.log).ended + 1;
        assert!(
            eventually(DEADLINE, ended),
            "upstream connections stay open"
        );
        let mut log = lock(&self.log);
        let mut seen = std::mem::take(&mut log.seen);
        for bytes in std::mem::take(&mut log.partial).into_values() {
            seen.fragments += &String::from_utf8_lossy(&bytes);
        }
        seen
    }
}

fn record(mut stream: TcpStream, connection: usize, log: &Mutex<Log>) {
    let (mut pending, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let read = match stream.read(&mut piece) {
            Ok(read @ 1..) => read,
            _ => return,
        };
        pending.extend_from_slice(&piece[..read]);
        while let Some((request, len)) = whole(&pending) {
            pending.drain(..len);
            let answer = response(200, request.target());
            {
                let seen = &mut lock(log).seen;
                seen.complaints.extend(complaint(&request));
                // Remembered before it is answered, so that a test that has the answer finds the request.
                seen.requests.push(request);
            }
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
        let mut log = lock(log);
        log.partial.remove(&connection);
        if !pending.is_empty() {
            log.partial.insert(connection, pending.clone());
        }
    }
}

/// The request at the front of `bytes` and its length, when all of it is there.
fn whole(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut at = find(bytes, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    at += 4;
    let (mut body, mut trailers) = (Vec::new(), String::new());
    if field(&head, "transfer-encoding").is_some() {
        loop {
            let line = find(&bytes[at..], b"\r\n")?;
            let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
            let size = usize::from_str_radix(size, 16).ok()?;
            at += line + 2;
            if size == 0 {
                break;
            }
            body.extend_from_slice(bytes.get(at..at + size)?);
            at += size + 2;
        }
        loop {
            let line = find(bytes.get(at..)?, b"\r\n")?;
            trailers += &String::from_utf8_lossy(&bytes[at..at + line]);
            at += line + 2;
            if line == 0 {
                break;
            }
            trailers.push('\n');
        }
    } else if let Some(length) = field(&head, "content-length") {
        let length: usize = length.parse().ok()?;
        body.extend_from_slice(bytes.get(at..at + length)?);
        at += length;
    }
    let request = Request {
        head,
        body,
        trailers,
    };
    Some((request, at))
}

/// What no proxy may write, whatever its client wrote.
fn complaint(request: &Request) -> Option<String> {
    let head = &request.head;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let parts: Vec<&str> = line.split(' ').collect();
    if parts.len() != 3 || parts[2] != "HTTP/1.1" {
        return Some(format!("request line {line:?}"));
    }
    if head
        .replace("\r\n", "")
        .contains(|c: char| c.is_control() && c != '\t')
    {
        return Some("a control byte".to_owned());
    }
    let names: Vec<String> = lines
        .map(|line| {
            line.split(':')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
        })
        .collect();
    let count = |name: &str| names.iter().filter(|n| *n == name).count();
    if count("host") != 1 {
        return Some(format!("{} Host fields", count("host")));
    }
    let framings = count("content-length") + count("transfer-encoding");
    if framings > 1 {
        return Some(format!("{framings} framing fields"));
    }
    let odd = |name: &&String| name.is_empty() || name.contains([' ', '\t']);
    let hop = |name: &&String| HOP_BY_HOP.contains(&name.as_str());
    if let Some(name) = names.iter().find(|name| odd(name) || hop(name)) {
        return Some(format!("a field named {name:?}"));
    }
    let trailers = request.trailers.lines();
    let mut names = trailers.map(|line| line.split(':').next().unwrap_or_default());
    let name = names.find(|name| NO_TRAILERS.contains(name) || HOP_BY_HOP.contains(name))?;
    Some(format!("a trailer named {name:?}"))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
