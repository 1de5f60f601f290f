//! The check `http`: the endpoint answers a request with an expected status. Only the status line is read.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::probe::Probe;
use super::tcp::dial;
use crate::config::PoolProtocol;
use crate::io::Io;
use crate::tls::{ClientTls, Offer, agreed_http2};
use crate::upstream::Endpoint;

/// Bytes read before a final status line must have come.
const ANSWER_MAX: usize = 16 * 1024;

/// What is asked.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// The Host field.
    pub host: &'a str,
}

/// Speaks what the pool speaks.
pub async fn probe(
    endpoint: &Endpoint,
    tls: Option<&ClientTls>,
    protocol: PoolProtocol,
    request: &Request<'_>,
    status: &[(u16, u16)],
) -> Probe {
    let offer = match protocol {
        PoolProtocol::Http1 => Offer::Http1,
        PoolProtocol::Http2 => Offer::Http2,
        PoolProtocol::Auto => Offer::Either,
    };
    let stream = dial(endpoint, tls, offer).await?;
    let http2 = match (&stream, protocol) {
        (_, PoolProtocol::Http2) => true,
        (Io::TlsOut(stream), _) => agreed_http2(stream),
        _ => false,
    };
    let code = if http2 {
        ask_http2(stream, tls.is_some(), request).await?
    } else {
        ask_http1(stream, request).await?
    };
    if status.iter().any(|&(from, to)| (from..=to).contains(&code)) {
        return Ok(());
    }
    Err(format!("status {code}"))
}

async fn ask_http2(stream: Io, secure: bool, request: &Request<'_>) -> Result<u16, String> {
    let text = |error: &dyn std::fmt::Display| format!("HTTP/2: {error}");
    let uri = http::Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(request.host)
        .path_and_query(request.path)
        .build()
        .map_err(|error| text(&error))?;
    let head = http::Request::builder()
        .method(request.method)
        .uri(uri)
        .header("user-agent", "sluicegate-check")
        .header("accept", "*/*")
        .body(())
        .map_err(|error| text(&error))?;
    let (send, connection) = h2::client::handshake(stream)
        .await
        .map_err(|error| text(&error))?;
    let answer = async {
        let mut send = send.ready().await?;
        let (response, _) = send.send_request(head, true)?;
        response.await.map(|response| response.status().as_u16())
    };
    tokio::select! {
        answer = answer => answer.map_err(|error: h2::Error| text(&error)),
        ended = connection => Err(ended.map_or_else(|error| text(&error), |()| "closed before an answer".into())),
    }
}

async fn ask_http1(mut stream: Io, request: &Request<'_>) -> Result<u16, String> {
    let Request { method, path, host } = request;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: sluicegate-check\r\n\
         accept: */*\r\nconnection: close\r\n\r\n"
    );
    let written = stream.write_all(request.as_bytes()).await;
    written.map_err(|error| crate::error::why(&error))?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        match final_status(&answer)? {
            Some(code) => return Ok(code),
            None if answer.len() >= ANSWER_MAX => return Err("no status in 16 KiB".into()),
            None => {}
        }
        let read = stream.read_buf(&mut answer).await;
        if read.map_err(|error| crate::error::why(&error))? == 0 {
            return Err("closed before an answer".into());
        }
    }
}

/// The status of the first response in `answer` that is not informational; none while more bytes are needed.
fn final_status(mut answer: &[u8]) -> Result<Option<u16>, String> {
    let malformed = || "not an HTTP answer".to_owned();
    loop {
        let line = memchr::memchr(b'\n', answer).map(|end| answer.get(..=end).unwrap_or_default());
        let Some(line) = line else {
            return match answer {
                // Enough to know that no HTTP will come of it.
                [_, _, _, _, _, ..] if !answer.starts_with(b"HTTP/") => Err(malformed()),
                _ => Ok(None),
            };
        };
        // httparse takes a status line without fields when the empty line follows.
        let head = [line, b"\r\n"].concat();
        let mut parsed = httparse::Response::new(&mut []);
        let complete = parsed.parse(&head).is_ok_and(|status| status.is_complete());
        let code = parsed.code.filter(|_| complete).ok_or_else(malformed)?;
        if !(100..200).contains(&code) || code == 101 {
            return Ok(Some(code));
        }
        let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else {
            return Ok(None);
        };
        answer = answer.get(end + 4..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_final_status() {
        let cases: &[(&str, Result<Option<u16>, ()>)] = &[
            ("", Ok(None)),
            ("HTT", Ok(None)),
            ("HTTP/1.1 200", Ok(None)),
            ("HTTP/1.1 200 OK\r\n", Ok(Some(200))),
            ("HTTP/1.0 503\r\nx: y\r\n", Ok(Some(503))),
            ("HTTP/1.1 204 No Content\nrest", Ok(Some(204))),
            ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n", Ok(None)),
            (
                "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 404 No\r\n",
                Ok(Some(404)),
            ),
            ("SSH-2.0-OpenSSH_9.6\r\n", Err(())),
            ("SSH-2.0", Err(())),
            ("HTTP/1.1 20x OK\r\n", Err(())),
            ("HTTP/9.9 200 OK\r\n", Err(())),
            ("\r\n", Err(())),
        ];
        for (input, expected) in cases {
            let status = final_status(input.as_bytes()).map_err(drop);
            assert_eq!(&status, expected, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in any::<bool>()) {
            let mut answer = if prefix { b"HTTP/1.1 1".to_vec() } else { vec![] };
            answer.extend(bytes);
            let _ = final_status(&answer);
        }
    }
}
