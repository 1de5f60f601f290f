//! One side's body as it arrives on an HTTP/1 connection: leftover bytes of the head's read first, then the socket.

use super::chunked::{Decoder, Step, TrailerLimits};
use super::framing::Framing;
use crate::head::Fields;
use crate::io::Scratch;
use crate::io::scratch::{PIECE_BYTES, SCRATCH_BYTES};
use crate::io::transport::Transport;
use std::io;
use std::task::{Context, Poll, ready};

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// The sender closed or the connection broke.
    Truncated(Option<io::Error>),
    /// The chunks are not well-formed.
    Malformed,
}

/// Who gets the data, with the context of the poll so that it can be passed on at once.
pub type Taker<'a> = dyn FnMut(&mut Context<'_>, &[u8]) + 'a;

/// One poll of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Pulled {
    /// So many bytes of data went to the taker.
    Data(usize),
    End,
}

/// A message body that is being received.
#[derive(Debug)]
pub struct IncomingBody {
    state: State,
    /// Bytes that were read behind the head, or behind this body when it has ended.
    leftover: Vec<u8>,
    at: usize,
    trailers: Option<Fields>,
    /// What the next read takes: it doubles while reads are filled, and falls back when the receiver is slower.
    stride: usize,
}

#[derive(Debug)]
enum State {
    Length(u64),
    Chunked(Box<Decoder>),
    UntilClose,
    Done,
}

impl IncomingBody {
    pub fn new(framing: Framing, leftover: Vec<u8>, limits: TrailerLimits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) | Framing::Empty => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Chunked(Box::new(Decoder::new(limits))),
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            leftover,
            at: 0,
            trailers: None,
            stride: PIECE_BYTES,
        }
    }

    /// No body at all.
    pub fn empty() -> Self {
        Self {
            state: State::Done,
            leftover: Vec::new(),
            at: 0,
            trailers: None,
            stride: PIECE_BYTES,
        }
    }

    /// The receiver did not take the last piece at once: the next one is small again.
    pub fn ease(&mut self) {
        self.stride = PIECE_BYTES;
    }

    /// Turns what follows into bytes until the end of the connection, after an upgrade.
    pub fn become_tunnel(&mut self) {
        self.state = State::UntilClose;
    }

    /// Reads ahead while the body is done, to notice that the sender left: true when it did. At most one read is kept.
    pub fn poll_gone(
        &mut self,
        cx: &mut Context<'_>,
        transport: &Transport,
        scratch: &Scratch,
    ) -> Poll<()> {
        if !self.is_done() || self.has_rest() {
            return Poll::Pending;
        }
        let leftover = &mut self.leftover;
        match ready!(transport.poll_read(cx, scratch, 4096, |_, bytes| {
            leftover.extend_from_slice(bytes);
            bytes.len()
        })) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// It broke off because its trailers are over the limits.
    pub fn is_over(&self) -> bool {
        matches!(&self.state, State::Chunked(decoder) if decoder.is_over())
    }

    /// The end of the connection is the end of the body.
    pub fn is_until_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The trailer section of a chunked body that has ended.
    pub fn trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    /// What was read beyond the end of this body: the start of the next message.
    pub fn into_rest(mut self) -> Vec<u8> {
        if self.at > 0 {
            self.leftover.drain(..self.at);
        }
        self.leftover
    }

    /// What was read beyond the end of this body.
    pub fn rest(&self) -> &[u8] {
        &self.leftover[self.at..]
    }

    pub fn has_rest(&self) -> bool {
        self.at < self.leftover.len()
    }

    /// The next piece of data, given to `take`; at most what one read brings.
    pub fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        transport: &Transport,
        scratch: &Scratch,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        loop {
            if matches!(self.state, State::Done) {
                return Poll::Ready(Ok(Pulled::End));
            }
            if self.at < self.leftover.len() {
                let (state, trailers) = (&mut self.state, &mut self.trailers);
                let (consumed, data) = eat(state, trailers, &self.leftover[self.at..], cx, take)?;
                self.at += consumed;
                if self.at == self.leftover.len() {
                    self.leftover.clear();
                    self.at = 0;
                }
                if data > 0 {
                    return Poll::Ready(Ok(Pulled::Data(data)));
                }
                continue;
            }
            let max = match self.state {
                State::Length(n) => n.min(self.stride as u64) as usize,
                _ => self.stride,
            };
            let (state, trailers, leftover) =
                (&mut self.state, &mut self.trailers, &mut self.leftover);
            let stride = &mut self.stride;
            let read = ready!(transport.poll_read(cx, scratch, max, |cx, bytes| {
                if bytes.len() == *stride {
                    *stride = (*stride * 2).min(SCRATCH_BYTES);
                }
                if bytes.is_empty() {
                    return Ok((true, 0));
                }
                let (consumed, data) = eat(state, trailers, bytes, cx, take)?;
                leftover.extend_from_slice(&bytes[consumed..]);
                Ok((false, data))
            }));
            match read {
                Ok(Ok((true, _))) if matches!(self.state, State::UntilClose) => {
                    self.state = State::Done
                }
                Ok(Ok((true, _))) => return Poll::Ready(Err(BodyError::Truncated(None))),
                Ok(Ok((false, 0))) => {}
                Ok(Ok((false, data))) => return Poll::Ready(Ok(Pulled::Data(data))),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(e) => return Poll::Ready(Err(BodyError::Truncated(Some(e)))),
            }
        }
    }
}

/// Takes body bytes off the front of `input`: (bytes consumed, bytes of data among them).
fn eat(
    state: &mut State,
    trailers: &mut Option<Fields>,
    input: &[u8],
    cx: &mut Context<'_>,
    take: &mut Taker<'_>,
) -> Result<(usize, usize), BodyError> {
    match state {
        State::Done => Ok((0, 0)),
        State::UntilClose => {
            take(cx, input);
            Ok((input.len(), input.len()))
        }
        State::Length(left) => {
            let n = (*left).min(input.len() as u64) as usize;
            take(cx, &input[..n]);
            *left -= n as u64;
            if *left == 0 {
                *state = State::Done;
            }
            Ok((n, n))
        }
        State::Chunked(decoder) => {
            let (mut at, mut data) = (0, 0);
            loop {
                match decoder
                    .decode(&input[at..])
                    .map_err(|_| BodyError::Malformed)?
                {
                    Step::Data { range, consumed } => {
                        take(cx, &input[at + range.start..at + range.end]);
                        data += range.len();
                        at += consumed;
                    }
                    Step::More => return Ok((input.len(), data)),
                    Step::End { consumed } => {
                        let fields = decoder.take_trailers();
                        *trailers = (!fields.is_empty()).then_some(fields);
                        *state = State::Done;
                        return Ok((at + consumed, data));
                    }
                }
            }
        }
    }
}
