//! Requests that the h2 crate ends before anybody sees them: malformed ones, whose streams it resets, and heads larger than
//! was announced, which it answers with 431. The frames on the wire show both, so that they get a record like any other.

use super::frames::{Frame, HEADERS, RST_STREAM};
use crate::error::Reason;
use std::collections::VecDeque;

/// Streams that are looked after at one time; those beyond leave no record.
const WAITING_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Unaccepted {
    /// The highest stream that the client has opened.
    last: u32,
    /// Streams whose head has begun to come, in the order of their numbers.
    waiting: VecDeque<u32>,
    refused: Vec<(u32, Reason)>,
}

impl Unaccepted {
    /// The client has sent the beginning of a head.
    pub(super) fn requested(&mut self, stream: u32) {
        // Trailers belong to a stream that is known.
        if stream > self.last {
            self.last = stream;
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push_back(stream);
            }
        }
    }

    /// The crate has handed the request over: its exchange writes the record.
    pub(super) fn accepted(&mut self, stream: u32) {
        if let Some(at) = self.waiting.iter().position(|&waits| waits == stream) {
            self.waiting.remove(at);
        } else {
            self.refused.retain(|&(refused, _)| refused != stream);
        }
    }

    /// A frame goes out to the client.
    pub(super) fn sent(&mut self, frame: Frame) {
        if self.waiting.is_empty() || !matches!(frame.kind, HEADERS | RST_STREAM) {
            return;
        }
        let Some(at) = self.waiting.iter().position(|&w| w == frame.stream) else {
            return;
        };
        self.waiting.remove(at);
        let reason = match (frame.kind, frame.code.map(h2::Reason::from)) {
            (HEADERS, _) => Reason::HeadersTooLarge,
            (_, Some(h2::Reason::PROTOCOL_ERROR)) => Reason::BadRequest,
            // A stream beyond `limits.streams` may be opened again.
            _ => return,
        };
        self.refused.push((frame.stream, reason));
    }

    /// Why requests were refused since the last call. To be asked when everything that was read has been accepted.
    pub(super) fn take_refused(&mut self) -> Vec<(u32, Reason)> {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: u8 = RST_STREAM;

    fn frame(kind: u8, stream: u32, code: Option<u32>) -> Frame {
        Frame {
            kind,
            len: 4,
            stream,
            code,
        }
    }

    fn reasons(unaccepted: &mut Unaccepted) -> Vec<(u32, Reason)> {
        unaccepted.take_refused()
    }

    #[test]
    fn only_what_was_never_handed_over_is_refused() {
        let mut streams = Unaccepted::default();
        for stream in [1, 3, 5, 7] {
            streams.requested(stream);
        }
        streams.accepted(1);
        streams.sent(frame(HEADERS, 1, None));
        streams.sent(frame(RESET, 3, Some(1)));
        streams.sent(frame(HEADERS, 5, None));
        streams.sent(frame(RESET, 5, Some(1)));
        streams.sent(frame(RESET, 7, Some(7)));
        let expected = [(3, Reason::BadRequest), (5, Reason::HeadersTooLarge)];
        assert_eq!(reasons(&mut streams), expected);
        assert!(reasons(&mut streams).is_empty());
    }

    #[test]
    fn trailers_open_no_stream() {
        let mut streams = Unaccepted::default();
        streams.requested(1);
        streams.accepted(1);
        streams.requested(1);
        streams.sent(frame(RESET, 1, Some(1)));
        assert!(reasons(&mut streams).is_empty());
    }

    /// Its body broke the protocol in the same breath.
    #[test]
    fn a_reset_before_the_request_is_handed_over_is_the_exchanges() {
        let mut streams = Unaccepted::default();
        streams.requested(1);
        streams.sent(frame(RESET, 1, Some(1)));
        streams.accepted(1);
        assert!(reasons(&mut streams).is_empty());
    }

    #[test]
    fn streams_beyond_the_bound_are_let_go() {
        let mut streams = Unaccepted::default();
        for n in 0..WAITING_MAX as u32 + 10 {
            streams.requested(2 * n + 1);
        }
        assert_eq!(streams.waiting.len(), WAITING_MAX);
    }
}
