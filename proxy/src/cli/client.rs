//! One blocking HTTP/1.1 request to the admin interface of a running process.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::AdminBind;
use crate::error::why as plain;

/// Bytes of an answer that are read; metrics of thousands of endpoints fit.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer: status and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why there is no answer. Says which address was tried and what to look at.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach sluicegate at {at}: {}{hint}", plain(.why))]
    Unreachable {
        at: String,
        why: io::Error,
        hint: &'static str,
    },
    #[error("sluicegate at {at} did not answer: {}\nIts log may say why.", plain(.why))]
    NoAnswer { at: String, why: io::Error },
    #[error(
        "what answers at {at} is not the admin interface of sluicegate: see its `admin.bind`, and --admin here"
    )]
    NotOurs { at: String },
    #[error(
        "\"{0}\" is not an admin address: give the path of a socket with a `/` in it, or a loopback address with port"
    )]
    Address(String),
}

/// What `--admin` names: `unix:/path`, a path, or a loopback address with port.
pub fn parse_address(text: &str) -> Result<AdminBind, ClientError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(AdminBind::Unix(path.into()));
    }
    if let Ok(address) = text.parse::<SocketAddr>()
        && address.ip().is_loopback()
    {
        return Ok(AdminBind::Tcp(address));
    }
    match text.contains('/') {
        true => Ok(AdminBind::Unix(PathBuf::from(text))),
        false => Err(ClientError::Address(text.into())),
    }
}

/// Sends `METHOD path` without a body and reads the answer; each read may take `timeout`.
pub fn call(
    address: &AdminBind,
    method: &str,
    path: &str,
    timeout: Duration,
) -> Result<Answer, ClientError> {
    let at = describe(address);
    let unreachable = |why: io::Error| ClientError::Unreachable {
        at: at.clone(),
        hint: hint(&why),
        why,
    };
    let raw = match address {
        AdminBind::Unix(path_of_socket) => {
            let stream = UnixStream::connect(path_of_socket).map_err(unreachable)?;
            stream
                .set_read_timeout(Some(timeout))
                .and_then(|()| stream.set_write_timeout(Some(timeout)))
                .and_then(|()| exchange(stream, method, path))
        }
        AdminBind::Tcp(address) => {
            let stream =
                TcpStream::connect_timeout(address, CONNECT_TIMEOUT).map_err(unreachable)?;
            stream
                .set_read_timeout(Some(timeout))
                .and_then(|()| stream.set_write_timeout(Some(timeout)))
                .and_then(|()| exchange(stream, method, path))
        }
    };
    let raw = raw.map_err(|why| ClientError::NoAnswer {
        at: at.clone(),
        why,
    })?;
    parse_answer(&raw).ok_or(ClientError::NotOurs { at })
}

/// The address as it is shown to people.
pub fn describe(address: &AdminBind) -> String {
    match address {
        AdminBind::Unix(path) => format!("unix:{}", path.display()),
        AdminBind::Tcp(address) => address.to_string(),
    }
}

fn hint(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "\nIs it running? Its `admin.bind` says where it listens; --admin, or -c with its configuration, where to look."
        }
        io::ErrorKind::PermissionDenied => {
            "\nThe socket is open to its owner and group only: run this as one of them."
        }
        _ => "",
    }
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> io::Result<Vec<u8>> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut raw = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut raw)?;
    match raw.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(raw),
    }
}

/// The admin interface always sends `Content-Length` and closes; what is cut short is no answer.
fn parse_answer(raw: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_len) = head.parse(raw).ok()? else {
        return None;
    };
    let status = head.code?;
    let length = head
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = std::str::from_utf8(length.value).ok()?.parse().ok()?;
    let body = raw.get(head_len..head_len.checked_add(length)?)?;
    Some(Answer {
        status,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let unix = |p: &str| AdminBind::Unix(p.into());
        for (text, expected) in [
            ("unix:/run/x.sock", Some(unix("/run/x.sock"))),
            ("./x.sock", Some(unix("./x.sock"))),
            (
                "127.0.0.1:99",
                Some(AdminBind::Tcp(([127, 0, 0, 1], 99).into())),
            ),
            ("10.0.0.1:99", None),
            ("x", None),
        ] {
            assert_eq!(parse_address(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn answers() {
        let check = |raw: &str, expected: Option<(u16, &str)>| {
            let answer = parse_answer(raw.as_bytes());
            let answer = answer.map(|a| (a.status, String::from_utf8(a.body).expect("UTF-8")));
            assert_eq!(answer, expected.map(|(s, b)| (s, b.to_owned())));
        };
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Some((200, "ok")),
        );
        check("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", None);
        check("HTTP/1.1 200 OK\r\n\r\nok", None);
        check("SSH-2.0-OpenSSH\r\n", None);
    }
}
