//! The response on its way to the client: head and bodies.

use super::{Ending, Exchange, Kind, Upload};
use crate::error::Reason;
use crate::head::ResponseHead;
use crate::protocol::http::client_side::{ClientSide, ResponseBody};
use crate::protocol::http::forward::{self};
use crate::protocol::http::h1::body::Pulled;
use crate::protocol::http::h1::framing::Framing;
use crate::protocol::http::h1::parse::ParsedResponse;
use crate::protocol::http::upstream::Upstream;
use crate::upstream::{Failure, Lease, Pool};
use crate::wasm::Phase;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

impl<C: ClientSide> Exchange<'_, C> {
    pub(super) fn response_body(&self, response: &ParsedResponse) -> ResponseBody {
        match response.framing {
            Framing::None => ResponseBody::None,
            Framing::Length(n) => ResponseBody::Length(n),
            Framing::Empty => ResponseBody::Empty,
            Framing::Chunked | Framing::UntilClose => ResponseBody::Stream,
        }
    }

    pub(super) fn send_head(
        &mut self,
        mut head: ResponseHead,
        body: ResponseBody,
        tunnel: Option<&[u8]>,
    ) {
        if body != ResponseBody::None || head.status == 204 || head.status < 200 {
            head.fields.remove(b"content-length");
        }
        if !matches!(self.kind, Kind::Behind(_)) {
            forward::write_via(
                &mut head.fields,
                head.version,
                &self.service.listener.config.http.via,
            );
        }
        self.announce(head, body, tunnel);
    }

    /// The one place where a head goes to the client.
    pub(super) fn announce(
        &mut self,
        mut head: ResponseHead,
        body: ResponseBody,
        tunnel: Option<&[u8]>,
    ) {
        if head.status >= 200 && !head.fields.contains(b"date") {
            // Whoever passes a response on that has no date dates it by its arrival (RFC 9110 §6.6.1).
            let arrived = self.journal.started_at + self.journal.answered;
            let date = self.service.worker.date(arrived);
            head.fields.append(b"date", &date);
        }
        self.journal.status = head.status;
        self.journal.head_sent = true;
        if self.service.chain.wants(Phase::Log) {
            self.journal.fields = Some(head.fields.clone());
        }
        self.side.send_head(head, body, tunnel);
    }

    /// Moves both bodies to their ends. The response's end is the exchange's end.
    pub(super) async fn bodies(
        &mut self,
        upstream: &mut Upstream,
        lease: Option<&Lease>,
    ) -> Ending {
        let idle = self.service.listener.config.timeouts.stream_idle;
        let timer = self.timer;
        let Ok(first) = self.until_total(idle) else {
            return self.abort(Reason::TotalTimeout);
        };
        timer.set(first);
        let mut ended = false;
        let pumped = timer.run(std::future::poll_fn(|cx| {
            // A body that is still being sent goes on beside the response.
            let before = self.upload_progress();
            if let Poll::Ready(Err(reason)) = self.poll_upload(cx, upstream) {
                return Poll::Ready(Err(reason));
            }
            if self.upload_progress() != before {
                self.timer.set(self.until_total(idle)?);
            }
            if let Poll::Ready(done) = self.poll_download(cx, upstream, &mut ended, idle) {
                return Poll::Ready(done);
            }
            if let Poll::Ready(reason) = upstream.poll_overdue(cx) {
                return Poll::Ready(Err(reason));
            }
            // A response that pauses, such as an event stream, would not notice by writing that nobody listens.
            if self.upload == Upload::Done && self.side.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Reason::ClientGone));
            }
            Poll::Pending
        }));
        match pumped.await {
            Err(_) => {
                let reason = self.timed_out(Reason::IdleTimeout);
                if self.is_client_slow() {
                    return self.cut(reason, Ending::Abort(h2::Reason::CANCEL));
                }
                self.abort(reason)
            }
            Ok(Err(reason)) => {
                if reason == Reason::UpstreamTruncated
                    && let Some(lease) = lease
                {
                    lease.failed(Failure::Broken);
                }
                match (reason, upstream.reset_code()) {
                    (Reason::FilterReset, _) => self.cut(reason, Ending::Reset),
                    (Reason::UpstreamTruncated, Some(code)) => {
                        self.cut(reason, Ending::Abort(code))
                    }
                    _ => self.abort(reason),
                }
            }
            Ok(Ok(())) if self.upload == Upload::Done => Ending::Complete,
            Ok(Ok(())) => Ending::CompleteThenClose,
        }
    }

    /// What the client was sent waits for it to be taken.
    fn is_client_slow(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.side.poll_flush(&mut cx).is_pending()
    }

    pub(super) fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
        ended: &mut bool,
        idle: Duration,
    ) -> Poll<Result<(), Reason>> {
        loop {
            let holds = self.response_body.is_some() && self.journal.bytes_out > 0;
            if *ended || holds || upstream.must_read() {
                // What is queued goes out before more is read, so that one piece at most is held. A head whose end is known
                // waits for it, because it may be its end as well.
                match self.side.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Reason::ClientGone)),
                    Poll::Pending => {
                        upstream.ease(cx);
                        return Poll::Pending;
                    }
                }
            }
            if *ended {
                return Poll::Ready(Ok(()));
            }
            let mut gone = false;
            let pulled = if self.response_body.is_some() {
                Ok(ready!(
                    self.poll_filtered_download(cx, upstream, &mut gone, idle)
                )?)
            } else {
                let side = &mut *self.side;
                let bytes_out = &mut self.journal.bytes_out;
                ready!(
                    upstream.poll_body(cx, &self.service.worker.scratch, &mut |cx, data| {
                        *bytes_out += data.len() as u64;
                        gone |= side.send_data(cx, data).is_err();
                    })
                )
            };
            match pulled {
                Ok(_) if gone => return Poll::Ready(Err(Reason::ClientGone)),
                Ok(Pulled::Data(_)) => self.timer.set(self.until_total(idle)?),
                Ok(Pulled::End) => {
                    let trailers = self.response_trailers(upstream)?;
                    self.side.send_end(trailers);
                    *ended = true;
                }
                Err(_) => return Poll::Ready(Err(upstream.truncation())),
            }
        }
    }

    pub(super) fn keep(&self, upstream: Upstream, lease: &Lease, pool: &Arc<Pool>) {
        if upstream.has_surplus() {
            lease.endpoint.sent_unasked();
        }
        if let Some((stream, conduct, buffer)) = upstream.into_kept() {
            let worker = &self.service.worker;
            worker.give_back(buffer);
            worker.keep(&lease.endpoint, stream, conduct, pool);
        }
    }
}
