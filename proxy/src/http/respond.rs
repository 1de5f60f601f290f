//! Failures turned into answers: the one place that knows what a client is told.

use crate::chain::Reply;
use crate::error::Reason;
use crate::head::Fields;

/// The answer for a failure before any byte of a response was sent.
pub fn failure(reason: Reason, via: &str, request_id: &str) -> Reply {
    let status = reason.status();
    let mut fields = Fields::default();
    fields.append(b"content-type", b"text/plain; charset=utf-8");
    if let Some(error) = reason.proxy_status() {
        fields.append(
            b"proxy-status",
            format!("{via}; error={error}; details=\"{reason}\"").as_bytes(),
        );
    }
    if matches!(
        reason,
        Reason::NoHealthyEndpoint | Reason::Overload | Reason::Drained
    ) {
        fields.append(b"retry-after", b"1");
    }
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
