//! The check `http`: the endpoint answers a request with an expected status. Only the status line is read.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::checks::Probe;
use super::tcp::dial;
use crate::upstream::Endpoint;

/// Bytes read before a final status line must have come.
const ANSWER_MAX: usize = 16 * 1024;

/// `host` is the Host field; the endpoint's authority when there is none.
pub async fn probe(
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    host: Option<&str>,
    status: &[(u16, u16)],
) -> Probe {
    let mut stream = dial(endpoint).await?;
    let host = host.unwrap_or(&endpoint.authority);
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: sluicegate-check\r\n\
         accept: */*\r\nconnection: close\r\n\r\n"
    );
    let written = stream.write_all(request.as_bytes()).await;
    written.map_err(|error| crate::error::why(&error))?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        match final_status(&answer)? {
            Some(code) if status.iter().any(|&(from, to)| (from..=to).contains(&code)) => {
                return Ok(());
            }
            Some(code) => return Err(format!("status {code}")),
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
