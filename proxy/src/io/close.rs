//! The two ways to end a connection that gets no answer: quietly, or with a reset.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::Scratch;

/// How much a client whose connection is being dropped may still send, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct DropBounds {
    pub bytes: u64,
    pub time: Duration,
}

impl Default for DropBounds {
    fn default() -> Self {
        Self {
            bytes: 256 * 1024,
            time: Duration::from_secs(2),
        }
    }
}

/// Ends `stream` without sending a byte: what has arrived is thrown away, then comes a FIN, then what still arrives is
/// thrown away too until the client ends or `bounds` are reached. Closing a socket with unread input would send a
/// reset instead, which clients report as a network error. Over TLS the FIN follows a close_notify.
pub async fn drop_quietly<S>(mut stream: S, scratch: &Scratch, bounds: DropBounds)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut allowance = bounds.bytes;
    let work = async {
        let ended = poll_fn(|cx| {
            Poll::Ready(
                match poll_discard(&mut stream, cx, scratch, &mut allowance) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                },
            )
        })
        .await;
        if matches!(ended, Some(Err(_))) {
            return;
        }
        if stream.shutdown().await.is_ok() && ended.is_none() {
            let _ = poll_fn(|cx| poll_discard(&mut stream, cx, scratch, &mut allowance)).await;
        }
    };
    // The result is the same whether the client ended, broke the connection or took too long: it is closed.
    let _ = tokio::time::timeout(bounds.time, work).await;
}

/// What a peer that is lingered with may be silent for.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Ends `stream`, to which a whole answer was written while its peer is still sending: first a FIN, then what arrives is
/// thrown away until the peer ends, is silent for two seconds, or `bounds` are reached. Closing a socket with unread input
/// sends a reset, which destroys an answer that the peer has not read yet (RFC 9112 §9.6).
pub async fn linger<S>(mut stream: S, scratch: &Scratch, bounds: DropBounds)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut left = bounds.bytes;
    let work = async {
        let finished = tokio::time::timeout(SILENCE_MAX, stream.shutdown()).await;
        if !matches!(finished, Ok(Ok(()))) {
            return;
        }
        while left > 0 {
            let read = poll_fn(|cx| poll_discard_once(&mut stream, cx, scratch));
            match tokio::time::timeout(SILENCE_MAX, read).await {
                Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read as u64),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(bounds.time, work).await;
}

/// Makes the coming close of `stream` a reset (RST), for a filter's `reset` verdict and to pass on a reset of the
/// other side. Unsent bytes are thrown away.
pub fn reset_on_close(stream: &TcpStream) {
    // Fails only on a socket that is gone already.
    let _ = stream.set_zero_linger();
}

/// Reads and forgets until the stream ends (`Ok`), breaks (`Err`) or `allowance` is used up (`Ok`).
fn poll_discard<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    scratch: &Scratch,
    allowance: &mut u64,
) -> Poll<io::Result<()>> {
    loop {
        let read = ready!(poll_discard_once(stream, cx, scratch))?;
        *allowance = allowance.saturating_sub(read as u64);
        if read == 0 || *allowance == 0 {
            return Poll::Ready(Ok(()));
        }
    }
}

fn poll_discard_once<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    scratch: &Scratch,
) -> Poll<io::Result<usize>> {
    scratch.with(|bytes| {
        let mut buffer = ReadBuf::new(bytes);
        Pin::new(stream)
            .poll_read(cx, &mut buffer)
            .map_ok(|()| buffer.filled().len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn a_dropped_client_sees_an_empty_reply() {
        let (mut client, server) = pair().await;
        client.write_all(&[b'x'; 100_000]).await.unwrap();
        let client_side = async {
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).await.unwrap();
            drop(client);
            reply
        };
        let scratch = Scratch::new();
        let (reply, ()) = tokio::join!(
            client_side,
            drop_quietly(server, &scratch, DropBounds::default())
        );
        assert!(reply.is_empty());
    }

    #[tokio::test]
    async fn a_client_that_never_ends_is_cut() {
        let (client, server) = pair().await;
        let bounds = DropBounds {
            time: Duration::from_millis(20),
            ..DropBounds::default()
        };
        drop_quietly(server, &Scratch::new(), bounds).await;
        drop(client);
    }

    #[tokio::test]
    async fn a_client_that_sends_without_end_is_cut() {
        let (mut client, server) = pair().await;
        let bounds = DropBounds {
            bytes: 100_000,
            time: Duration::from_secs(3600),
        };
        let scratch = Scratch::new();
        let flood = async { while client.write_all(&[0; 4096]).await.is_ok() {} };
        tokio::join!(flood, drop_quietly(server, &scratch, bounds));
    }

    #[tokio::test]
    async fn reset_is_seen_as_a_reset() {
        let (mut client, server) = pair().await;
        reset_on_close(&server);
        drop(server);
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
