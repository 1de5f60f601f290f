//! The relay of a TCP session: bytes both ways between a client and an endpoint until both have ended.
//!
//! One task, no buffer of its own while idle. A message costs one receive and one send: a short read or write tells
//! that the socket is drained or full, so no call is made to hear `EAGAIN`. A direction that moves bulk data is
//! spliced in the kernel for as long as it does.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pieces::{Pieces, Taken, Way};
use crate::io::scratch::PIECE_BYTES;
use crate::io::{Io, Pipe, Pipes, Scratch, Timer, limit_stall, reset_on_close};

/// Bytes one direction moves before other tasks of the worker get their turn.
const TURN_BYTES: usize = 1 << 20;
/// A spliced piece shorter than this ends splicing: reading and writing is as cheap, and a short read spares a call.
const SPLICE_WORTH_BYTES: usize = 16 * 1024;

/// What a relay needs besides its two sockets; one per session, its parts shared by the worker.
#[derive(Debug)]
pub struct RelayOptions<'a> {
    pub scratch: &'a Scratch,
    /// None: never splice.
    pub pipes: Option<&'a Pipes>,
    /// Ends a session without a byte in either direction for this long.
    pub idle: Duration,
    /// The same once one side has ended its stream: without a byte in the direction that is still open. A sink that takes
    /// bytes slowly counts as silent only when the kernel finds that it takes none.
    pub half_closed: Duration,
    /// The session's timer; its deadline is moved with every byte.
    pub timer: &'a Timer,
    /// Counts while the relay runs, and stays true when the relay is dropped at a drain deadline.
    pub tally: &'a Tally,
    /// What pieces of the stream are put through, in the directions that it takes.
    pub pieces: Option<&'a dyn Pieces>,
}

/// Bytes a session has delivered so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// From the client to the endpoint.
    pub up: Cell<u64>,
    /// From the endpoint to the client.
    pub down: Cell<u64>,
}

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayEnd {
    /// Both sides ended their stream and everything was delivered.
    Finished,
    /// The client broke its connection; the endpoint's is set to reset on close.
    ClientReset,
    /// The endpoint broke its connection; the client's is set to reset on close.
    UpstreamReset,
    /// Nothing moved for the idle time, or for that of a session that is half closed.
    Idle,
    /// A piece was refused; the endpoint's connection is set to reset on close.
    Refused,
}

/// One side of a session: a socket, or TLS over one.
pub trait Side: AsyncRead + AsyncWrite + Unpin {
    /// The socket underneath.
    fn socket(&self) -> &TcpStream;

    /// Whether the bytes on the socket are the session's own, so that the kernel may move them.
    fn is_plain(&self) -> bool;
}

impl Side for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn is_plain(&self) -> bool {
        true
    }
}

impl Side for Io {
    fn socket(&self) -> &TcpStream {
        self.tcp()
    }

    fn is_plain(&self) -> bool {
        matches!(self, Io::Tcp(_))
    }
}

