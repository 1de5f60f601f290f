//! What may stand in a request's target and in an authority: one rule for clients of every version of HTTP, for filters,
//! for what middleware and calls ask, and towards every endpoint.

/// What may stand in a target, in every version of HTTP; [`bad_byte`] says what may not.
pub fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && bad_byte(target).is_none()
}

/// A path with or without a query (RFC 9112 §3.2.1).
pub fn is_origin_form(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && is_target(target)
}

/// The first byte that no target may have, and its place. Those are: what is not visible ASCII, `#`, `<` and `>`; a backtick
/// before the `?` and a double quote behind it.
///
/// A URI has none of them (RFC 3986 §2), and browsers encode them. The other bytes that RFC 3986 wants encoded (`{}|\^`)
/// are in use as they are. HTTP/2 could not be more lenient: the crate `http` holds its targets to the same rule.
pub fn bad_byte(target: &[u8]) -> Option<(u8, usize)> {
    let query = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, rest) = target.split_at(query);
    let in_path = |b: &u8| !TARGET[usize::from(*b)] || *b == b'`';
    let in_query = |b: &u8| !TARGET[usize::from(*b)] || *b == b'"';
    let at = path
        .iter()
        .position(in_path)
        .or_else(|| Some(query + rest.iter().position(in_query)?))?;
    Some((target[at], at))
}

/// Bytes that may stand somewhere in a target.
const TARGET: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0x21;
    while b <= 0x7e {
        table[b] = !matches!(b as u8, b'#' | b'<' | b'>');
        b += 1;
    }
    table
};

/// `host[:port]` (RFC 3986 §3.2) without user information: reg-name, IPv4 or bracketed IPv6; the port is one of TCP, or empty.
pub fn is_authority(text: &[u8]) -> bool {
    let (host, port) = split_port(text);
    let host_ok = match host {
        [b'[', inner @ .., b']'] => {
            std::str::from_utf8(inner).is_ok_and(|s| s.parse::<std::net::Ipv6Addr>().is_ok())
        }
        [] => false,
        name => name.len() <= 255 && name.iter().all(|&b| is_host_byte(b)),
    };
    let port_ok = port.is_none_or(|digits| digits.is_empty() || is_port(digits));
    host_ok && port_ok
}

/// Host and port of an authority; brackets stay with the host.
pub fn split_port(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memrchr(b':', text) {
        Some(colon) if !text[colon..].contains(&b']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    }
}

fn is_port(digits: &[u8]) -> bool {
    let value = |n: u32, digit: &u8| n * 10 + u32::from(digit - b'0');
    let all = digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit);
    all && digits.iter().fold(0, value) <= u32::from(u16::MAX)
}

/// Unreserved, percent and sub-delims of a reg-name.
fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in ["a", "a.b:80", "10.0.0.1", "[::1]", "[::1]:8080", "x:"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:b", "a:65536", "a:000080", "[::1", "[]", "[x]", "a@b", "a b", "[::1]x",
            "a/b", "a:1:2",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn origin_forms() {
        for good in ["/", "/a?b", "/{}|\\^", "/a?`", "/\"a"] {
            assert!(is_origin_form(good.as_bytes()), "{good}");
        }
        for bad in [
            "", "a", "*", "/a b", "/<", "/a#b", "/`", "/a?\"", "/\u{e9}", "/\0",
        ] {
            assert!(!is_origin_form(bad.as_bytes()), "{bad}");
        }
    }
}
