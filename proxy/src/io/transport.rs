//! A client's or upstream's byte stream, plain or TLS, that both halves of an exchange can poll from one task.
//!
//! Reads go through the worker's scratch buffer and are handed to the caller as a slice, so a connection that waits
//! owns no buffer. All methods take `&self`: the stream sits in a `RefCell` that is borrowed only inside one poll.

use super::scratch::{PIECE_BYTES, Scratch};
use socket2::SockRef;
use std::cell::RefCell;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub enum Io {
    Tcp(TcpStream),
    /// Accepted.
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// Dialled.
    TlsOut(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Io {
    /// What has arrived on a connection that is between two exchanges, as the kernel knows it at this moment and not as of
    /// the last wake-up of the runtime: one system call, beside those that take in what TLS sends for itself.
    pub fn look(&mut self) -> Look {
        match self {
            Io::Tcp(stream) => look_plain(stream),
            Io::Tls(stream) => look_plain(stream.get_ref().0),
            Io::TlsOut(stream) => {
                let (stream, session) = stream.get_mut();
                look_secure(stream, session)
            }
        }
    }

    /// The same as of the last wake-up: no system call while nothing has come.
    pub fn glance(&mut self) -> Look {
        let mut cx = Context::from_waker(Waker::noop());
        match self.tcp().poll_read_ready(&mut cx) {
            Poll::Pending => Look::Quiet,
            Poll::Ready(_) => self.look(),
        }
    }

    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Io::Tcp(s) => s,
            Io::Tls(s) => s.get_ref().0,
            Io::TlsOut(s) => s.get_ref().0,
        }
    }
}

/// What [`Io::look`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing: the next bytes are those of the next answer.
    Quiet,
    /// The peer has ended it, in an orderly way or not.
    Ended,
    /// The peer has sent something that nobody asked for.
    Unasked,
}

/// A server that gives up an idle connection may say so first (RFC 9110 §15.5.9).
pub const FAREWELL: &[u8] = b"HTTP/1.1 408";
/// Reads that TLS may need for what it sends for itself.
const LOOKS_MAX: usize = 8;

fn look_plain(stream: &TcpStream) -> Look {
    let mut front = [MaybeUninit::uninit(); FAREWELL.len()];
    match SockRef::from(stream).peek(&mut front) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Look::Quiet,
        Err(_) | Ok(0) => Look::Ended,
        Ok(_) => {
            let mut front = [0; FAREWELL.len()];
            match (&*SockRef::from(stream)).read(&mut front) {
                Ok(n) if &front[..n] == FAREWELL => Look::Ended,
                _ => Look::Unasked,
            }
        }
    }
}

