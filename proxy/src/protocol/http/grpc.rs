//! Answers of the proxy's own to gRPC calls: a status that clients of gRPC understand, in a head that is also the end
//! ("Trailers-Only" of the gRPC protocol over HTTP/2).

use super::h1::write::reason_phrase;
use crate::chain::Reply;
use crate::head::Fields;

/// What of a reply's text becomes the message of a status.
const MESSAGE_BYTES_MAX: usize = 1024;

/// True for a request that is a gRPC call, by its content type. gRPC-Web is another protocol.
pub fn is_call(content_type: Option<&[u8]>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type.is_some_and(|value| {
        let begins = value.get(..GRPC.len());
        begins.is_some_and(|begins| begins.eq_ignore_ascii_case(GRPC))
            && matches!(
                value.get(GRPC.len()),
                None | Some(b'+' | b';' | b' ' | b'\t')
            )
    })
}

/// Makes `reply` one that ends a gRPC call, by the mapping that gRPC has for statuses of HTTP. A filter that has answered
/// in gRPC is left alone.
pub fn answer(reply: Reply) -> Reply {
    let Reply {
        status,
        mut fields,
        body,
    } = reply;
    if fields.contains(b"grpc-status") || is_call(fields.get(b"content-type")) {
        return Reply {
            status,
            fields,
            body,
        };
    }
    let message = message(status, &fields, &body);
    for name in [
        &b"content-length"[..],
        b"content-encoding",
        b"content-language",
    ] {
        fields.remove(name);
    }
    fields.set(b"content-type", b"application/grpc");
    fields.append(b"grpc-status", code(status).as_bytes());
    fields.append(b"grpc-message", &message);
    Reply {
        status: 200,
        fields,
        body: bytes::Bytes::new(),
    }
}

/// The gRPC status that stands for one of HTTP ("HTTP to gRPC Status Code Mapping").
fn code(status: u16) -> &'static str {
    match status {
        400 => "13",                   // INTERNAL
        401 => "16",                   // UNAUTHENTICATED
        403 => "7",                    // PERMISSION_DENIED
        404 => "12",                   // UNIMPLEMENTED
        429 | 502 | 503 | 504 => "14", // UNAVAILABLE
        _ => "2",                      // UNKNOWN
    }
}

/// The reply's text where it has any, percent-encoded as gRPC wants it.
fn message(status: u16, fields: &Fields, body: &[u8]) -> Vec<u8> {
    let is_text = fields
        .get(b"content-type")
        .is_none_or(|value| value.starts_with(b"text/plain"));
    let text = std::str::from_utf8(body).map(str::trim).unwrap_or("");
    let text = match text {
        text if is_text && !text.is_empty() => text.to_owned(),
        _ => format!("{status} {}", reason_phrase(status)),
    };
    let mut message = Vec::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        if at + character.len_utf8() > MESSAGE_BYTES_MAX {
            break;
        }
        let mut bytes = [0; 4];
        for &byte in character.encode_utf8(&mut bytes).as_bytes() {
            match byte {
                b' '..=b'~' if byte != b'%' => message.push(byte),
                _ => message.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            }
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_content_type() {
        let calls = [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC; x=1",
        ];
        for call in calls {
            assert!(is_call(Some(call.as_bytes())), "{call}");
        }
        for other in [
            "application/grpc-web+proto",
            "application/grpcx",
            "application/json",
            "",
        ] {
            assert!(!is_call(Some(other.as_bytes())), "{other}");
        }
        assert!(!is_call(None));
    }

    #[test]
    fn a_reply_becomes_a_status() {
        let said = |status, content_type: Option<&str>, body: &str| {
            let mut fields = Fields::default();
            if let Some(value) = content_type {
                fields.append(b"content-type", value.as_bytes());
            }
            let reply = answer(Reply {
                status,
                fields,
                body: body.to_owned().into(),
            });
            assert!(reply.body.is_empty());
            let field =
                |name| String::from_utf8_lossy(reply.fields.get(name).unwrap_or(b"-")).into_owned();
            let [code, message] = [field(b"grpc-status"), field(b"grpc-message")];
            format!("{} {code} {message}", reply.status)
        };
        assert_eq!(said(503, None, "down\n"), "200 14 down");
        assert_eq!(
            said(403, Some("text/plain"), "nö: 5 %\n"),
            "200 7 n%C3%B6: 5 %25"
        );
        assert_eq!(
            said(413, Some("text/html"), "<p>"),
            "200 2 413 Payload Too Large"
        );
        assert_eq!(said(302, None, ""), "200 2 302 Found");
        let long = "ü".repeat(2000);
        assert_eq!(said(404, None, &long).len(), "200 12 ".len() + 512 * 6);

        let mut fields = Fields::default();
        fields.append(b"grpc-status", b"5");
        let own = answer(Reply {
            status: 200,
            fields,
            body: "\0".into(),
        });
        assert_eq!(
            (own.fields.get(b"grpc-status"), own.body.len()),
            (Some(&b"5"[..]), 1)
        );
    }
}
