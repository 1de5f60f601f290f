//! The origin that the client asked for (RFC 6454): scheme, host and port. It is that of the connection and of the
//! request's `Host`, unless a trusted proxy says otherwise (X-Forwarded-Proto, -Host and -Port, and `proto` and `host` of
//! `Forwarded`).
//!
//! As with the client's address, what is believed is what the proxy wrote whose client that is: the value as far from the
//! right end of its list as the address is in its own.

use super::client_address::{self, Kinds, elements, parameter};
use crate::config::HttpOptions;
use crate::connection::Connection;
use crate::head::target::{is_authority, split_port};
use crate::head::{Fields, RequestHead};
use std::borrow::Cow;

const PROTO: &[u8] = b"x-forwarded-proto";
const HOST: &[u8] = b"x-forwarded-host";
const PORT: &[u8] = b"x-forwarded-port";

/// Scheme and port; the host is in the request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// `https` rather than `http`.
    pub secure: bool,
    pub port: u16,
}

impl Origin {
    /// That of a request about which no trusted proxy says anything.
    pub fn of_connection(connection: &Connection) -> Self {
        Self {
            secure: connection.tls.is_some(),
            port: connection.local.port(),
        }
    }

    /// Finds what trusted proxies say of a request whose peer is one of them, and makes it the request's: its authority,
    /// and those of the fields that are believed, so that everybody who reads them reads the same.
    pub fn claimed(connection: &Connection, options: &HttpOptions, head: &mut RequestHead) -> Self {
        let kinds = Kinds::believed(options.forwarded);
        let own = Self::of_connection(connection);
        let fields = &head.fields;
        let x = kinds.x.then(|| Claims::by_x(options, fields));
        let rfc7239 = kinds.rfc7239.then(|| Claims::by_rfc7239(options, fields));
        let (x, rfc7239) = (x.unwrap_or_default(), rfc7239.unwrap_or_default());
        let said_port = x.port.flatten();

        let scheme = agreed(x.secure, rfc7239.secure, |a, b| a == b);
        let secure = scheme.unwrap_or(own.secure);
        let host = agreed(x.host, rfc7239.host, |a, b| {
            same_host(a, b, said_port, secure)
        });
        let host = host.map(Cow::into_owned);
        let asked = host.as_deref().unwrap_or(head.authority());
        let port = match (port_of(asked), said_port) {
            // The port in a host that was claimed is the client's own word.
            (Some(port), _) if host.is_some() => port,
            (_, Some(port)) => port,
            (Some(port), None) if scheme.is_some() => port,
            (_, None) if scheme.is_some() || host.is_some() => default_port(secure),
            (_, None) => own.port,
        };
        let authority = match (port_of(asked), said_port) {
            (Some(_), _) if host.is_some() => Some(asked.to_vec()),
            (_, Some(_)) if !asked.is_empty() => Some(with_port(split_port(asked).0, port, secure)),
            _ => host.clone(),
        };
        if let Some(authority) = authority {
            head.set_asked_authority(&authority);
        }
        if kinds.x {
            let mut digits = itoa::Buffer::new();
            let said_port = said_port.map(|_| digits.format(port).as_bytes());
            let scheme = scheme.map(|secure| scheme_name(secure).as_bytes());
            settle(&mut head.fields, PROTO, scheme);
            settle(&mut head.fields, HOST, host.as_deref());
            settle(&mut head.fields, PORT, said_port);
        }
        Self { secure, port }
    }

    pub fn scheme(self) -> &'static str {
        scheme_name(self.secure)
    }
}

/// What fields of one kind say: `None` where they are silent, `Some(None)` where what they say cannot be understood.
#[derive(Default)]
struct Claims<'a> {
    secure: Option<Option<bool>>,
    host: Option<Option<Cow<'a, [u8]>>>,
    port: Option<Option<u16>>,
}

impl<'a> Claims<'a> {
    fn by_x(options: &HttpOptions, fields: &'a Fields) -> Self {
        let value = |name| value_of(fields, name, || client_address::place_by_x(options, fields));
        Self {
            secure: value(PROTO).map(is_secure),
            host: value(HOST).map(|host| is_host(host).then_some(host.into())),
            port: value(PORT).map(port_number),
        }
    }

