//! OPTIONS and TRACE, which may be meant for a proxy on their way (RFC 9110 §7.6.2, §9.3.7, §9.3.8).

use super::Exchange;
use crate::chain::Reply;
use crate::head::Fields;
use crate::protocol::http::client_side::ClientSide;

/// What the answer to a TRACE does not repeat: whoever reads it may be a script in a page.
const SECRETS: [&[u8]; 3] = [b"authorization", b"cookie", b"proxy-authorization"];
/// What an OPTIONS that ends here is told; any other method passes too.
const ALLOW: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl<C: ClientSide> Exchange<'_, C> {
    /// The method is TRACE, and the listener does not serve it.
    pub(super) fn is_refused_trace(&self) -> bool {
        self.head.method() == b"TRACE" && !self.service.listener.config.http.trace
    }

    /// Counts `Max-Forwards` down before a request is forwarded. The answer of this proxy, when the request has come as
    /// far as it may.
    pub(super) fn last_forward(&mut self) -> Option<Reply> {
        if !matches!(self.head.method(), b"OPTIONS" | b"TRACE") || self.service.behind.is_some() {
            return None;
        }
        // What is no number is no limit that could be obeyed; it is passed on.
        let text = std::str::from_utf8(self.head.fields.get(b"max-forwards")?).ok()?;
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // More than can be counted is as good as the most that can.
        match text.parse().unwrap_or(u32::MAX) {
            0 if self.head.method() == b"TRACE" => Some(self.repeated()),
            0 => {
                let mut fields = Fields::default();
                fields.append(b"allow", ALLOW);
                Some(Reply {
                    status: 200,
                    fields,
                    ..Reply::default()
                })
            }
            left => {
                let left = itoa::Buffer::new().format(left - 1).to_owned();
                self.head.fields.set(b"max-forwards", left.as_bytes());
                None
            }
        }
    }

    /// The request as it would be forwarded, as the content of a response (RFC 9110 §9.3.8).
    fn repeated(&self) -> Reply {
        let mut body = Vec::with_capacity(512);
        body.extend_from_slice(self.head.method());
        body.push(b' ');
        body.extend_from_slice(self.head.target());
        body.extend_from_slice(b" HTTP/1.1\r\n");
        crate::protocol::http::h1::write::field(&mut body, b"host", self.head.authority());
        for (name, value) in self.head.fields.iter() {
            if !SECRETS.contains(&name) {
                crate::protocol::http::h1::write::field(&mut body, name, value);
            }
        }
        body.extend_from_slice(b"\r\n");
        let mut fields = Fields::default();
        fields.append(b"content-type", b"message/http");
        Reply {
            status: 200,
            fields,
            body: body.into(),
        }
    }
}