/// Session tickets and the like are taken in; data is unasked.
fn look_secure(stream: &TcpStream, session: &mut rustls::ClientConnection) -> Look {
    for _ in 0..LOOKS_MAX {
        let Ok(state) = session.process_new_packets() else {
            return Look::Ended;
        };
        if state.plaintext_bytes_to_read() > 0 {
            let mut front = [0; FAREWELL.len()];
            return match session.reader().read(&mut front) {
                Ok(n) if &front[..n] == FAREWELL => Look::Ended,
                _ => Look::Unasked,
            };
        }
        if state.peer_has_closed() {
            return Look::Ended;
        }
        match session.read_tls(&mut &*SockRef::from(stream)) {
            Ok(0) => return Look::Ended,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Look::Quiet,
            Err(_) => return Look::Ended,
        }
    }
    Look::Ended
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Tcp(s) => Pin::new(s).poll_read(cx, buffer),
            Io::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buffer),
            Io::TlsOut(s) => Pin::new(s.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Io::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, bytes),
            Io::TlsOut(s) => Pin::new(s.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Tcp(_) => Poll::Ready(Ok(())),
            Io::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
            Io::TlsOut(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Io::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
            Io::TlsOut(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}

/// A stream with bytes in front that were read from it already.
#[derive(Debug)]
pub struct Rewound {
    initial: Vec<u8>,
    at: usize,
    io: Io,
}

impl Rewound {
    pub fn new(initial: Vec<u8>, io: Io) -> Self {
        Self { initial, at: 0, io }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.initial.len() {
            let n = buffer.remaining().min(self.initial.len() - self.at);
            buffer.put_slice(&self.initial[self.at..self.at + n]);
            self.at += n;
            if self.at == self.initial.len() {
                self.initial = Vec::new();
                self.at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[derive(Debug)]
pub struct Transport {
    io: RefCell<Io>,
}

impl Transport {
    pub fn new(io: Io) -> Self {
        Self {
            io: RefCell::new(io),
        }
    }

    pub fn tcp(stream: TcpStream) -> Self {
        Self::new(Io::Tcp(stream))
    }

    pub fn into_io(self) -> Io {
        self.io.into_inner()
    }

    /// Reads what is there through `scratch` and gives it to `take`; at most `max` bytes. `Ok(0)` is the end.
    pub fn poll_read<R>(
        &self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        max: usize,
        take: impl FnOnce(&mut Context<'_>, &mut [u8]) -> R,
    ) -> Poll<io::Result<R>> {
        scratch.with(|space| {
            let max = max.min(space.len());
            let mut buffer = ReadBuf::new(&mut space[..max]);
            ready!(Pin::new(&mut *self.io.borrow_mut()).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(take(cx, buffer.filled_mut())))
        })
    }

    /// Appends what is there to `into`, at most `max` bytes. The count; 0 is the end.
    pub async fn read_into(
        &self,
        scratch: &Scratch,
        max: usize,
        into: &mut Vec<u8>,
    ) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            self.poll_read(cx, scratch, max, |_, bytes| {
                into.extend_from_slice(bytes);
                bytes.len()
            })
        })
        .await
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io.borrow_mut()).poll_write(cx, bytes)
    }

    /// Pushes out what TLS still holds; plain TCP holds nothing.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io.borrow_mut()).poll_flush(cx)
    }

    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io.borrow_mut()).poll_shutdown(cx)
    }

    /// Gives the peer up when it takes nothing of what was sent for `time`.
    pub fn limit_stall(&self, time: Duration) {
        super::limit_stall(self.io.borrow().tcp(), time);
    }

    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        std::future::poll_fn(|cx| {
            while at < bytes.len() {
                match ready!(self.poll_write(cx, &bytes[at..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => at += n,
                }
            }
            self.poll_flush(cx)
        })
        .await
    }
}

/// Output that is waiting for its socket. Bounded by its users: they ask `poll_ready` before they add to it.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Where serialisers append.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// True while all that was queued waits: nothing of it has gone out.
    pub fn is_untouched(&self) -> bool {
        self.sent == 0 && !self.bytes.is_empty()
    }

    /// Sends `bytes` after what is waiting; what the socket does not take now is kept.
    pub fn write(
        &mut self,
        cx: &mut Context<'_>,
        transport: &Transport,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut rest = bytes;
        if self.is_empty() {
            while !rest.is_empty() {
                match transport.poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(n)) => rest = &rest[n..],
                    Poll::Ready(Err(e)) => return Err(e),
                    Poll::Pending => break,
                }
            }
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }

    /// Ready when everything is with the kernel.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        transport: &Transport,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(transport.poll_write(cx, &self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.bytes.clear();
        self.sent = 0;
        // A connection that once sent a large block should not own it for ever.
        if self.bytes.capacity() > PIECE_BYTES {
            self.bytes = Vec::new();
        }
        transport.poll_flush(cx)
    }

    /// Gives the allocation back when nothing waits in it.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        debug_assert!(self.is_empty());
        self.sent = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes
    }

    pub fn with_buffer(bytes: Vec<u8>) -> Self {
        Self { bytes, sent: 0 }
    }
}