    fn by_rfc7239(options: &HttpOptions, fields: &'a Fields) -> Self {
        let place = || client_address::place_by_rfc7239(options, fields);
        let Some(element) = value_of(fields, b"forwarded", place) else {
            return Self::default();
        };
        let value = |name| parameter(element, name).ok();
        // An element that is not well-formed says nothing that could be understood.
        let (Some(proto), Some(host)) = (value(b"proto"), value(b"host")) else {
            return Self {
                secure: Some(None),
                host: Some(None),
                port: None,
            };
        };
        Self {
            secure: proto.map(|proto| is_secure(&proto)),
            host: host.map(|host| is_host(&host).then_some(host)),
            port: None,
        }
    }
}

/// The value of a list field at `place` from the right, or the leftmost when there are fewer.
fn value_of<'a>(
    fields: &'a Fields,
    name: &'a [u8],
    place: impl FnOnce() -> usize,
) -> Option<&'a [u8]> {
    let mut values = elements(fields, name);
    let last = values.next()?;
    // Most often there is one, and nobody's place need be known.
    match values.next() {
        None => Some(last),
        Some(before) => match place() {
            0 => Some(last),
            place => Some(values.take(place - 1).last().unwrap_or(before)),
        },
    }
}

/// What two kinds of fields say when both may be believed: they have to agree where neither is silent.
fn agreed<T>(
    a: Option<Option<T>>,
    b: Option<Option<T>>,
    same: impl FnOnce(&T, &T) -> bool,
) -> Option<T> {
    match (a, b) {
        (Some(Some(a)), Some(Some(b))) => same(&a, &b).then_some(a),
        (Some(_), Some(_)) => None,
        (said, None) | (None, said) => said.flatten(),
    }
}

/// Whether two authorities mean the same; `a_port` goes with `a` where that names none.
fn same_host(a: &[u8], b: &[u8], a_port: Option<u16>, secure: bool) -> bool {
    let ((a, a_digits), (b, b_digits)) = (split_port(a), split_port(b));
    let a_port = a_digits.and_then(port_number).or(a_port);
    let b_port = b_digits.and_then(port_number);
    let standard = default_port(secure);
    a.eq_ignore_ascii_case(b) && a_port.unwrap_or(standard) == b_port.unwrap_or(standard)
}

/// Leaves of a field that came one line with what was believed, or none when nothing was: the proxy then writes its own.
fn settle(fields: &mut Fields, name: &[u8], value: Option<&[u8]>) {
    let mut lines = fields.get_all(name);
    let (first, further) = (lines.next(), lines.next());
    let is_settled = first.is_none() || first == value && further.is_none();
    drop(lines);
    match value {
        _ if is_settled => {}
        Some(value) => fields.set(name, value),
        None => {
            fields.remove(name);
        }
    }
}

fn is_host(text: &[u8]) -> bool {
    // An empty port is allowed by the grammar and says nothing; 0 is no port that could be asked.
    is_authority(text)
        && split_port(text)
            .1
            .is_none_or(|digits| port_number(digits).is_some())
}

/// `ws` and `wss` are written for WebSocket requests by some proxies.
fn is_secure(scheme: &[u8]) -> Option<bool> {
    let is = |name: &[u8]| scheme.eq_ignore_ascii_case(name);
    match () {
        () if is(b"https") || is(b"wss") => Some(true),
        () if is(b"http") || is(b"ws") => Some(false),
        () => None,
    }
}

fn port_of(authority: &[u8]) -> Option<u16> {
    split_port(authority).1.and_then(port_number)
}

