//! The request body on its way up, and what of it is kept for another try.

use super::{Exchange, Upload};
use crate::error::Reason;
use crate::protocol::http::client_side::ClientSide;
use crate::protocol::http::h1::body::{BodyError, Pulled};
use crate::protocol::http::upstream::Upstream;
use std::task::{Context, Poll, ready};

impl<C: ClientSide> Exchange<'_, C> {
    /// Sets the upload back to its beginning; `replay` holds what the client has sent already.
    pub(super) fn rewind(&mut self) {
        if self.is_upload_untouched() {
            self.replay = None;
        }
        self.upload = Upload::Running;
    }

    /// What was sent to an earlier endpoint, sent again.
    pub(super) fn send_replay(
        &mut self,
        upstream: &mut Upstream,
        replay: Vec<u8>,
    ) -> Result<(), Reason> {
        if !replay.is_empty() {
            upstream.queue_data(&replay);
        }
        self.replay = Some(replay);
        if self.is_upload_drained() {
            self.end_upload(upstream)?;
        }
        Ok(())
    }

    /// Queues the end of the request body with its trailers, which are kept for another try.
    fn end_upload(&mut self, upstream: &mut Upstream) -> Result<(), Reason> {
        if let Some(trailers) = self.request_trailers()? {
            self.trailers = Some(trailers);
        }
        upstream.send_end(self.trailers.as_ref());
        self.upload = Upload::Flushing;
        Ok(())
    }

    /// Moves the request body towards the upstream. `Err` is the client's fault or a filter's and ends the exchange.
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
            if !self.journal.head_sent {
                // An interim 100 that waits for its client must be out before the client can be expected to send.
                let _ = self.side.poll_flush(cx);
            }
            let mut refused = false;
            if self.request_body.is_some() {
                match ready!(self.poll_filtered_upload(cx, upstream, &mut refused))? {
                    _ if refused => self.upload = Upload::Refused,
                    Pulled::Data(_) => {}
                    Pulled::End => self.end_upload(upstream)?,
                }
                continue;
            }
            let (replay, bytes_in) = (&mut self.replay, &mut self.journal.bytes_in);
            let replay_max = self.service.listener.config.limits.replay_bytes;
            let pulled = ready!(self.side.poll_body(cx, &mut |cx, data| {
                *bytes_in += data.len() as u64;
                keep(replay, replay_max, data);
                refused |= upstream.send_data(cx, data).is_err();
            }));
            match pulled {
                Ok(_) if refused => self.upload = Upload::Refused,
                Ok(Pulled::Data(_)) => {}
                Ok(Pulled::End) => self.end_upload(upstream)?,
                Err(BodyError::Truncated(_)) => return Poll::Ready(Err(Reason::ClientGone)),
                Err(BodyError::Malformed) => return Poll::Ready(Err(Reason::BadRequest)),
            }
        }
    }
}

/// Keeps what is sent for another try, as long as all of it is not more than `max` bytes.
pub(super) fn keep(replay: &mut Option<Vec<u8>>, max: usize, data: &[u8]) {
    if replay.as_ref().is_some_and(|r| r.len() + data.len() > max) {
        *replay = None;
    }
    if let Some(replay) = replay {
        replay.extend_from_slice(data);
    }
}
