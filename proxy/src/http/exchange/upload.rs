//! The request body on its way up, and what of it is kept for another try.

use super::{Exchange, Upload};
use crate::error::Reason;
use crate::http::client_side::ClientSide;
use crate::http::forward::{self};
use crate::http::h1::body::{BodyError, Pulled};
use crate::http::upstream::Upstream;
use std::task::{Context, Poll, ready};

impl<C: ClientSide> Exchange<'_, C> {
    /// Sets the upload back to its beginning; `replay` holds what the client has sent already.
    pub(super) fn rewind(&mut self) {
        if self.journal.bytes_in == 0 {
            self.replay = None;
        }
        self.upload = Upload::Running;
    }

    /// What was sent to an earlier endpoint, sent again.
    pub(super) fn send_replay(&mut self, upstream: &mut Upstream, replay: Vec<u8>) {
        if !replay.is_empty() {
            upstream.queue_data(&replay);
        }
        self.replay = Some(replay);
        if self.side.body_done() {
            self.end_upload(upstream);
        }
    }

    /// Queues the end of the request body with its trailers, which are kept for another try.
    fn end_upload(&mut self, upstream: &mut Upstream) {
        if let Some(mut trailers) = self.side.body_trailers() {
            forward::strip_trailers(&mut trailers, &self.hop);
            self.trailers = Some(trailers);
        }
        upstream.send_end(self.trailers.as_ref());
        self.upload = Upload::Flushing;
    }

    /// Moves the request body towards the upstream. `Err` is the client's fault and ends the exchange.
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
    ) -> Poll<Result<(), Reason>> {
        loop {
            if matches!(self.upload, Upload::Done | Upload::Refused) {
                return Poll::Ready(Ok(()));
            }
            match upstream.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.upload = Upload::Refused;
                    continue;
                }
                Poll::Pending => {
                    self.side.ease_body();
                    return Poll::Pending;
                }
            }
            if self.upload == Upload::Flushing {
                self.upload = Upload::Done;
                continue;
            }
            // An interim 100 that waits for its client must be out before the client can be expected to send.
            let _ = self.side.poll_flush(cx);
            let (replay, bytes_in) = (&mut self.replay, &mut self.journal.bytes_in);
            let replay_max = self.service.listener.config.limits.replay_bytes;
            let mut refused = false;
            let pulled = ready!(self.side.poll_body(cx, &mut |cx, data| {
                *bytes_in += data.len() as u64;
                if replay
                    .as_ref()
                    .is_some_and(|r| r.len() + data.len() > replay_max)
                {
                    *replay = None;
                }
                if let Some(replay) = replay {
                    replay.extend_from_slice(data);
                }
                refused |= upstream.send_data(cx, data).is_err();
            }));
            match pulled {
                Ok(_) if refused => self.upload = Upload::Refused,
                Ok(Pulled::Data(_)) => {}
                Ok(Pulled::End) => self.end_upload(upstream),
                Err(BodyError::Truncated(_)) => return Poll::Ready(Err(Reason::ClientGone)),
                Err(BodyError::Malformed) => return Poll::Ready(Err(Reason::BadRequest)),
            }
        }
    }
}