fn port_number(digits: &[u8]) -> Option<u16> {
    let plain = !digits.is_empty() && digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    number.parse().ok().filter(|&port| port != 0)
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

fn with_port(host: &[u8], port: u16, secure: bool) -> Vec<u8> {
    let mut authority = host.to_vec();
    if port != default_port(secure) {
        authority.push(b':');
        authority.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    authority
}

fn scheme_name(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Forwarded;
    use crate::head::Version;
    use proptest::prelude::*;

    const TRUSTED: [&str; 2] = ["9.0.0.0/8", "2.0.0.0/8"];

    fn options(forwarded: Forwarded) -> HttpOptions {
        HttpOptions {
            forwarded,
            trusted_proxies: TRUSTED.iter().map(|t| t.parse().unwrap()).collect(),
            http2: true,
            trace: false,
            upgrade: vec![],
            via: "sluicegate".into(),
        }
    }

    /// Scheme, authority and port of a request for `host` over a connection without TLS to port 8080.
    fn found(forwarded: Forwarded, host: &str, lines: &[(&str, &str)]) -> (RequestHead, String) {
        let connection = Connection::new(
            "l".into(),
            "9.9.9.9:1".parse().unwrap(),
            "10.0.0.1:8080".parse().unwrap(),
        );
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name.as_bytes(), value.as_bytes());
        }
        let mut head = RequestHead::new(Version::Http11, b"GET", host.as_bytes(), b"/", fields);
        let origin = Origin::claimed(&connection, &options(forwarded), &mut head);
        assert_eq!(head.host(), host.as_bytes());
        assert_eq!(head.asked_authority(), head.authority());
        let authority = String::from_utf8_lossy(head.authority()).into_owned();
        let told = format!("{}://{authority} {}", origin.scheme(), origin.port);
        (head, told)
    }

    #[test]
    fn x_fields_say_scheme_host_and_port() {
        const FOR: (&str, &str) = ("x-forwarded-for", "1.1.1.1, 2.2.2.2");
        let proto = |value| ("x-forwarded-proto", value);
        let host = |value| ("x-forwarded-host", value);
        let port = |value| ("x-forwarded-port", value);
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "http://h:81 8080"),
            (&[proto("https")], "https://h:81 81"),
            (&[proto("HTTPS")], "https://h:81 81"),
            (&[proto("wss")], "https://h:81 81"),
            (&[proto("http")], "http://h:81 81"),
            (&[host("a.example")], "http://a.example 80"),
            (&[host("A.example:8443")], "http://A.example:8443 8443"),
            (&[proto("https"), host("a")], "https://a 443"),
            (&[proto("https"), host("a"), port("443")], "https://a 443"),
            (
                &[proto("https"), host("a"), port("8443")],
                "https://a:8443 8443",
            ),
            // The port in the host is what the client wrote; the other is where the proxy listens.
            (
                &[proto("https"), host("a:444"), port("8443")],
                "https://a:444 444",
            ),
            (&[port("8443")], "http://h:8443 8443"),
            (&[proto("https"), port("443")], "https://h 443"),
            (
                &[proto("https"), host("[2001:db8::1]")],
                "https://[2001:db8::1] 443",
            ),
            (
                &[host("[2001:db8::1]"), port("90")],
                "http://[2001:db8::1]:90 90",
            ),
            (
                &[host("[2001:db8::1]:91"), port("90")],
                "http://[2001:db8::1]:91 91",
            ),
            // What cannot be understood says nothing.
            (&[proto("ftp")], "http://h:81 8080"),
            (&[proto("https://")], "http://h:81 8080"),
            (&[proto("")], "http://h:81 8080"),
            (&[host("a b")], "http://h:81 8080"),
            (&[host("u@a")], "http://h:81 8080"),
            (&[host("a/b")], "http://h:81 8080"),
            (&[host("a:0")], "http://h:81 8080"),
            (&[host("a:99999")], "http://h:81 8080"),
            (&[host("2001:db8::1")], "http://h:81 8080"),
            (&[port("0")], "http://h:81 8080"),
            (&[port("65536")], "http://h:81 8080"),
            (&[port("+80")], "http://h:81 8080"),
            (&[proto("https"), host("a b"), port("x")], "https://h:81 81"),
            // Of several, the one of the proxy whose client that is.
            (&[proto("https, http")], "http://h:81 81"),
            (&[proto("http"), proto("https")], "https://h:81 81"),
            (&[proto("https,http"), FOR], "https://h:81 81"),
            (&[proto("http, https, http"), FOR], "https://h:81 81"),
            (&[proto("https"), proto("http"), FOR], "https://h:81 81"),
            (&[proto("https"), FOR], "https://h:81 81"),
            (&[proto("junk, http")], "http://h:81 81"),
            (&[proto("https, junk")], "http://h:81 8080"),
            (&[proto("https, , ")], "https://h:81 81"),
            (&[host("evil, a")], "http://a 80"),
            (&[host("evil, a, internal"), FOR], "http://a 80"),
        ];
        for (lines, expected) in cases {
            for forwarded in [Forwarded::X, Forwarded::None, Forwarded::Both] {
                let (head, told) = found(forwarded, "h:81", lines);
                assert_eq!(told, *expected, "{lines:?}");
                // Whoever reads the fields reads the same.
                let line = |name: &[u8]| {
                    assert!(head.fields.get_all(name).count() <= 1, "{lines:?}");
                    head.fields.get(name).map(String::from_utf8_lossy)
                };
                let (url, port) = told.split_once(' ').unwrap();
                assert!(line(PROTO).is_none_or(|scheme| url.split(':').next() == Some(&scheme)));
                assert!(
                    line(HOST).is_none_or(|host| url.contains(&*host)),
                    "{lines:?}"
                );
                assert!(line(PORT).is_none_or(|line| line == port), "{lines:?}");
            }
            let (_, told) = found(Forwarded::Rfc7239, "h:81", lines);
            assert_eq!(told, "http://h:81 8080", "{lines:?}");
        }
        // A request without a host gets none from a port.
        assert_eq!(found(Forwarded::X, "", &[port("444")]).1, "http:// 444");
        assert_eq!(found(Forwarded::X, "", &[host("a")]).1, "http://a 80");
    }

    #[test]
    fn forwarded_says_scheme_and_host() {
        let cases = [
            ("proto=https", "https://h:81 81"),
            ("for=1.1.1.1;Proto=HTTPS", "https://h:81 81"),
            ("for=1.1.1.1;proto=\"https\";host=a", "https://a 443"),
            ("host=\"a:8443\";proto=https", "https://a:8443 8443"),
            ("host=\"[2001:db8::1]:91\"", "http://[2001:db8::1]:91 91"),
            ("host=\"[2001:db8::1]\"", "http://[2001:db8::1] 80"),
            ("for=unknown;proto=https", "https://h:81 81"),
            // The element of the proxy whose client that is.
            ("proto=https, proto=http", "http://h:81 81"),
            (
                "for=1.1.1.1;proto=https;host=a, for=2.2.2.2;proto=http;host=b",
                "https://a 443",
            ),
            (
                "for=1.1.1.1;proto=https, for=unknown;proto=http;host=b, for=2.2.2.2;host=c",
                "http://c 80",
            ),
            ("host=evil;proto=https, for=1.1.1.1", "http://h:81 8080"),
            ("for=\"1.1.1.1, for=2.2.2.2;host=a", "http://a 80"),
            // What cannot be understood says nothing.
            ("proto=ftp", "http://h:81 8080"),
            ("proto=https;proto=https", "http://h:81 8080"),
            ("proto=https;host=\"a b\"", "https://h:81 81"),
            ("proto=https;host=\"a", "http://h:81 8080"),
            ("proto", "http://h:81 8080"),
            ("https", "http://h:81 8080"),
        ];
        for (value, expected) in cases {
            for forwarded in [Forwarded::Rfc7239, Forwarded::Both] {
                let (head, told) = found(forwarded, "h:81", &[("forwarded", value)]);
                assert_eq!(told, expected, "{value}");
                assert_eq!(head.fields.get(b"forwarded"), Some(value.as_bytes()));
            }
            for forwarded in [Forwarded::X, Forwarded::None] {
                let (_, told) = found(forwarded, "h:81", &[("forwarded", value)]);
                assert_eq!(told, "http://h:81 8080", "{value}");
            }
        }
    }

    #[test]
    fn where_both_kinds_speak_they_have_to_agree() {
        let cases: &[(&str, &str, &str)] = &[
            ("x-forwarded-proto: https", "proto=https", "https://h:81 81"),
            ("x-forwarded-proto: https", "proto=http", "http://h:81 8080"),
            ("x-forwarded-proto: https", "proto=ftp", "http://h:81 8080"),
            ("x-forwarded-proto: https", "host=a", "https://a 443"),
            ("x-forwarded-host: A", "host=a;proto=https", "https://A 443"),
            (
                "x-forwarded-host: a:443",
                "host=a;proto=https",
                "https://a:443 443",
            ),
            (
                "x-forwarded-host: a",
                "host=b;proto=https",
                "https://h:81 81",
            ),
            ("x-forwarded-host: a", "host=\"a:8443\"", "http://h:81 8080"),
            ("x-forwarded-host: a:1", "host=\"a:2\"", "http://h:81 8080"),
        ];
        for (x, value, expected) in cases {
            let x = x.split_once(": ").unwrap();
            let (_, told) = found(Forwarded::Both, "h:81", &[x, ("forwarded", value)]);
            assert_eq!(told, *expected, "{x:?} {value}");
        }
        let lines = [
            ("x-forwarded-host", "a"),
            ("x-forwarded-port", "8443"),
            ("forwarded", "host=\"a:8443\""),
        ];
        assert_eq!(found(Forwarded::Both, "h", &lines).1, "http://a:8443 8443");
    }

    proptest! {
        #[test]
        fn nothing_that_is_claimed_is_more_than_an_origin(
            values in proptest::collection::vec("[ -~]{0,40}", 5)
        ) {
            let names: [&str; 5] =
                ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded", "x-forwarded-for"];
            let lines: Vec<_> = names.iter().zip(&values).map(|(n, v)| (*n, &**v)).collect();
            let (head, _) = found(Forwarded::Both, "h:81", &lines);
            prop_assert!(is_authority(head.authority()));
        }
    }
}
