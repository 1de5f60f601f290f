//! Failures turned into answers: the one place that knows what a client is told.

use crate::chain::Reply;
use crate::error::Reason;
use crate::head::Fields;
use std::borrow::Cow;
use std::time::SystemTime;

/// The answer for a failure before any byte of a response was sent.
pub fn failure(reason: Reason, via: &str, request_id: &str) -> Reply {
    let status = reason.status();
    let mut fields = Fields::default();
    fields.append(b"content-type", b"text/plain; charset=utf-8");
    if let Some(error) = reason.proxy_status() {
        fields.append(
            b"proxy-status",
            format!("{}; error={error}; details=\"{reason}\"", item(via)).as_bytes(),
        );
    }
    if reason == Reason::MethodNotAllowed {
        // RFC 9110 §15.5.6 wants the methods told. Any but CONNECT and mostly TRACE passes; these are the ones that have a meaning.
        fields.append(b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    if matches!(
        reason,
        Reason::NoHealthyEndpoint | Reason::Overload | Reason::Drained
    ) {
        fields.append(b"retry-after", b"1");
    }
    fields.append(b"date", date().as_bytes());
    let phrase = super::h1::write::reason_phrase(status);
    let mut body = format!("{status} {phrase} ({reason})\n");
    if !request_id.is_empty() {
        body.push_str("request id ");
        body.push_str(request_id);
        body.push('\n');
    }
    Reply {
        status,
        fields,
        body: body.into(),
    }
}

/// Now, as who makes a response dates it (RFC 9110 §6.6.1).
pub fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// This proxy's name as an item of a structured field (RFC 8941 §3.3.4). The configuration wants a token of HTTP there;
/// a token of structured fields begins with a letter or an asterisk, and any other has to be a string.
fn item(via: &str) -> Cow<'_, str> {
    match via.as_bytes() {
        [b'*' | b'a'..=b'z' | b'A'..=b'Z', ..] => via.into(),
        _ => format!("\"{via}\"").into(),
    }
}
