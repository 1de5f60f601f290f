//! Durations, sizes and addresses: the small languages inside strings.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::model::EndpointAddress;

/// Longer than any sensible timeout, and far from overflow.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// `250ms`, `10s`, `1m30s`, `1h`: whole numbers with units, largest first or not.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const SHAPE: &str = "a duration is a number with a unit: `250ms`, `10s`, `5m`, `1h`";
    let mut rest = text;
    let mut total = Duration::ZERO;
    if text == "0" {
        return Ok(total);
    }
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| SHAPE)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 24 * 3_600_000,
            _ => return Err(SHAPE),
        };
        let part = number.checked_mul(millis).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= DURATION_MAX)
            .ok_or("a duration is at most a year")?;
        if after.is_empty() {
            return Ok(total);
        }
        rest = after;
    }
}

/// A duration as it is written: in the largest unit that gives a whole number.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if millis >= unit && millis.is_multiple_of(unit) {
            return format!("{}{name}", millis / unit);
        }
    }
    format!("{millis}ms")
}

/// `64KiB`, `1MiB`, `10MB`, `512B`.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    const SHAPE: &str = "a size is a number of bytes, or a number with a unit: `64KiB`, `1MiB`";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| SHAPE)?;
    let factor: u64 = match unit.trim_start_matches(' ') {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(SHAPE),
    };
    number.checked_mul(factor).ok_or("this size is too large")
}

/// `:80` (every address), `192.0.2.1:80`, `[2001:db8::1]:80`.
pub(super) fn bind(text: &str) -> Result<SocketAddr, &'static str> {
    let every = text.strip_prefix(':').filter(|rest| !rest.contains(':'));
    if let Some(port) = every.or_else(|| text.strip_prefix("*:")) {
        let port = self::port(port).ok_or("a port is a number from 0 to 65535")?;
        return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(portless(ip));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if self::port(port).is_some() && host.contains(':') => {
            Err("an IPv6 address goes into brackets: `[::1]:80`")
        }
        Some((_, port)) if self::port(port).is_none() => Err("a port is a number from 0 to 65535"),
        _ => Err("a listener binds IP addresses with a port: `:80`, `192.0.2.1:80`, `[::1]:80`"),
    }
}

/// `192.0.2.1:80`, `[2001:db8::1]:80`, `backend.internal:80`.
pub(super) fn endpoint(text: &str) -> Result<EndpointAddress, &'static str> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err("an endpoint's port is not 0"),
            _ => Ok(EndpointAddress::Ip(address)),
        };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(portless(ip));
    }
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    if text.contains("//") {
        return Err("an endpoint is a host and a port, without a scheme or path");
    }
    if host.contains(':') {
        return Err("an IPv6 address goes into brackets: `[::1]:80`");
    }
    let port = self::port(port)
        .filter(|port| *port != 0)
        .ok_or("a port is a number from 1 to 65535")?;
    host_name(host)?;
    Ok(EndpointAddress::Name {
        host: host.to_ascii_lowercase(),
        port,
    })
}

/// What `::1:80` is: an address of its own, though hardly the one that was meant.
fn portless(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "the port is missing",
        IpAddr::V6(_) => "the port is missing; an IPv6 address goes into brackets: `[::1]:80`",
    }
}

fn port(text: &str) -> Option<u16> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn host_name(host: &str) -> Result<(), &'static str> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.is_empty() || name.len() > 253 || !name.split('.').all(label) {
        return Err("not a host name: letters, digits and hyphens, separated by dots");
    }
    // What looks like an address and is none is a typing mistake, not a name.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not an IP address: four numbers from 0 to 255");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let ok = [
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("0", 0),
        ];
        for (text, millis) in ok {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "10 s",
            "10sec",
            "999999999999999999999s",
            "400d",
            "1µs",
            "ms10",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("64KiB", 65536),
            ("1 MiB", 1 << 20),
            ("1kB", 1000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "64k",
            "64 kib",
            "-1",
            "99999999999999999999",
            "99999999999GiB",
            "1.5MiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn binds() {
        for (text, expected) in [
            (":80", "[::]:80"),
            ("*:80", "[::]:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert_eq!(bind(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "80",
            ":",
            ":http",
            ":65536",
            "::1:80",
            "localhost:80",
            "127.0.0.1",
            "127.0.0.1:+80",
            "::1",
        ] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints() {
        let ip = |text: &str| EndpointAddress::Ip(text.parse().unwrap());
        assert_eq!(endpoint("127.0.0.1:80"), Ok(ip("127.0.0.1:80")));
        assert_eq!(endpoint("[::1]:80"), Ok(ip("[::1]:80")));
        assert_eq!(
            endpoint("Web-1.lan:80"),
            Ok(EndpointAddress::Name {
                host: "web-1.lan".into(),
                port: 80
            })
        );
        for text in [
            "",
            ":80",
            "web",
            "web:",
            "web:0",
            "web:http",
            "127.0.0.1:0",
            "127.0.0.300:80",
            "::1:80",
            "-a:80",
            "a..b:80",
            "a b:80",
            "http://a:80",
            "127.0.0.1",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panic(text in "\\PC{0,40}") {
            let _ = (duration(&text), size(&text), bind(&text), endpoint(&text));
        }
    }
}
