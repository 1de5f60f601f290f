//! How long a message body is (RFC 9112 §6), decided strictly: what could be read in two ways is refused.

use crate::error::Reason;
use crate::head::Fields;

/// The end of a body as its sender framed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    /// Responses only: the head was the end, and stated no length (END_STREAM on HEADERS, RFC 9113 §8.1).
    Empty,
    Chunked,
    /// Responses only: until the connection closes.
    UntilClose,
}

impl Framing {
    pub fn has_body(self) -> bool {
        !matches!(self, Framing::None | Framing::Length(0) | Framing::Empty)
    }
}

/// Framing of a request. `http10` messages may not use Transfer-Encoding.
pub fn of_request(fields: &Fields, http10: bool) -> Result<Framing, Reason> {
    let coding = transfer_coding(fields)?;
    let length = content_length(fields)?;
    match (coding, length) {
        (Coding::Absent, None) => Ok(Framing::None),
        (Coding::Absent, Some(n)) => Ok(Framing::Length(n)),
        (Coding::Chunked | Coding::Other, _) if http10 => Err(Reason::BadRequest),
        (Coding::Chunked | Coding::Other, Some(_)) => Err(Reason::BadRequest),
        (Coding::Chunked, None) => Ok(Framing::Chunked),
        (Coding::Other, None) => Err(Reason::UnknownCoding),
    }
}

/// Framing of the response to a request of `method`. Conflicts are the upstream's fault: `UpstreamMalformed`.
pub fn of_response(
    fields: &Fields,
    status: u16,
    head_request: bool,
    http10: bool,
) -> Result<Framing, Reason> {
    let malformed = |_| Reason::UpstreamMalformed;
    let coding = transfer_coding(fields).map_err(malformed)?;
    let length = content_length(fields).map_err(malformed)?;
    if coding != Coding::Absent && (length.is_some() || http10) {
        return Err(Reason::UpstreamMalformed);
    }
    if head_request || status < 200 || status == 204 || status == 304 {
        return Ok(Framing::None);
    }
    match (coding, length) {
        (Coding::Chunked, _) => Ok(Framing::Chunked),
        (Coding::Other, _) => Err(Reason::UpstreamMalformed),
        (Coding::Absent, Some(n)) => Ok(Framing::Length(n)),
        (Coding::Absent, None) => Ok(Framing::UntilClose),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Absent,
    Chunked,
    /// A coding we do not speak, well-formed.
    Other,
}

fn transfer_coding(fields: &Fields) -> Result<Coding, Reason> {
    let mut found = Coding::Absent;
    let mut chunked = false;
    for value in fields.get_all(b"transfer-encoding") {
        for coding in value.split(|&b| b == b',') {
            let coding = trim(coding);
            // An empty list element, a parameter or odd white space: some parsers would read another coding.
            if !crate::head::is_token(coding) || chunked {
                return Err(Reason::BadRequest);
            }
            if coding.eq_ignore_ascii_case(b"chunked") {
                chunked = true;
            }
            found = if found == Coding::Absent && chunked {
                Coding::Chunked
            } else {
                Coding::Other
            };
        }
    }
    Ok(found)
}

fn content_length(fields: &Fields) -> Result<Option<u64>, Reason> {
    let mut length = None;
    for value in fields.get_all(b"content-length") {
        for part in value.split(|&b| b == b',') {
            let n = decimal(trim(part)).ok_or(Reason::BadRequest)?;
            match length {
                None => length = Some(n),
                Some(m) if m == n => {}
                Some(_) => return Err(Reason::BadRequest),
            }
        }
    }
    Ok(length)
}

/// Digits only, at most 2^63 - 1 so that no arithmetic on it can wrap.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = text.iter().fold(0u64, |n, &d| {
        n.wrapping_mul(10).wrapping_add((d - b'0') as u64)
    });
    (n <= i64::MAX as u64).then_some(n)
}

/// Without optional white space (space and tab) at both ends.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    #[test]
    fn request_framing() {
        let te = "transfer-encoding";
        let cl = "content-length";
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<Framing, Reason>);
        let cases: &[Case<'_>] = &[
            (&[], Ok(Framing::None)),
            (&[(cl, "5")], Ok(Framing::Length(5))),
            (&[(cl, "5"), (cl, "5")], Ok(Framing::Length(5))),
            (&[(cl, "5, 5")], Ok(Framing::Length(5))),
            (&[(cl, "5"), (cl, "6")], Err(Reason::BadRequest)),
            (&[(cl, "+5")], Err(Reason::BadRequest)),
            (&[(cl, "-1")], Err(Reason::BadRequest)),
            (&[(cl, "")], Err(Reason::BadRequest)),
            (&[(cl, "5,")], Err(Reason::BadRequest)),
            (&[(cl, "0x5")], Err(Reason::BadRequest)),
            (&[(cl, "18446744073709551616")], Err(Reason::BadRequest)),
            (&[(cl, "9223372036854775808")], Err(Reason::BadRequest)),
            (&[(te, "chunked")], Ok(Framing::Chunked)),
            (&[(te, "Chunked")], Ok(Framing::Chunked)),
            (&[(te, "chunked"), (cl, "5")], Err(Reason::BadRequest)),
            (&[(te, "chunked, chunked")], Err(Reason::BadRequest)),
            (&[(te, "chunked"), (te, "chunked")], Err(Reason::BadRequest)),
            (&[(te, "chunked, gzip")], Err(Reason::BadRequest)),
            (&[(te, "gzip, chunked")], Err(Reason::UnknownCoding)),
            (&[(te, "gzip")], Err(Reason::UnknownCoding)),
            (&[(te, "identity")], Err(Reason::UnknownCoding)),
            (&[(te, "\u{b}chunked")], Err(Reason::BadRequest)),
            (&[(te, "chunked;q=1")], Err(Reason::BadRequest)),
            (&[(te, "")], Err(Reason::BadRequest)),
        ];
        for (lines, expected) in cases {
            assert_eq!(of_request(&fields(lines), false), *expected, "{lines:?}");
        }
        assert_eq!(
            of_request(&fields(&[(te, "chunked")]), true),
            Err(Reason::BadRequest)
        );
    }

    #[test]
    fn response_framing() {
        let both = fields(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        assert_eq!(
            of_response(&both, 200, false, false),
            Err(Reason::UpstreamMalformed)
        );
        let length = fields(&[("content-length", "3")]);
        assert_eq!(
            of_response(&length, 200, false, false),
            Ok(Framing::Length(3))
        );
        assert_eq!(of_response(&length, 304, false, false), Ok(Framing::None));
        assert_eq!(of_response(&length, 200, true, false), Ok(Framing::None));
        assert_eq!(
            of_response(&fields(&[]), 200, false, false),
            Ok(Framing::UntilClose)
        );
    }
}
