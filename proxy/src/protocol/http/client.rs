//! The client of a request: its address, and the origin that it asked for.

use super::client_address::{Kinds, by_both, by_rfc7239, by_x};
use super::client_origin::Origin;
use crate::config::HttpOptions;
use crate::connection::Connection;
use crate::head::Fields;
use std::net::IpAddr;

/// The one address that logs, limits, hashes and filters know the client by, and what it asked for.
#[derive(Debug, Clone)]
pub struct Client {
    pub ip: IpAddr,
    /// 0 when the address was taken from a forwarding field.
    pub port: u16,
    pub origin: Origin,
    /// `None`: the same as the connection's `peer_text`.
    text: Option<String>,
}

impl Client {
    /// The client of a request with `fields`, which are those that came: nothing was removed from them yet.
    ///
    /// Which field is believed follows what the listener writes, since a proxy that does not know a field passes on
    /// whatever its client wrote into it.
    pub fn of(connection: &Connection, options: &HttpOptions, fields: &Fields) -> Self {
        let peer = connection.peer.ip();
        let trusted = !options.trusted_proxies.is_empty() && options.trusts(peer);
        let found = if trusted {
            match Kinds::believed(options.forwarded) {
                Kinds { rfc7239: false, .. } => by_x(options, fields),
                Kinds { x: false, .. } => by_rfc7239(options, fields),
                Kinds { .. } => by_both(options, fields),
            }
        } else {
            None
        };
        let origin = Origin::of_connection(connection);
        match found.map(|found| found.ip) {
            Some(ip) => Self {
                ip,
                port: 0,
                origin,
                text: Some(ip.to_string()),
            },
            None => Self {
                ip: peer,
                port: connection.peer.port(),
                origin,
                text: None,
            },
        }
    }

    /// A client of whom nothing else is to be told.
    pub fn at(ip: IpAddr, origin: Origin) -> Self {
        Self {
            ip,
            port: 0,
            origin,
            text: None,
        }
    }

