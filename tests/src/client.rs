//! Clients: raw bytes over a socket for what no well-behaved client sends, and the real curl for what users do.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::wait::DEADLINE;

/// A response as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Status line and field lines, without the empty line.
    pub head: String,
    /// Unframed: without chunk sizes.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a field, whatever the case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A plain TCP connection on which every read and write has a deadline.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// Read but not consumed.
    ahead: Vec<u8>,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)
            .unwrap_or_else(|why| panic!("cannot connect to {address}: {why}"));
        Self::over(stream)
    }

    /// Connects as the client `source`: any loopback address will do.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let connect = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect_timeout(&address.into(), DEADLINE)?;
            io::Result::Ok(socket)
        };
        let socket = connect()
            .unwrap_or_else(|why| panic!("cannot connect from {source} to {address}: {why}"));
        Self::over(socket.into())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Reads a whole response of a request that was not `HEAD`.
    pub fn response(&mut self) -> io::Result<Response> {
        let head = self.head()?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| invalid(&format!("no status line: {head:?}")))?;
        let body = self.body(&head, status)?;
        Ok(Response { status, head, body })
    }

    /// Reads up to and with the empty line; gives what comes before it.
    pub fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.ahead[..at]).into_owned();
                self.ahead.drain(..at + 4);
                return Ok(head);
            }
            self.fill()?;
        }
    }

    pub fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < n {
            self.fill()?;
        }
        Ok(self.ahead.drain(..n).collect())
    }

    /// Everything until the other side closes. An error (a reset, a deadline) is an error even after some bytes.
    pub fn to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut all = std::mem::take(&mut self.ahead);
        self.stream.read_to_end(&mut all)?;
        Ok(all)
    }

    /// Reads up to and with CR LF; gives what comes before it.
    pub fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..at]).into_owned();
                self.ahead.drain(..at + 2);
                return Ok(line);
            }
            self.fill()?;
        }
    }

    /// A body framed as `head` says; that of a request is empty without framing, that of a response lasts to the end.
    pub fn body(&mut self, head: &str, status: u16) -> io::Result<Vec<u8>> {
        if matches!(status, 100..=199 | 204 | 304) {
            return Ok(Vec::new());
        }
        if field(head, "transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return self.chunks();
        }
        match field(head, "content-length") {
            Some(length) => {
                let length = length.parse().map_err(|_| invalid("content-length"))?;
                self.exactly(length)
            }
            None if head.starts_with("HTTP/") => self.to_end(),
            None => Ok(Vec::new()),
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            self.line()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let n = self.stream.read(&mut chunk)?;
        self.ahead.extend_from_slice(&chunk[..n]);
        match n {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// One `GET` on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> io::Result<Response> {
    get_over(Raw::connect(address), address, target)
}

/// One `GET` of the client `source`, on a connection of its own.
pub fn get_from(source: IpAddr, address: SocketAddr, target: &str) -> io::Result<Response> {
    get_over(Raw::connect_from(source, address), address, target)
}

fn get_over(mut raw: Raw, address: SocketAddr, target: &str) -> io::Result<Response> {
    raw.send(format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    ))?;
    raw.response()
}

/// What curl did.
#[derive(Debug, Clone)]
pub struct Curl {
    /// curl's exit code: 0, 52 for an empty reply, 56 for a reset, and so on.
    pub code: i32,
    /// Standard output.
    pub body: String,
    pub stderr: String,
}

/// Runs the real curl, silent but for errors, with a time limit and without the user's configuration or proxies.
pub fn curl(arguments: &[&str]) -> Curl {
    curl_within(DEADLINE, arguments)
}

pub fn curl_within(limit: Duration, arguments: &[&str]) -> Curl {
    let output = Command::new("curl")
        .args(["-q", "-sS", "--noproxy", "*", "--max-time"])
        .arg(limit.as_secs().max(1).to_string())
        .args(arguments)
        .output()
        .expect("curl runs (is it installed?)");
    Curl {
        code: output.status.code().unwrap_or(-1),
        body: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The first value of a field in a head as text.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