/// Relays until both directions have ended, one side breaks, or the session is idle for too long. `initial` are bytes
/// that were read from the client before; the endpoint gets them first.
///
/// The end of one direction is passed on as the end of the other side's stream (half-close) and the other direction
/// goes on. A broken side's last bytes are delivered, then the other side is set to be reset when the caller drops it.
pub async fn relay<C: Side, U: Side>(
    client: &mut C,
    upstream: &mut U,
    initial: &[u8],
    options: &RelayOptions<'_>,
) -> RelayEnd {
    let mut up = Direction::new(Way::Up, &options.tally.up, initial, options);
    let mut down = Direction::new(Way::Down, &options.tally.down, &[], options);
    options.timer.set(options.idle);
    let half_closed = options.half_closed.min(options.idle);
    let mut before = (0, false, false);
    let mut is_limited = false;
    // Since something moved last.
    let mut was_held_back = false;
    let both = poll_fn(|cx| {
        let up_end = up.poll(cx, client, upstream, options);
        let down_end = down.poll(cx, upstream, client, options);
        let moved = up.moved.get().wrapping_add(down.moved.get());
        let is_half = up.has_source_ended() || down.has_source_ended();
        // A socket takes much at a time and then nothing for long: only the kernel knows whether its peer goes on taking.
        let is_held_back = is_half && (up.is_held_back() || down.is_held_back());
        if is_held_back && !is_limited {
            is_limited = true;
            limit_stall(client.socket(), half_closed);
            limit_stall(upstream.socket(), half_closed);
        }
        was_held_back |= is_held_back;
        if moved != before.0 {
            was_held_back = is_held_back;
        }
        let now = (moved, is_half, is_held_back);
        if now != before {
            before = now;
            options.timer.set(match is_half && !is_held_back {
                true => half_closed,
                false => options.idle,
            });
        }
        // A source that broke can take nothing either, so the other direction is over with it. A sink that broke may
        // have left bytes to read, so the other direction goes on to its end.
        match (up_end, down_end) {
            // The kernel gave up a peer that took nothing for the time it was told.
            (Poll::Ready(end), _) | (_, Poll::Ready(end)) if was_held_back && end.is_timeout() => {
                Poll::Ready(RelayEnd::Idle)
            }
            (Poll::Ready(End::Refused), _) | (_, Poll::Ready(End::Refused)) => {
                Poll::Ready(RelayEnd::Refused)
            }
            (Poll::Ready(End::SourceBroke(_)), _) => Poll::Ready(RelayEnd::ClientReset),
            (_, Poll::Ready(End::SourceBroke(_))) => Poll::Ready(RelayEnd::UpstreamReset),
            (Poll::Ready(End::SinkBroke(_)), Poll::Ready(_)) => {
                Poll::Ready(RelayEnd::UpstreamReset)
            }
            (Poll::Ready(_), Poll::Ready(End::SinkBroke(_))) => Poll::Ready(RelayEnd::ClientReset),
            (Poll::Ready(End::Finished), Poll::Ready(End::Finished)) => {
                Poll::Ready(RelayEnd::Finished)
            }
            _ => Poll::Pending,
        }
    });
    let end = options.timer.run(both).await.unwrap_or(RelayEnd::Idle);
    match end {
        RelayEnd::ClientReset | RelayEnd::Refused => reset_on_close(upstream.socket()),
        RelayEnd::UpstreamReset => reset_on_close(client.socket()),
        RelayEnd::Finished | RelayEnd::Idle => {}
    }
    end
}

/// How one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The source's end was passed on to the sink.
    Finished,
    SourceBroke(io::ErrorKind),
    SinkBroke(io::ErrorKind),
    /// A piece was refused.
    Refused,
}

impl End {
    fn is_timeout(self) -> bool {
        matches!(self, End::SourceBroke(kind) | End::SinkBroke(kind) if kind == io::ErrorKind::TimedOut)
    }
}

/// The bytes from one side to the other.
struct Direction<'a> {
    way: Way,
    /// Everything goes through it, and nothing is spliced.
    pieces: Option<&'a dyn Pieces>,
    /// What was read before the relay began and no filter has seen.
    unseen: Vec<u8>,
    /// The last piece was put through.
    closed: bool,
    moved: &'a Cell<u64>,
    /// What the sink has not taken yet. Nothing is read before it has, so this never exceeds the scratch buffer, or what
    /// one call of a filter may answer.
    leftover: Vec<u8>,
    /// Where in `leftover` the sink is.
    taken: usize,
    /// Lent while splicing and bytes flow.
    pipe: Option<Pipe>,
    /// The source had more than one read could take.
    bulk: bool,
    /// The kernel refused to splice these sockets.
    unspliceable: bool,
    /// Written to a sink that buffers, since its last flush.
    unflushed: bool,
    /// The source ended or broke; what is left is to deliver what it had sent and to say so to the sink.
    source_end: Option<End>,
    end: Option<End>,
}

impl<'a> Direction<'a> {
    fn new(way: Way, moved: &'a Cell<u64>, initial: &[u8], options: &RelayOptions<'a>) -> Self {
        let pieces = options.pieces.filter(|pieces| pieces.takes(way));
        let (unseen, leftover) = match pieces {
            Some(_) => (initial.to_vec(), Vec::new()),
            None => (Vec::new(), initial.to_vec()),
        };
        Self {
            way,
            pieces,
            unseen,
            closed: false,
            moved,
            leftover,
            taken: 0,
            pipe: None,
            bulk: false,
            unspliceable: false,
            unflushed: false,
            source_end: None,
            end: None,
        }
    }

