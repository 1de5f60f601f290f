//! Heads off the wire: from a buffer that holds a whole head to checked values, without copying it.

use super::framing::{self, Framing, trim};
use crate::error::Reason;
use crate::head::target::{bad_byte, is_authority, is_target};
use crate::head::{
    Fields, HeadLimits, RequestHead, ResponseHead, Version, is_field_value, is_token,
};
use std::mem::MaybeUninit;

/// More lines than this are refused whatever the configuration says; the table lies on the stack.
pub const FIELDS_HARD_MAX: usize = 512;

/// A request as it came, before hop-by-hop fields are removed.
#[derive(Debug)]
pub struct ParsedRequest {
    pub head: RequestHead,
    pub framing: Framing,
    /// What the client's version and `Connection` say about the connection after this exchange.
    pub keep_alive: bool,
    pub expect_continue: bool,
    /// The scheme of an absolute-form target, if that is how it came.
    pub absolute: bool,
}

/// A response as it came.
#[derive(Debug)]
pub struct ParsedResponse {
    pub head: ResponseHead,
    pub framing: Framing,
    /// May the connection serve another exchange?
    pub keep_alive: bool,
}

/// Finds the end of a head incrementally, so that a head that dribbles in is scanned once.
#[derive(Debug, Default, Clone, Copy)]
pub struct HeadEnd {
    scanned: usize,
}

impl HeadEnd {
    /// The length of the head that starts at the front of `bytes`, with its empty line, when it is complete.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = self.scanned;
        while let Some(found) = memchr::memchr(b'\n', &bytes[from..]) {
            let lf = from + found;
            match bytes[lf + 1..] {
                [b'\n', ..] => return Some(lf + 2),
                [b'\r', b'\n', ..] => return Some(lf + 3),
                // The line after this one is not there yet: look at this line feed again.
                [] | [b'\r'] => {
                    self.scanned = lf;
                    return None;
                }
                _ => from = lf + 1,
            }
        }
        self.scanned = bytes.len();
        None
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    /// The byte of the target that was at fault, and where it stands in it, from 0.
    pub byte: Option<(u8, usize)>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, byte: None }
    }
}

/// Parses the request head that fills `arena` exactly. On failure the arena is gone with the connection.
pub fn request(arena: Vec<u8>, limits: &HeadLimits) -> Result<ParsedRequest, Reason> {
    request_or_refusal(arena, limits).map_err(|refusal| refusal.reason)
}

/// The same with the place of what was wrong.
pub fn request_or_refusal(arena: Vec<u8>, limits: &HeadLimits) -> Result<ParsedRequest, Refusal> {
    let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_HARD_MAX];
    let count = limits.fields.min(FIELDS_HARD_MAX);
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed
        .parse_with_uninit_headers(&arena, &mut lines[..count])
        .map_err(|e| Refusal {
            reason: request_error(&arena, e, limits),
            byte: line_target(&arena).and_then(bad_byte),
        })?;
    if status.is_partial() {
        return Err(Reason::BadRequest.into());
    }
    let version = match parsed.version {
        Some(1) => Version::Http11,
        _ => Version::Http10,
    };
    let range = |part: &[u8]| range_in(&arena, part);
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(Reason::BadRequest.into());
    };
    let (method, target) = (range(method.as_bytes()), range(target.as_bytes()));
    if target.len() > limits.target {
        return Err(Reason::TargetTooLong.into());
    }
    if arena.len() - target.end > limits.bytes + b" HTTP/1.1\r\n\r\n".len() {
        return Err(Reason::HeadersTooLarge.into());
    }
    let ranges: smallvec::SmallVec<[_; 32]> = parsed
        .headers
        .iter()
        .map(|h| (range(h.name.as_bytes()), range(h.value)))
        .collect();
    let mut fields = into_fields(arena, &ranges)?;

    let framing = framing::of_request(&fields, version == Version::Http10)?;
    let host = host_field(&fields, version)?;
    let keep_alive = keep_alive(&fields, version);
    let expect_continue = expect(&fields, version)?;
    let arena = fields.arena();
    let sent = target.clone();
    let (authority, target, absolute) = split_target(arena, &arena[method.clone()], target, host)
        .map_err(|reason| Refusal {
        reason,
        byte: bad_byte(&arena[sent]),
    })?;
    let target = rooted(&mut fields, &method, target);
    fields.remove(b"host");
    let head = RequestHead::from_ranges(version, method, authority, target, fields);
    Ok(ParsedRequest {
        head,
        framing,
        keep_alive,
        expect_continue,
        absolute,
    })
}

