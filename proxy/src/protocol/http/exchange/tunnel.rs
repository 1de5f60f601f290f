//! After a 101: the protocol that was switched to, bytes both ways.

use super::{Ending, Exchange, Upload};
use crate::chain::Reply;
use crate::error::Reason;
use crate::head::{ResponseHead, Version};
use crate::protocol::http::client_side::{ClientSide, ResponseBody};
use crate::protocol::http::forward;
use crate::protocol::http::upstream::Upstream;
use crate::protocol::http::websocket;
use crate::upstream::{Failure, Lease};
use std::task::Poll;

impl<C: ClientSide> Exchange<'_, C> {
    /// A protocol was switched to: bytes both ways until both ends are done, one is silent too long, or a drain ends it.
    pub(super) async fn tunnel(
        &mut self,
        mut upstream: Upstream,
        mut head: ResponseHead,
        lease: Option<&Lease>,
    ) -> Ending {
        let answered = forward::strip_hop_by_hop(&mut head.fields).upgrade;
        if !self.has_offered(&answered) || !self.has_accepted(&head) {
            if let Some(lease) = lease {
                lease.failed(Failure::Broken);
            }
            return self.fail(Reason::UpstreamMalformed).await;
        }
        // Nobody speaks the new protocol before the request is there as a whole (RFC 9110 §7.8).
        if let Err(reason) = self.upload_rest(&mut upstream).await {
            return self.give_up(reason).await;
        }
        if let Some(ending) = self.response_filtered(&mut head).await {
            return ending;
        }
        if head.status != 101 {
            // A filter made another answer of it: the protocol stays, and what the upstream would say is not heard.
            let refusal = Reply {
                status: head.status,
                fields: head.fields,
                ..Reply::default()
            };
            return self.reply(refusal, None).await;
        }
        self.journal.upgraded = true;
        if self.opens_websocket() {
            head.status = 200;
            head.fields.remove(b"sec-websocket-accept");
        }
        let protocols = answered.join(&b", "[..]);
        self.send_head(head, ResponseBody::Tunnel, Some(&protocols));
        upstream.become_tunnel();
        self.request_body = None;
        self.upload = Upload::Running;
        self.replay = None;
        match self.through_tunnel(upstream).await {
            Ok(()) => return Ending::Complete,
            Err(Reason::UpstreamTruncated | Reason::ClientGone) => self.journal.reason = None,
            Err(reason) => self.journal.reason = Some(reason),
        }
        Ending::Abort(h2::Reason::CANCEL)
    }

    /// Whether an endpoint switched to what it was asked for: one protocol, or several of which one lies over the next.
    fn has_offered(&self, answered: &[Vec<u8>]) -> bool {
        let Some(offered) = self.wanted_upgrade() else {
            return false;
        };
        let is_offered = |protocol: &Vec<u8>| {
            let mut offered = offered.split(|&b| b == b',').map(<[u8]>::trim_ascii);
            offered.any(|offered| offered.eq_ignore_ascii_case(protocol))
        };
        !answered.is_empty() && answered.iter().all(is_offered)
    }

    /// Whether the client opened its WebSocket on a stream of HTTP/2 (RFC 8441).
    pub(super) fn opens_websocket(&self) -> bool {
        self.head.version == Version::Http2 && !self.hop.upgrade.is_empty()
    }

    /// Whether the endpoint answered the key that the proxy wrote for such a client.
    fn has_accepted(&self, head: &ResponseHead) -> bool {
        let key = self.head.fields.get(b"sec-websocket-key");
        !self.opens_websocket()
            || head.fields.get(b"sec-websocket-accept")
                == key.map(websocket::accept).as_deref().map(str::as_bytes)
    }

    /// Moves what is left of the request's body, which most often is nothing.
    async fn upload_rest(&mut self, upstream: &mut Upstream) -> Result<(), Reason> {
        if self.upload == Upload::Done {
            return Ok(());
        }
        let idle = self.service.listener.config.timeouts.body_idle;
        self.timer.set(self.until_total(idle)?);
        let timer = self.timer;
        let uploaded = timer.run(std::future::poll_fn(|cx| {
            let before = self.upload_progress();
            let uploaded = self.poll_upload(cx, upstream);
            if self.upload_progress() != before {
                self.timer.set(self.until_total(idle)?);
            }
            uploaded
        }));
        match uploaded.await {
            Ok(uploaded) => uploaded?,
            Err(_) if upstream.has_output() => return Err(self.timed_out(Reason::IdleTimeout)),
            Err(_) => return Err(self.timed_out(Reason::RequestBodyTimeout)),
        }
        match self.upload {
            Upload::Refused => Err(Reason::UpstreamReset),
            _ => Ok(()),
        }
    }

    async fn through_tunnel(&mut self, mut upstream: Upstream) -> Result<(), Reason> {
        let timeouts = &self.service.listener.config.timeouts;
        let idle = timeouts.stream_idle;
        let half_closed = timeouts.half_closed.min(idle);
        self.timer.set(idle);
        let (timer, service) = (self.timer, self.service);
        let (mut ended, mut up_closed, mut down_closed) = (false, false, false);
        let mut before = (0, 0, false, false);
        let mut is_limited = false;
        let mut drain = service.worker.drain_window();
        let tunnelled = timer.run(std::future::poll_fn(|cx| {
            let up = self.poll_upload(cx, &mut upstream);
            if let Poll::Ready(Err(reason)) = up {
                return Poll::Ready(Err(reason));
            }
            if up.is_ready() && !up_closed {
                up_closed = upstream.poll_shutdown(cx).is_ready();
            }
            if !down_closed {
                match self.poll_download(cx, &mut upstream, &mut ended, idle) {
                    Poll::Ready(Ok(())) => down_closed = self.side.poll_shutdown(cx).is_ready(),
                    Poll::Ready(Err(reason)) => return Poll::Ready(Err(reason)),
                    Poll::Pending => {}
                }
            }
            if up_closed && down_closed {
                return Poll::Ready(Ok(()));
            }
            let is_half = ended || self.upload != Upload::Running;
            // A socket takes much at a time and then nothing for long: only the kernel knows whether its peer goes on
            // taking.
            let is_held_back =
                is_half && (upstream.has_output() || self.side.poll_flush(cx).is_pending());
            if is_held_back && !is_limited {
                is_limited = true;
                self.side.limit_stall(half_closed);
                upstream.limit_stall(half_closed);
            }
            let journal = &self.journal;
            let now = (journal.bytes_in, journal.bytes_out, is_half, is_held_back);
            if now != before {
                before = now;
                self.timer.set(match is_half && !is_held_back {
                    true => half_closed,
                    false => idle,
                });
            }
            match drain.poll_cut(cx) {
                Poll::Ready(()) => Poll::Ready(Err(Reason::Drained)),
                Poll::Pending => Poll::Pending,
            }
        }));
        tunnelled.await.unwrap_or(Err(Reason::IdleTimeout))
    }
}