    /// Moves what can be moved now. Ready, and ready ever after, once the direction has ended.
    fn poll<S: Side, K: Side>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut K,
        options: &RelayOptions<'_>,
    ) -> Poll<End> {
        if let Some(end) = self.end {
            return Poll::Ready(end);
        }
        let end = match ready!(self.poll_turn(cx, source, sink, options)) {
            Ok(()) => End::Finished,
            Err(broken) => broken,
        };
        self.pipe = None;
        self.leftover = Vec::new();
        self.end = Some(end);
        Poll::Ready(end)
    }

    fn poll_turn<S: Side, K: Side>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut K,
        options: &RelayOptions<'_>,
    ) -> Poll<Result<(), End>> {
        let turn_start = self.moved.get();
        loop {
            ready!(self.poll_deliver(cx, sink))?;
            if let Some(pieces) = self.pieces {
                self.put_through(pieces)?;
                if self.holds_bytes() {
                    continue;
                }
            }
            if let Some(end) = self.source_end {
                // A shutdown flushes first.
                let shut = match end {
                    End::Finished => ready!(Pin::new(&mut *sink).poll_shutdown(cx)),
                    broken => return Poll::Ready(Err(broken)),
                };
                return Poll::Ready(shut.map_err(sink_broke));
            }
            if self.moved.get() - turn_start >= TURN_BYTES as u64 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let splicing = self.bulk && !self.unspliceable && self.pieces.is_none();
            let read = match options.pipes {
                Some(pipes) if splicing && source.is_plain() && sink.is_plain() => {
                    self.poll_splice(cx, source.socket(), pipes)
                }
                _ => self.poll_copy(cx, source, sink, options.scratch),
            };
            if read.is_pending() {
                // Nothing more for now: an idle direction holds no pipe and leaves no byte behind in a TLS buffer.
                self.pipe = None;
                if self.unflushed && !self.holds_bytes() {
                    let flushed = ready!(Pin::new(&mut *sink).poll_flush(cx));
                    flushed.map_err(sink_broke)?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
            ready!(read)?;
        }
    }

    fn has_source_ended(&self) -> bool {
        self.source_end.is_some() || self.end.is_some()
    }

    /// Whether it is the sink that has to do something next.
    fn is_held_back(&self) -> bool {
        self.end.is_none() && (self.source_end.is_some() || self.unflushed || self.holds_bytes())
    }

    fn holds_bytes(&self) -> bool {
        self.taken < self.leftover.len() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    /// Ready once the sink has taken all that was read.
    fn poll_deliver<K: Side>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut K,
    ) -> Poll<Result<(), End>> {
        while let Some(rest) = self
            .leftover
            .get(self.taken..)
            .filter(|rest| !rest.is_empty())
        {
            let taken = ready!(poll_write(cx, sink, rest))?;
            self.taken += taken;
            self.count(taken, sink);
        }
        if !self.leftover.is_empty() {
            self.leftover = Vec::new();
            self.taken = 0;
        }
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) {
            let socket = sink.socket();
            ready!(socket.poll_write_ready(cx)).map_err(sink_broke)?;
            match socket.try_io(Interest::WRITABLE, || pipe.empty(socket)) {
                Ok(0) => return Poll::Ready(Err(End::SinkBroke(io::ErrorKind::WriteZero))),
                Ok(taken) => self.count(taken, sink),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(sink_broke(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Fills the pipe from the source, whose readiness is only cleared by a call that finds nothing: a short piece may
    /// also mean that the pipe's slots were used up.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        pipes: &Pipes,
    ) -> Poll<Result<(), End>> {
        loop {
            ready!(source.poll_read_ready(cx)).map_err(|error| End::SourceBroke(error.kind()))?;
            let Some(pipe) = self.pipe.take().or_else(|| pipes.take()) else {
                self.bulk = false;
                return Poll::Ready(Ok(()));
            };
            let pipe = self.pipe.insert(pipe);
            match source.try_io(Interest::READABLE, || pipe.fill(source)) {
                Ok(0) => self.source_end = Some(End::Finished),
                Ok(read) => self.bulk = read >= SPLICE_WORTH_BYTES,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.unspliceable = true;
                }
                Err(error) => return Poll::Ready(Err(End::SourceBroke(error.kind()))),
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Gives filters what they have not seen: bytes from before the relay, and the end of a stream that ended well.
    fn put_through(&mut self, pieces: &dyn Pieces) -> Result<(), End> {
        let last = self.source_end == Some(End::Finished);
        let unseen = std::mem::take(&mut self.unseen);
        if self.closed || unseen.is_empty() && !last {
            return Ok(());
        }
        self.closed = last;
        match pieces.put(self.way, &unseen, last, &mut self.leftover) {
            Taken::AsItIs => self.leftover.extend_from_slice(&unseen),
            Taken::Replaced => {}
            Taken::Refused => return Err(End::Refused),
        }
        Ok(())
    }

    /// Reads into the scratch buffer and writes at once; what the sink does not take is kept aside.
    fn poll_copy<S: Side, K: Side>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut K,
        scratch: &Scratch,
    ) -> Poll<Result<(), End>> {
        scratch.with(|bytes| {
            // A read that fills this much is bulk, which is better spliced; and filters are shown no larger pieces.
            let size = bytes.len().min(PIECE_BYTES);
            let mut buffer = ReadBuf::new(&mut bytes[..size]);
            self.source_end = ready!(poll_read(cx, source, &mut buffer));
            self.bulk = buffer.remaining() == 0;
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(pieces) = self.pieces {
                let last = self.source_end == Some(End::Finished);
                self.closed = last;
                match pieces.put(self.way, read, last, &mut self.leftover) {
                    Taken::AsItIs => {}
                    // The next turn of the loop delivers it.
                    Taken::Replaced => return Poll::Ready(Ok(())),
                    Taken::Refused => return Poll::Ready(Err(End::Refused)),
                }
            }
            let taken = match poll_write(cx, sink, read) {
                Poll::Ready(result) => result?,
                Poll::Pending => 0,
            };
            self.count(taken, sink);
            self.leftover.extend_from_slice(&read[taken..]);
            Poll::Ready(Ok(()))
        })
    }

    fn count<K: Side>(&mut self, taken: usize, sink: &K) {
        self.moved.set(self.moved.get() + taken as u64);
        self.unflushed = !sink.is_plain();
    }
}

/// Reads once from a socket, and as many TLS records as there are and fit. Says how the source ended, if it has.
fn poll_read<S: Side>(
    cx: &mut Context<'_>,
    source: &mut S,
    buffer: &mut ReadBuf<'_>,
) -> Poll<Option<End>> {
    loop {
        let before = buffer.filled().len();
        match Pin::new(&mut *source).poll_read(cx, buffer) {
            Poll::Pending if before == 0 => return Poll::Pending,
            Poll::Pending => return Poll::Ready(None),
            // TLS without a close_notify: many clients end like that.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(Some(End::Finished));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Some(End::SourceBroke(error.kind()))),
            Poll::Ready(Ok(())) if buffer.filled().len() == before => {
                return Poll::Ready(Some(End::Finished));
            }
            Poll::Ready(Ok(())) if source.is_plain() || buffer.remaining() == 0 => {
                return Poll::Ready(None);
            }
            Poll::Ready(Ok(())) => {}
        }
    }
}

fn poll_write<K: Side>(
    cx: &mut Context<'_>,
    sink: &mut K,
    bytes: &[u8],
) -> Poll<Result<usize, End>> {
    match ready!(Pin::new(sink).poll_write(cx, bytes)) {
        // Never more than was offered, whatever a stream says.
        Ok(taken) if taken > 0 => Poll::Ready(Ok(taken.min(bytes.len()))),
        Ok(_) => Poll::Ready(Err(End::SinkBroke(io::ErrorKind::WriteZero))),
        Err(error) => Poll::Ready(Err(sink_broke(error))),
    }
}

fn sink_broke(error: io::Error) -> End {
    End::SinkBroke(error.kind())
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
