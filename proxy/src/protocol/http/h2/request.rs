//! An HTTP/2 request checked for what the h2 crate leaves to its users, in the form of every room.

use crate::config::HttpOptions;
use crate::error::Reason;
use crate::head::target::{is_authority, is_origin_form};
use crate::head::{Fields, HeadLimits, RequestHead, Version};
use crate::protocol::http::exchange::Incoming;
use crate::protocol::http::h1::framing::{self, Framing};
use crate::protocol::http::websocket;
use http::request::Parts;
use hyper::header::{COOKIE, HOST, HeaderValue};
use hyper::{HeaderMap, Method};

/// What stands between crumbs of a cookie in one line.
const CRUMB_JOINT: &[u8] = b"; ";
/// What a cookie's line has beside its value.
const COOKIE_LINE_BYTES: usize = "cookie: \r\n".len();
/// The protocol that an extended CONNECT may ask for.
const WEBSOCKET: &str = "websocket";

/// `ended`: the request has no body.
pub(super) fn accept(parts: &Parts, ended: bool, limits: &HeadLimits) -> Result<Incoming, Reason> {
    let is_websocket = is_websocket(parts);
    if parts.method == Method::CONNECT && !is_websocket {
        return Err(Reason::MethodNotAllowed);
    }
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    if target.len() > limits.target {
        return Err(Reason::TargetTooLong);
    }
    // Crumbs of a cookie count as the one line that becomes of them (RFC 9113 §8.2.3).
    let joined = parts
        .headers
        .get_all(COOKIE)
        .iter()
        .count()
        .saturating_sub(1);
    let bytes = bytes_of(&parts.headers) - joined * (COOKIE_LINE_BYTES - CRUMB_JOINT.len());
    if parts.headers.len() - joined > limits.fields || bytes > limits.bytes {
        return Err(Reason::HeadersTooLarge);
    }
    let authority = authority(parts)?;
    let target_ok =
        target == "*" && parts.method == Method::OPTIONS || is_origin_form(target.as_bytes());
    if !target_ok {
        return Err(Reason::BadRequest);
    }
    let fields = fields(&parts.headers)?;
    if is_websocket {
        return websocket(authority, target, fields);
    }
    let framing = match framing::of_request(&fields, false)? {
        // Announced trailers need chunks on their way to an HTTP/1.1 upstream, whatever the length is.
        Framing::Length(n) if ended || !fields.contains(b"trailer") => Framing::Length(n),
        _ if ended => Framing::None,
        _ => Framing::Chunked,
    };
    let expect_continue = match fields.get(b"expect") {
        None => false,
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(Reason::ExpectationFailed),
    };
    let head = RequestHead::new(
        Version::Http2,
        parts.method.as_str().as_bytes(),
        authority,
        target.as_bytes(),
        fields,
    );
    Ok(Incoming {
        head,
        framing,
        expect_continue,
    })
}

/// Whether clients may open a WebSocket on a stream (RFC 8441).
pub(super) fn has_websocket(options: &HttpOptions) -> bool {
    options.upgrade.iter().any(|protocol| protocol == WEBSOCKET)
}

fn is_websocket(parts: &Parts) -> bool {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    parts.method == Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case(WEBSOCKET))
}

/// An extended CONNECT as the upgrade that it stands for: what the stream carries is no body.
fn websocket(authority: &[u8], target: &str, mut fields: Fields) -> Result<Incoming, Reason> {
    if fields.contains(b"content-length") || fields.contains(b"expect") {
        return Err(Reason::BadRequest);
    }
    fields.set(b"connection", b"upgrade");
    fields.set(b"upgrade", WEBSOCKET.as_bytes());
    fields.set(b"sec-websocket-key", websocket::key().as_bytes());
    let head = RequestHead::new(Version::Http2, b"GET", authority, target.as_bytes(), fields);
    Ok(Incoming {
        head,
        framing: Framing::None,
        expect_continue: false,
    })
}

/// Trailers within the limits of a head; none when they are over them.
pub(super) fn trailers(map: &HeaderMap, limits: &HeadLimits) -> Option<Fields> {
    if map.len() > limits.fields || bytes_of(map) > limits.bytes {
        return None;
    }
    let mut trailers = Fields::default();
    for (name, value) in map {
        trailers.append(name.as_str().as_bytes(), value.as_bytes());
    }
    Some(trailers)
}

/// The size of the fields as lines of HTTP/1, by which the limits are stated.
fn bytes_of(map: &HeaderMap) -> usize {
    map.iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

/// `:authority`, else Host; both must agree (RFC 9113 §8.3.1).
fn authority(parts: &Parts) -> Result<&[u8], Reason> {
    let mut hosts = parts
        .headers
        .get_all(HOST)
        .iter()
        .map(HeaderValue::as_bytes);
    let (host, further) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    let chosen = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => None,
        (Some(authority), _) => Some(authority),
        (None, host) => host,
    };
    chosen
        .filter(|authority| further.is_none() && is_authority(authority))
        .ok_or(Reason::BadRequest)
}

/// White space at either end (RFC 9113 §8.2.1), which HTTP/1 would take for no part of the value.
fn is_padded(value: &HeaderValue) -> bool {
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    ends.into_iter()
        .flatten()
        .any(|b| matches!(b, b' ' | b'\t'))
}

/// All fields but Host, with cookies in one line.
fn fields(map: &HeaderMap) -> Result<Fields, Reason> {
    let mut fields = Fields::from_arena(Vec::with_capacity(512));
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in map {
        if name == HOST {
            continue;
        }
        let value_ok = crate::head::is_field_value(value.as_bytes()) && !is_padded(value);
        if !value_ok {
            return Err(Reason::BadRequest);
        }
        // A cookie may come in crumbs, one to a line (RFC 9113 §8.2.3); HTTP/1.1 wants them in one.
        if name == COOKIE {
            if !cookies.is_empty() {
                cookies.extend_from_slice(CRUMB_JOINT);
            }
            cookies.extend_from_slice(value.as_bytes());
            continue;
        }
        fields.append(name.as_str().as_bytes(), value.as_bytes());
    }
    if !cookies.is_empty() {
        fields.append(b"cookie", &cookies);
    }
    Ok(fields)
}
