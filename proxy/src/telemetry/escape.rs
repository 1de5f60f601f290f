//! Turning what a client sent into log text that cannot forge a line, a field or a terminal sequence.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `value` for use between double quotes in a text or combined line: quote, backslash, control bytes and
/// everything outside ASCII become `\xHH`. Readers that stop at the first `"` (goaccess among them) are never misled,
/// which `\"` would not give.
pub fn push_quoted(out: &mut Vec<u8>, value: &[u8], bytes_max: usize) {
    push_hex_escaped(out, value, bytes_max, |b| {
        (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'
    });
}

/// Appends `value` for use as a bare word: as [`push_quoted`], and spaces are escaped too. Empty is `-`.
pub fn push_word(out: &mut Vec<u8>, value: &[u8], bytes_max: usize) {
    if value.is_empty() {
        out.push(b'-');
        return;
    }
    push_hex_escaped(out, value, bytes_max, |b| {
        (0x21..0x7f).contains(&b) && b != b'"' && b != b'\\'
    });
}

/// Appends `value` as the inside of a JSON string: control characters (C1 and DEL too, since logs end up on terminals)
/// as `\u00XX`; bytes that are not UTF-8 as U+FFFD.
pub fn push_json(out: &mut Vec<u8>, value: &[u8], bytes_max: usize) {
    let (value, cut) = shorten(value, bytes_max);
    if value.iter().all(|&b| is_plain_json(b)) {
        out.extend_from_slice(value);
    } else {
        for chunk in value.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' => out.extend_from_slice(b"\\\""),
                    '\\' => out.extend_from_slice(b"\\\\"),
                    c if c.is_control() => {
                        out.extend_from_slice(b"\\u00");
                        push_hex(out, c as u8);
                    }
                    c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    if cut {
        out.extend_from_slice(b"...");
    }
}

/// The text of a diagnostic log line: continuation lines are indented, so that only a real line starts in the first
/// column; carriage returns and other control bytes but tab (and ESC when `colour` is on, which only the formatter
/// writes: it escapes those of messages) become `\xHH`.
pub fn push_log_text(out: &mut Vec<u8>, line: &[u8], colour: bool) {
    let (body, end) = match line.split_last() {
        Some((b'\n', body)) => (body, true),
        _ => (line, false),
    };
    let plain = |b: u8| !b.is_ascii_control() || b == b'\t' || (colour && b == 0x1b);
    if body.iter().all(|&b| plain(b)) {
        out.extend_from_slice(body);
    } else {
        for &b in body {
            match b {
                b'\n' => out.extend_from_slice(b"\n    "),
                b if plain(b) => out.push(b),
                b => {
                    out.extend_from_slice(b"\\x");
                    push_hex(out, b);
                }
            }
        }
    }
    if end {
        out.push(b'\n');
    }
}

fn push_hex_escaped(out: &mut Vec<u8>, value: &[u8], bytes_max: usize, plain: impl Fn(u8) -> bool) {
    let (value, cut) = shorten(value, bytes_max);
    let mut rest = value;
    while let Some(at) = rest.iter().position(|&b| !plain(b)) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"\\x");
        push_hex(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    if cut {
        out.extend_from_slice(b"...");
    }
}

fn push_hex(out: &mut Vec<u8>, b: u8) {
    out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
}

fn is_plain_json(b: u8) -> bool {
    (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'
}

/// The first `bytes_max` bytes, and whether more were there.
fn shorten(value: &[u8], bytes_max: usize) -> (&[u8], bool) {
    match value.get(..bytes_max) {
        Some(head) if value.len() > bytes_max => (head, true),
        _ => (value, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn quoted() {
        let check = |value: &[u8], expected: &str| {
            assert_eq!(text(|out| push_quoted(out, value, 16)), expected);
        };
        check(b"curl/8.0", "curl/8.0");
        check(b"a\"b\\c", r"a\x22b\x5cc");
        check(b"x\r\nFAKE", r"x\x0d\x0aFAKE");
        check("\u{e9}\u{1b}".as_bytes(), r"\xc3\xa9\x1b");
        check(b"0123456789abcdef", "0123456789abcdef");
        check(b"0123456789abcdefg", "0123456789abcdef...");
    }

    #[test]
    fn words() {
        assert_eq!(text(|out| push_word(out, b"", 9)), "-");
        assert_eq!(text(|out| push_word(out, b"/a b", 9)), r"/a\x20b");
    }

    #[test]
    fn json() {
        let check = |value: &[u8], expected: &str| {
            assert_eq!(text(|out| push_json(out, value, 64)), expected);
        };
        check(b"plain", "plain");
        check(b"a\"\\\n", r#"a\"\\\u000a"#);
        check(
            "caf\u{e9}\u{9b}\u{7f}".as_bytes(),
            "caf\u{e9}\\u009b\\u007f",
        );
        check(b"\xff\xfeok", "\u{fffd}\u{fffd}ok");
    }

    #[test]
    fn log_text_keeps_lines_apart() {
        let check = |line: &[u8], colour, expected: &str| {
            assert_eq!(text(|out| push_log_text(out, line, colour)), expected);
        };
        check(b"one\n", false, "one\n");
        check(b"one\ntwo\n", false, "one\n    two\n");
        check(b"a\rb\x1b[1m\n", false, "a\\x0db\\x1b[1m\n");
        check(b"\x1b[1mb\n", true, "\x1b[1mb\n");
    }

    proptest! {
        #[test]
        fn nothing_escapes(value in proptest::collection::vec(any::<u8>(), 0..200), max in 0usize..220) {
            let quoted = text(|out| push_quoted(out, &value, max));
            prop_assert!(quoted.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"'));
            let word = text(|out| push_word(out, &value, max));
            prop_assert!(word.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'"'));
            let json = text(|out| push_json(out, &value, max));
            prop_assert!(!json.chars().any(char::is_control));
            let back: String = serde_json::from_str(&format!("\"{json}\"")).expect("JSON");
            if value.len() <= max {
                prop_assert_eq!(back, String::from_utf8_lossy(&value));
            }
        }
    }
}
