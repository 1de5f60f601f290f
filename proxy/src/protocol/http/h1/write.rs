//! Heads onto the wire: one pass over the fields into the output buffer.

use crate::head::{Fields, RequestHead};

pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The body framing the host chose for a message it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body, and no framing field either.
    None,
    Length(u64),
    Chunked,
    /// Responses to HTTP/1.0 clients of unknown length.
    UntilClose,
}

fn framing(out: &mut Vec<u8>, framing: BodyFraming) {
    match framing {
        BodyFraming::None | BodyFraming::UntilClose => {}
        BodyFraming::Length(n) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        BodyFraming::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn fields(out: &mut Vec<u8>, fields: &Fields) {
    for (name, value) in fields.iter() {
        field(out, name, value);
    }
}

/// A request for an upstream: always HTTP/1.1, one Host, one framing field. `upgrade` lists the protocols asked for;
/// `trailers` says that the client can take trailers.
pub fn request(
    out: &mut Vec<u8>,
    head: &RequestHead,
    host: &[u8],
    body: BodyFraming,
    upgrade: Option<&[u8]>,
    trailers: bool,
) {
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(out, b"host", host);
    fields(out, &head.fields);
    framing(out, body);
    if let Some(protocol) = upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
        field(out, b"upgrade", protocol);
    } else if trailers {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What the `Connection` line of a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: HTTP/1.1 keeps.
    Implied,
    /// An HTTP/1.0 client asked to keep.
    KeepAlive,
    Close,
    Upgrade,
}

/// A response for a client, always in HTTP/1.1 (RFC 9112 §2.3 lets a server answer 1.0 so).
pub fn response(
    out: &mut Vec<u8>,
    status: u16,
    lines: &Fields,
    body: BodyFraming,
    persistence: Persistence,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    fields(out, lines);
    framing(out, body);
    out.extend_from_slice(match persistence {
        Persistence::Implied => b"".as_slice(),
        Persistence::KeepAlive => b"connection: keep-alive\r\n",
        Persistence::Close => b"connection: close\r\n",
        Persistence::Upgrade => b"connection: upgrade\r\n",
    });
    out.extend_from_slice(b"\r\n");
}

/// The registered phrase, or nothing: phrases carry no meaning (RFC 9112 §4).
pub fn reason_phrase(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or("")
}