/// Parses the response head that fills `arena` exactly.
pub fn response(
    arena: Vec<u8>,
    limits: &HeadLimits,
    head_request: bool,
) -> Result<ParsedResponse, Reason> {
    let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_HARD_MAX];
    let count = limits.fields.min(FIELDS_HARD_MAX);
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // A proxy takes it out rather than refuse the response (RFC 9112 §5.1).
    config.allow_spaces_after_header_name_in_responses(true);
    match config.parse_response_with_uninit_headers(&mut parsed, &arena, &mut lines[..count]) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Reason::ResponseHeadersTooLarge),
        _ => return Err(Reason::UpstreamMalformed),
    }
    let version = if parsed.version == Some(1) {
        Version::Http11
    } else {
        Version::Http10
    };
    let status = parsed
        .code
        .filter(|c| (100..=999).contains(c))
        .ok_or(Reason::UpstreamMalformed)?;
    let ranges: smallvec::SmallVec<[_; 32]> = parsed
        .headers
        .iter()
        .map(|h| {
            (
                range_in(&arena, h.name.as_bytes()),
                range_in(&arena, h.value),
            )
        })
        .collect();
    let fields = into_fields(arena, &ranges).map_err(|_| Reason::UpstreamMalformed)?;
    let framing = framing::of_response(&fields, status, head_request, version == Version::Http10)?;
    let keep_alive = keep_alive(&fields, version) && framing != Framing::UntilClose;
    Ok(ParsedResponse {
        head: ResponseHead {
            version,
            status,
            fields,
        },
        framing,
        keep_alive,
    })
}

fn request_error(arena: &[u8], error: httparse::Error, limits: &HeadLimits) -> Reason {
    match error {
        httparse::Error::TooManyHeaders => Reason::HeadersTooLarge,
        httparse::Error::Version if is_other_version(arena) => Reason::VersionNotSupported,
        _ => {
            // A start line that is over the limit by itself is the target's fault.
            let line = memchr::memchr(b'\n', arena).unwrap_or(arena.len());
            if line > limits.target + 64 {
                Reason::TargetTooLong
            } else {
                Reason::BadRequest
            }
        }
    }
}

