//! Who the client is: the peer, or behind trusted proxies the first address from the right of what they wrote that is
//! not one of theirs (X-Forwarded-For, and `Forwarded` of RFC 7239).
//!
//! Everything is read from the right, for the right end is what the nearest proxy wrote; what lies left of an address that
//! is not trusted, or of something that is no address, is never looked at, so that nothing a client puts there (an open
//! quote, say) can change how the rest is read.

use super::h1::framing::trim;
use crate::config::{Forwarded, HttpOptions};
use crate::connection::canonical_ip;
use crate::head::{Fields, is_token};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kinds of fields in which a trusted proxy is believed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kinds {
    /// The `X-Forwarded-` fields.
    pub x: bool,
    /// `Forwarded`.
    pub rfc7239: bool,
}

impl Kinds {
    pub fn believed(forwarded: Forwarded) -> Self {
        Self {
            x: forwarded != Forwarded::Rfc7239,
            rfc7239: matches!(forwarded, Forwarded::Rfc7239 | Forwarded::Both),
        }
    }
}

/// An address in a list field.
pub(super) struct Found {
    pub ip: IpAddr,
    /// Counted from the right, from 0.
    place: usize,
}

pub(super) fn by_x(options: &HttpOptions, fields: &Fields) -> Option<Found> {
    walk(options, fields, b"x-forwarded-for", |part| {
        x_address(std::str::from_utf8(part).ok()?)
    })
}

pub(super) fn by_rfc7239(options: &HttpOptions, fields: &Fields) -> Option<Found> {
    walk(options, fields, b"forwarded", for_address)
}

/// With both kinds there, they have to agree: which of the two the proxies left alone cannot be known.
pub(super) fn by_both(options: &HttpOptions, fields: &Fields) -> Option<Found> {
    let (x, rfc7239) = (by_x(options, fields), by_rfc7239(options, fields));
    match (
        fields.contains(b"x-forwarded-for"),
        fields.contains(b"forwarded"),
    ) {
        (_, false) => x,
        (false, true) => rfc7239,
        (true, true) => x.filter(|x| rfc7239.is_some_and(|rfc7239| rfc7239.ip == x.ip)),
    }
}

/// Where the client stands in X-Forwarded-For, counted from the right: where what the same proxy wrote stands in others.
pub(super) fn place_by_x(options: &HttpOptions, fields: &Fields) -> usize {
    by_x(options, fields).map_or(0, |found| found.place)
}

/// The same for `Forwarded`.
pub(super) fn place_by_rfc7239(options: &HttpOptions, fields: &Fields) -> usize {
    by_rfc7239(options, fields).map_or(0, |found| found.place)
}

/// Goes through the elements of a list field from the right until one is no trusted proxy's address; none when not even
/// the last one can be read.
fn walk(
    options: &HttpOptions,
    fields: &Fields,
    name: &[u8],
    address: impl Fn(&[u8]) -> Option<IpAddr>,
) -> Option<Found> {
    let mut found = None;
    for (place, element) in elements(fields, name).enumerate() {
        // Whoever wrote what is no address cannot be believed about what lies further left.
        let Some(ip) = address(element) else {
            return found;
        };
        found = Some(Found { ip, place });
        if !options.trusts(ip) {
            return found;
        }
    }
    found
}

/// The elements of a list field, from the right. Empty ones mean nothing (RFC 9110 §5.6.1.2) and are left out.
pub(super) fn elements<'a>(
    fields: &'a Fields,
    name: &'a [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let mut lines: SmallVec<[&[u8]; 4]> = fields.get_all(name).collect();
    let mut rest = None;
    std::iter::from_fn(move || {
        loop {
            let (before, element) = split_last(rest.take().or_else(|| lines.pop())?, b',');
            rest = before;
            let element = trim(element);
            if !element.is_empty() {
                return Some(element);
            }
        }
    })
}

/// The part behind the last `separator` outside of quoted strings, and what lies before it if there is one.
fn split_last(text: &[u8], separator: u8) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    for (at, &byte) in text.iter().enumerate().rev() {
        if byte == b'"' {
            // Met from behind: the quote that ends a string, those escaped inside, the one that begins it.
            let escapes = text[..at].iter().rev().take_while(|&&b| b == b'\\').count();
            quoted = !quoted || escapes % 2 == 1;
        } else if byte == separator && !quoted {
            return (Some(&text[..at]), &text[at + 1..]);
        }
    }
    (None, text)
}

/// An address as found in X-Forwarded-For: bare, bracketed, or with a port.
fn x_address(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(canonical_ip(ip))
}

/// The address of the one `for` of a `forwarded-element` (RFC 7239 §4); none when it is `unknown`, obfuscated, missing or
/// there twice, or when the element is not well-formed.
fn for_address(element: &[u8]) -> Option<IpAddr> {
    let node = parameter(element, b"for").ok()??;
    node_address(std::str::from_utf8(&node).ok()?)
}

/// An element of `Forwarded` that is not well-formed.
pub(super) struct Malformed;

/// The value of one parameter of a `forwarded-element`, which may not be there twice.
pub(super) fn parameter<'a>(
    element: &'a [u8],
    wanted: &[u8],
) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
    let mut found = None;
    let mut rest = Some(element);
    while let Some(pairs) = rest {
        let (before, pair) = split_last(pairs, b';');
        rest = before;
        let pair = trim(pair);
        if pair.is_empty() {
            continue;
        }
        let equals = memchr::memchr(b'=', pair).ok_or(Malformed)?;
        let value = unquoted(&pair[equals + 1..]).ok_or(Malformed)?;
        let name = &pair[..equals];
        if !is_token(name) {
            return Err(Malformed);
        }
        if name.eq_ignore_ascii_case(wanted) && found.replace(value).is_some() {
            return Err(Malformed);
        }
    }
    Ok(found)
}

/// The text of a token or a quoted string. `:`, `[` and `]` are taken outside of quotes too, where they do not belong but
/// are often written and mean one thing.
fn unquoted(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(inner) = value.strip_prefix(b"\"") else {
        let plain = |&b: &u8| crate::head::is_tchar(b) || matches!(b, b':' | b'[' | b']');
        return (!value.is_empty() && value.iter().all(plain)).then_some(value.into());
    };
    let inner = inner.strip_suffix(b"\"")?;
    if !inner.iter().any(|b| matches!(b, b'"' | b'\\')) {
        return Some(inner.into());
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        text.push(match byte {
            b'\\' => *bytes.next()?,
            b'"' => return None,
            byte => byte,
        });
    }
    Some(text.into())
}

/// A node (RFC 7239 §6) that is an address: IPv4, or IPv6 in brackets, with a port or without.
fn node_address(node: &str) -> Option<IpAddr> {
    let (ip, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            (IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let end = node.find(':').unwrap_or(node.len());
            let ip = node[..end].parse::<Ipv4Addr>().ok()?;
            (IpAddr::V4(ip), &node[end..])
        }
    };
    (port.is_empty() || is_port(port.strip_prefix(':')?)).then(|| canonical_ip(ip))
}

/// Digits, or an obfuscated port.
fn is_port(port: &str) -> bool {
    let number = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let obfuscated = port.strip_prefix('_').is_some_and(|name| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !name.is_empty() && name.bytes().all(plain)
    });
    number || obfuscated
}
