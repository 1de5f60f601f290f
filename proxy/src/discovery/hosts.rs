//! The hosts file, with the meaning getaddrinfo(3) gives it.

use std::net::{IpAddr, Ipv4Addr};

/// The addresses that `text` (the content of a hosts file) gives `host`. Names compare without case; lines that
/// make no sense are skipped. IPv4 addresses win: a host's IPv6 addresses are returned only when it has no other,
/// so that a dual-stack host counts as one endpoint.
pub(super) fn addresses(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        if words.any(|name| name.eq_ignore_ascii_case(host)) {
            found.push(ip);
        }
    }
    if found.is_empty() && is_localhost(host) {
        // RFC 6761 §6.3: these names mean loopback whatever the machine's files say.
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    prefer_ipv4(found)
}

/// Keeps the IPv4 addresses, or all when there is none.
pub(super) fn prefer_ipv4(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.retain(IpAddr::is_ipv4);
    }
    addresses
}

fn is_localhost(host: &str) -> bool {
    let last_label = host.rsplit('.').next().unwrap_or_default();
    last_label.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_getaddrinfo_finds() {
        let text = "# a comment\n127.0.0.1 localhost # trailing web3\n::1 localhost ip6-localhost\n\
                    10.0.0.1\tweb1 Web1.Lab\n10.0.0.2 web1\nnonsense web1\n2001:db8::1 six\n10.0.0.9";
        let cases: &[(&str, &[&str])] = &[
            ("localhost", &["127.0.0.1"]),
            ("LOCALHOST.", &["127.0.0.1"]),
            ("app.localhost", &["127.0.0.1"]),
            ("ip6-localhost", &["::1"]),
            ("web1", &["10.0.0.1", "10.0.0.2"]),
            ("web1.lab", &["10.0.0.1"]),
            ("six", &["2001:db8::1"]),
            ("web3", &[]),
            ("web", &[]),
            ("", &[]),
        ];
        for (host, expected) in cases {
            let expected: Vec<IpAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(addresses(text, host), expected, "{host}");
        }
    }

    #[test]
    fn localhost_needs_no_file() {
        assert_eq!(
            addresses("", "localhost"),
            vec![IpAddr::from(Ipv4Addr::LOCALHOST)]
        );
    }
}