    pub fn text<'a>(&'a self, connection: &'a Connection) -> &'a str {
        self.text.as_deref().unwrap_or(&connection.peer_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Forwarded;
    use proptest::prelude::*;

    const PEER: &str = "9.9.9.9";

    type Lines = &'static [(&'static str, &'static str)];

    fn options(forwarded: Forwarded, trusted: &[&str]) -> HttpOptions {
        HttpOptions {
            forwarded,
            trusted_proxies: trusted.iter().map(|t| t.parse().unwrap()).collect(),
            http2: true,
            trace: false,
            upgrade: vec![],
            via: "sluicegate".into(),
        }
    }

    fn found(options: &HttpOptions, lines: &[(&str, &str)]) -> String {
        let connection = Connection::new(
            "l".into(),
            format!("{PEER}:1").parse().unwrap(),
            "10.0.0.1:80".parse().unwrap(),
        );
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name.as_bytes(), value.as_bytes());
        }
        Client::of(&connection, options, &fields)
            .text(&connection)
            .to_owned()
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right() {
        let cases: &[(&[&str], &str, &str)] = &[
            (&[], "1.1.1.1, 2.2.2.2", PEER),
            (&["8.0.0.0/8"], "1.1.1.1, 2.2.2.2", PEER),
            (&["9.0.0.0/8"], "1.1.1.1, 2.2.2.2", "2.2.2.2"),
            (
                &["9.0.0.0/8", "2.0.0.0/8"],
                "6.6.6.6, 1.1.1.1, 2.2.2.2",
                "1.1.1.1",
            ),
            (&["9.0.0.0/8"], "1.1.1.1, junk", PEER),
            (&["9.0.0.0/8"], "1.1.1.1, , ", "1.1.1.1"),
            (&["9.0.0.0/8", "2.0.0.0/8"], "junk, 2.2.2.2", "2.2.2.2"),
            (&["0.0.0.0/0"], "1.1.1.1, 2.2.2.2", "1.1.1.1"),
            (&["9.0.0.0/8"], "[2001:db8::1]:443", "2001:db8::1"),
            (&["9.0.0.0/8"], "192.0.2.1:443", "192.0.2.1"),
            (&["9.0.0.0/8"], "::ffff:192.0.2.1", "192.0.2.1"),
        ];
        for (trusted, x, expected) in cases {
            for forwarded in [Forwarded::X, Forwarded::None, Forwarded::Both] {
                let options = options(forwarded, trusted);
                let got = found(&options, &[("x-forwarded-for", x)]);
                assert_eq!(got, *expected, "{trusted:?} {x}");
            }
        }
    }

    #[test]
    fn forwarded_is_read_from_the_right() {
        let cases = [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=192.0.2.1;Proto=https;By=10.0.0.1", "192.0.2.1"),
            ("proto=https ; for=192.0.2.1", "192.0.2.1"),
            ("for=6.6.6.6, for=192.0.2.1", "192.0.2.1"),
            ("for=192.0.2.1, for=9.1.1.1,for=\"9.2.2.2:80\"", "192.0.2.1"),
            ("for=192.0.2.1, , ", "192.0.2.1"),
            ("for=192.0.2.1;;", "192.0.2.1"),
            // Quoted, with ports, bracketed.
            ("for=\"192.0.2.1\"", "192.0.2.1"),
            ("for=\"192.0.2.1:8080\"", "192.0.2.1"),
            ("for=\"192.0.2.1:_hidden.port\"", "192.0.2.1"),
            ("for=\"1\\92.0.2.1\"", "192.0.2.1"),
            ("for=\"[2001:db8::1]\"", "2001:db8::1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=\"[::ffff:192.0.2.1]\"", "192.0.2.1"),
            ("for=192.0.2.1:8080", "192.0.2.1"),
            ("for=[2001:db8::1]:80", "2001:db8::1"),
            // Commas, semicolons and quotes inside strings do not end what they are in.
            ("for=192.0.2.1;host=\"a,for=6.6.6.6\"", "192.0.2.1"),
            ("for=192.0.2.1;host=\"a;for=6.6.6.6\"", "192.0.2.1"),
            ("for=192.0.2.1;x=\"\\\",for=6.6.6.6\"", "192.0.2.1"),
            ("for=192.0.2.1;x=\"\\\\\"", "192.0.2.1"),
            // What a client leaves open on the left is never reached.
            ("for=\"6.6.6.6, for=192.0.2.1", "192.0.2.1"),
            ("x=\"\\, for=192.0.2.1", "192.0.2.1"),
            // No address: nobody further left is believed either.
            ("for=192.0.2.1, for=unknown", PEER),
            ("for=192.0.2.1, for=_secret", PEER),
            ("for=192.0.2.1, for=\"_secret:80\"", PEER),
            ("for=192.0.2.1, for=unknown, for=9.1.1.1", "9.1.1.1"),
            ("for=192.0.2.1, proto=https", PEER),
            ("for=192.0.2.1;for=192.0.2.1", PEER),
            ("for=", PEER),
            ("for", PEER),
            ("192.0.2.1", PEER),
            ("for=2001:db8::1", PEER),
            ("for=\"2001:db8::1\"", PEER),
            ("for=\"[192.0.2.1]\"", PEER),
            ("for=\"192.0.2.1:\"", PEER),
            ("for=\"192.0.2.1:port\"", PEER),
            ("for=\"192.0.2.1:123456\"", PEER),
            ("for=\"192.0.2.1", PEER),
            ("for=192.0.2.1\"", PEER),
            ("for=\"192.0.2.1\\\"", PEER),
            ("for =192.0.2.1", PEER),
            ("for= 192.0.2.1", PEER),
            ("for=192.0.2.1 proto=http", PEER),
        ];
        for (value, expected) in cases {
            let options = options(Forwarded::Rfc7239, &["9.0.0.0/8"]);
            let got = found(&options, &[("forwarded", value)]);
            assert_eq!(got, expected, "{value}");
        }
        // Lines are one list, in order.
        let options = options(Forwarded::Rfc7239, &["9.0.0.0/8"]);
        let lines = [("forwarded", "for=192.0.2.1"), ("forwarded", "for=9.1.1.1")];
        assert_eq!(found(&options, &lines), "192.0.2.1");
    }

    #[test]
    fn the_field_that_is_believed_is_the_kind_that_is_written() {
        const X: (&str, &str) = ("x-forwarded-for", "192.0.2.1");
        const RFC: (&str, &str) = ("forwarded", "for=192.0.2.2");
        let cases: &[(Forwarded, Lines, &str)] = &[
            (Forwarded::X, &[X, RFC], "192.0.2.1"),
            (Forwarded::X, &[RFC], PEER),
            (Forwarded::None, &[X, RFC], "192.0.2.1"),
            (Forwarded::Rfc7239, &[X, RFC], "192.0.2.2"),
            (Forwarded::Rfc7239, &[X], PEER),
            (Forwarded::Both, &[X], "192.0.2.1"),
            (Forwarded::Both, &[RFC], "192.0.2.2"),
            (Forwarded::Both, &[X, RFC], PEER),
            (
                Forwarded::Both,
                &[X, ("forwarded", "for=\"192.0.2.1:8\"")],
                "192.0.2.1",
            ),
            (Forwarded::Both, &[X, ("forwarded", "for=unknown")], PEER),
            (Forwarded::Both, &[], PEER),
        ];
        for (forwarded, lines, expected) in cases {
            let got = found(&options(*forwarded, &["9.0.0.0/8"]), lines);
            assert_eq!(got, *expected, "{forwarded:?} {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_trusted_proxy_appends_is_found_whatever_lies_left_of_it(left in "[ -~]{0,40}") {
            let options = options(Forwarded::Rfc7239, &["9.0.0.0/8"]);
            let joined = format!("{left}, for=\"192.0.2.1:80\";host=\"a,b\"");
            prop_assert_eq!(found(&options, &[("forwarded", &joined)]), "192.0.2.1");
        }
    }
}
