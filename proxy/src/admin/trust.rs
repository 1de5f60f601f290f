//! Which requests may come over which listener.

use std::net::IpAddr;

use hyper::header::{HOST, ORIGIN};
use hyper::{HeaderMap, Method};

/// Who is believed to be on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// The socket's permissions decide.
    Everyone,
    /// Only requests to a loopback name, and changes only from outside a browser: a page that the operator visits can
    /// make the browser call loopback addresses, by DNS rebinding with its own name in `Host`, or directly, which
    /// `Origin` gives away.
    LocalNames,
}

impl Trust {
    /// What is wrong with a request, if anything is.
    pub(super) fn objection(self, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
        if self == Trust::Everyone {
            return None;
        }
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|h| h.to_str().ok());
        if hosts.next().is_some() || !host.is_some_and(is_local_name) {
            return Some("the Host field must be localhost or a loopback address");
        }
        let reads = method == Method::GET || method == Method::HEAD;
        if !reads && headers.contains_key(ORIGIN) {
            return Some("changes are not taken from web pages");
        }
        None
    }
}

/// `localhost` or a loopback address, with or without a port.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if is_port_or_empty(port) => name,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_port_or_empty(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.bytes().all(|b| b.is_ascii_digit()),
        None => text.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names() {
        for name in [
            "localhost",
            "LOCALHOST:9901",
            "127.0.0.1",
            "127.0.0.2:80",
            "[::1]",
            "[::1]:9901",
        ] {
            assert!(is_local_name(name), "{name}");
        }
        for name in [
            "",
            "evil.example",
            "localhost.evil.example",
            "localhost:80.evil.example",
            "10.0.0.1",
            "[::1].evil.example",
            "[::1",
            "::1",
        ] {
            assert!(!is_local_name(name), "{name}");
        }
    }

    #[test]
    fn objections() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs.iter().map(|&(name, value)| {
                let name = hyper::header::HeaderName::from_static(name);
                (name, hyper::header::HeaderValue::from_static(value))
            });
            HeaderMap::from_iter(pairs)
        };
        let local = headers(&[("host", "localhost")]);
        let page = headers(&[("host", "localhost"), ("origin", "http://evil.example")]);
        let none = headers(&[]);
        let check = |method: &Method, headers: &HeaderMap| {
            assert_eq!(Trust::Everyone.objection(method, headers), None);
            Trust::LocalNames.objection(method, headers).is_none()
        };
        assert!(check(&Method::GET, &local));
        assert!(check(&Method::POST, &local));
        assert!(check(&Method::GET, &page));
        assert!(!check(&Method::POST, &page));
        assert!(!check(&Method::GET, &none));
    }
}