/// A well-formed `HTTP/d.d` that is not ours, as opposed to garbage where the version should be.
fn is_other_version(arena: &[u8]) -> bool {
    let line = &arena[..memchr::memchr(b'\n', arena).unwrap_or(arena.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.split(|&b| b == b' ');
    let (Some(_), Some(_), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    matches!(
        version,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']
    )
}

/// Where `part`, a slice of `arena`, lies in it.
fn range_in(arena: &[u8], part: &[u8]) -> std::ops::Range<usize> {
    // Both point into the same buffer: httparse only ever returns slices of its input (or empty ones).
    let start = (part.as_ptr() as usize).wrapping_sub(arena.as_ptr() as usize);
    if start > arena.len() || part.is_empty() {
        return 0..0;
    }
    start..start + part.len()
}

fn into_fields(
    mut arena: Vec<u8>,
    ranges: &[(std::ops::Range<usize>, std::ops::Range<usize>)],
) -> Result<Fields, Reason> {
    for (name, value) in ranges {
        // httparse refuses control bytes already; checked again here because everything after this relies on it.
        if name.is_empty() || !is_field_value(&arena[value.clone()]) {
            return Err(Reason::BadRequest);
        }
        if name.len() > u16::MAX as usize {
            return Err(Reason::HeadersTooLarge);
        }
        arena[name.clone()].make_ascii_lowercase();
    }
    let mut fields = Fields::from_arena(arena);
    for (name, value) in ranges {
        let trimmed = trim(&fields.arena()[value.clone()]).len();
        let start = value.start + leading_blanks(&fields.arena()[value.clone()]);
        fields.push_range(name.clone(), start..start + trimmed);
    }
    Ok(fields)
}

fn leading_blanks(value: &[u8]) -> usize {
    value
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count()
}

/// The one Host of a request (RFC 9112 §3.2), as a range of the arena; empty when HTTP/1.0 sent none.
fn host_field(fields: &Fields, version: Version) -> Result<std::ops::Range<usize>, Reason> {
    let mut lines = fields.get_all(b"host");
    let host = match (lines.next(), lines.next()) {
        (Some(host), None) => host,
        (None, None) if version == Version::Http10 => return Ok(0..0),
        _ => return Err(Reason::BadRequest),
    };
    if host.is_empty() || !is_authority(host) {
        return Err(Reason::BadRequest);
    }
    Ok(range_in(fields.arena(), host))
}

fn keep_alive(fields: &Fields, version: Version) -> bool {
    let mut close = false;
    let mut keep = false;
    for value in fields.get_all(b"connection") {
        for option in value.split(|&b| b == b',').map(trim) {
            close |= option.eq_ignore_ascii_case(b"close");
            keep |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    !close && (version == Version::Http11 || keep)
}

fn expect(fields: &Fields, version: Version) -> Result<bool, Reason> {
    let mut continues = false;
    for value in fields.get_all(b"expect") {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reason::ExpectationFailed);
        }
        continues = true;
    }
    // An expectation of an HTTP/1.0 client is ignored (RFC 9110 §10.1.1).
    Ok(continues && version == Version::Http11)
}

type Ranges = (std::ops::Range<usize>, std::ops::Range<usize>, bool);

/// Authority and origin-form target of a request target in any of its forms (RFC 9112 §3.2).
fn split_target(
    arena: &[u8],
    method: &[u8],
    target: std::ops::Range<usize>,
    host: std::ops::Range<usize>,
) -> Result<Ranges, Reason> {
    let text = &arena[target.clone()];
    if method == b"CONNECT" {
        return Err(Reason::MethodNotAllowed);
    }
    if !is_target(text) {
        return Err(Reason::BadRequest);
    }
    if text.starts_with(b"/") {
        return Ok((host, target, false));
    }
    if text == b"*" {
        return if method == b"OPTIONS" {
            Ok((host, target, false))
        } else {
            Err(Reason::BadRequest)
        };
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| text.len() > s.len() && text[..s.len()].eq_ignore_ascii_case(s))
        .ok_or(Reason::BadRequest)?;
    let after = &text[scheme.len()..];
    let end = after
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(after.len());
    if !is_authority(&after[..end]) || end == 0 {
        return Err(Reason::BadRequest);
    }
    let authority = target.start + scheme.len()..target.start + scheme.len() + end;
    Ok((authority.clone(), authority.end..target.end, true))
}

/// The origin form of a target whose path may be empty, as in `http://host` and `http://host?query`: the path is `/` then,
/// or for OPTIONS without a query `*` (RFC 9112 §3.2.1, §3.2.4).
fn rooted(
    fields: &mut Fields,
    method: &std::ops::Range<usize>,
    target: std::ops::Range<usize>,
) -> std::ops::Range<usize> {
    let arena = fields.arena_mut();
    let path: &[u8] = match arena[target.clone()] {
        [] if &arena[method.clone()] == b"OPTIONS" => b"*",
        [] | [b'?', ..] => b"/",
        _ => return target,
    };
    let at = arena.len();
    arena.extend_from_slice(path);
    arena.extend_from_within(target);
    at..arena.len()
}

/// The target of a request line that could not be parsed, if there is something like one.
fn line_target(arena: &[u8]) -> Option<&[u8]> {
    let line = &arena[..memchr::memchr(b'\n', arena)?];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (from, to) = (
        memchr::memchr(b' ', line)? + 1,
        memchr::memrchr(b' ', line)?,
    );
    line.get(from..to)
}

/// True when `bytes` cannot be the start of an HTTP/1 request, so that waiting for the rest is pointless.
pub fn cannot_be_request(bytes: &[u8]) -> bool {
    let method_end = bytes.iter().position(|&b| b == b' ').unwrap_or(bytes.len());
    method_end > 64 || !bytes.is_empty() && !is_token(&bytes[..method_end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 65536,
        fields: 128,
        target: 256,
    };

    fn parse(text: &str) -> Result<ParsedRequest, Reason> {
        request(text.as_bytes().to_vec(), &LIMITS)
    }

    #[test]
    fn accepts_and_normalises() {
        let r = parse("GET /a?b HTTP/1.1\r\nHost: x:80\r\nX-A:  1 \r\nX-a: 2\r\n\r\n").unwrap();
        assert_eq!(r.head.method(), b"GET");
        assert_eq!(r.head.target(), b"/a?b");
        assert_eq!(r.head.path(), b"/a");
        assert_eq!(r.head.query(), Some(&b"b"[..]));
        assert_eq!(r.head.authority(), b"x:80");
        assert_eq!(
            r.head.fields.get_all(b"x-a").collect::<Vec<_>>(),
            [b"1", b"2"]
        );
        assert!(r.keep_alive && !r.expect_continue && r.framing == Framing::None);
        let r = parse("GET http://h:8/p HTTP/1.1\r\nHost: other\r\n\r\n").unwrap();
        assert_eq!(
            (r.head.authority(), r.head.target()),
            (&b"h:8"[..], &b"/p"[..])
        );
        let r = parse("GET http://h HTTP/1.1\r\nHost: other\r\n\r\n").unwrap();
        assert_eq!(
            (r.head.authority(), r.head.target()),
            (&b"h"[..], &b"/"[..])
        );
        for (target, expected) in [
            ("http://h?q", "/?q"),
            ("http://h?/a?b", "/?/a?b"),
            ("http://h?", "/?"),
            ("HTTPS://h/?", "/?"),
            ("http://h:8?q=http://x/", "/?q=http://x/"),
        ] {
            let r = parse(&format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n")).unwrap();
            assert_eq!(r.head.target(), expected.as_bytes(), "{target}");
            assert!(r.head.authority().starts_with(b"h"), "{target}");
        }
        for (target, expected) in [
            ("*", "*"),
            ("http://h", "*"),
            ("http://h/", "/"),
            ("http://h?", "/?"),
        ] {
            let r = parse(&format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap();
            assert_eq!(r.head.target(), expected.as_bytes(), "{target}");
        }
        assert!(!parse("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert!(
            parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
                .unwrap()
                .keep_alive
        );
        assert!(
            !parse("GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, close\r\n\r\n")
                .unwrap()
                .keep_alive
        );
    }

    #[test]
    fn refuses() {
        let cases: &[(&str, Reason)] = &[
            ("GET / HTTP/1.1\r\n\r\n", Reason::BadRequest),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
                Reason::BadRequest,
            ),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Reason::BadRequest),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Reason::BadRequest),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Reason::BadRequest),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Reason::BadRequest),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Reason::BadRequest),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
                Reason::BadRequest,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
                Reason::BadRequest,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
                Reason::BadRequest,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\n: v\r\n\r\n",
                Reason::BadRequest,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
                Reason::BadRequest,
            ),
            ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadRequest),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadRequest),
            (
                "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
                Reason::BadRequest,
            ),
            ("GET foo HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadRequest),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadRequest),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadRequest),
            (
                "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
                Reason::MethodNotAllowed,
            ),
            (
                "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
                Reason::VersionNotSupported,
            ),
            ("GET / HTCPCP/1.0\r\nHost: a\r\n\r\n", Reason::BadRequest),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n",
                Reason::ExpectationFailed,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
                Reason::BadRequest,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).err(), Some(*expected), "{text:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(300));
        assert_eq!(parse(&long).err(), Some(Reason::TargetTooLong));
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "x: 1\r\n".repeat(200)
        );
        assert_eq!(parse(&many).err(), Some(Reason::HeadersTooLarge));
    }

    #[test]
    fn finds_the_end_however_it_arrives() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let mut end = HeadEnd::default();
        for n in 0..text.len() {
            let found = end.find(&text[..n]);
            assert_eq!(found, (n >= 27).then_some(27), "after {n} bytes");
            if found.is_some() {
                break;
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = request(bytes.clone(), &LIMITS);
            let _ = response(bytes.clone(), &LIMITS, false);
            let _ = HeadEnd::default().find(&bytes);
        }

        #[test]
        fn never_panics_on_heads(target in "[ -~]{0,40}", name in "[ -~]{0,10}", value in "\\PC{0,20}") {
            let _ = parse(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n"));
        }
    }
}
