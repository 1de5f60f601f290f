//! The other ends of an exchange: replies of filters, failures, cuts.

use super::{Ending, Exchange, is_bodiless};
use crate::chain::{Outcome, Reply};
use crate::error::Reason;
use crate::head::{ResponseHead, Version};
use crate::protocol::http::client_side::{ClientSide, ResponseBody};
use crate::protocol::http::{grpc, respond};
use std::task::Poll;

impl<C: ClientSide> Exchange<'_, C> {
    /// Answers without an upstream's response. `reason` says who decided so.
    pub(super) async fn reply(&mut self, reply: Reply, reason: Option<Reason>) -> Ending {
        self.journal.reason = self.journal.reason.or(reason);
        let mut reply = match self.filtered(reply).await {
            Ok(reply) => reply,
            Err((reason, ending)) => return self.cut(reason, ending),
        };
        let is_grpc = grpc::is_call(self.head.fields.get(b"content-type"));
        if is_grpc {
            reply = grpc::answer(reply);
        }
        let Reply {
            status,
            mut fields,
            body,
        } = reply;
        let framing = if is_grpc && body.is_empty() {
            ResponseBody::Empty
        } else if is_bodiless(status) {
            ResponseBody::None
        } else if self.head.method() == b"HEAD" {
            fields.append(
                b"content-length",
                itoa::Buffer::new().format(body.len()).as_bytes(),
            );
            ResponseBody::None
        } else {
            ResponseBody::Length(body.len() as u64)
        };
        self.announce(
            ResponseHead {
                version: Version::Http11,
                status,
                fields,
            },
            framing,
            None,
        );
        self.timer
            .set(self.service.listener.config.timeouts.stream_idle);
        let (timer, side) = (self.timer, &mut *self.side);
        let mut queued = false;
        let flushed = timer.run(std::future::poll_fn(|cx| {
            if !queued {
                queued = true;
                if framing != ResponseBody::None
                    && let Err(error) = side.send_data(cx, &body)
                {
                    return Poll::Ready(Err(error));
                }
                side.send_end(None);
            }
            side.poll_flush(cx)
        }));
        match flushed.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return self.cut(Reason::ClientGone, Ending::Gone),
            Err(_) => return self.cut(Reason::IdleTimeout, Ending::Reset),
        }
        if framing != ResponseBody::None {
            self.journal.bytes_out += body.len() as u64;
        }
        if self.side.body_done() {
            Ending::Complete
        } else {
            Ending::CompleteThenClose
        }
    }

    /// A reply of a filter or of the proxy passes the response filters too, unless they have run.
    async fn filtered(&mut self, mut reply: Reply) -> Result<Reply, (Reason, Ending)> {
        if std::mem::replace(&mut self.responded, true) {
            return Ok(reply);
        }
        let fields = std::mem::take(&mut reply.fields);
        let mut head = ResponseHead {
            version: Version::Http11,
            status: reply.status,
            fields,
        };
        let mut decided = self.response_filters(&mut head);
        if let Outcome::Suspend(suspension) = decided {
            decided = match Box::pin(self.response_resumed(suspension, &mut head)).await {
                Ok(decided) => decided,
                Err(Reason::ClientGone) => return Err((Reason::ClientGone, Ending::Gone)),
                Err(reason) => return Ok(self.failed(reason)),
            };
        }
        match decided {
            Outcome::Continue => Ok(Reply {
                status: head.status,
                fields: head.fields,
                body: reply.body,
            }),
            Outcome::Reply(instead) => Ok(instead),
            Outcome::Drop => Err((Reason::FilterDrop, Ending::Drop)),
            Outcome::Reset => Err((Reason::FilterReset, Ending::Reset)),
            Outcome::Fault { .. } | Outcome::Suspend(_) => Ok(self.failed(Reason::FilterFault)),
        }
    }

    /// What the client is told of a failure.
    fn failed(&mut self, reason: Reason) -> Reply {
        self.journal.reason = Some(reason);
        let via = &self.service.listener.config.http.via;
        respond::failure(reason, via, self.id.as_str())
    }

    /// Ends an exchange that cannot go on for `reason`, which may be that nobody waits for it or that a filter
    /// wants it so.
    pub(super) async fn give_up(&mut self, reason: Reason) -> Ending {
        match reason {
            Reason::ClientGone => self.cut(reason, Ending::Gone),
            Reason::FilterDrop => self.cut(reason, Ending::Drop),
            Reason::FilterReset => self.cut(reason, Ending::Reset),
            reason => self.fail(reason).await,
        }
    }

    /// Tells the client what failed.
    pub(super) async fn fail(&mut self, reason: Reason) -> Ending {
        let reply = self.failed(reason);
        let ending = self.reply(reply, None).await;
        let unreadable = matches!(reason, Reason::BadRequest | Reason::RequestBodyTimeout);
        if unreadable && ending == Ending::Complete {
            Ending::CompleteThenClose
        } else {
            ending
        }
    }

    pub(super) fn cut(&mut self, reason: Reason, ending: Ending) -> Ending {
        let gone = reason == Reason::ClientGone;
        self.journal.reason = Some(if gone { self.why_gone() } else { reason });
        if gone && !self.journal.head_sent {
            self.journal.status = reason.status();
        }
        ending
    }

    /// Why nobody waits for the response any more: the client left, or its connection was ended for what it did.
    pub(super) fn why_gone(&self) -> Reason {
        self.connection.ended.get().unwrap_or(Reason::ClientGone)
    }

    pub(super) fn abort(&mut self, reason: Reason) -> Ending {
        self.cut(
            reason,
            if reason == Reason::ClientGone {
                Ending::Gone
            } else {
                Ending::Abort(abort_code(reason))
            },
        )
    }
}

/// Says in HTTP/2 why a response broke off: CANCEL is for what somebody did not want any more, and that is not so when
/// something failed.
fn abort_code(reason: Reason) -> h2::Reason {
    match reason {
        Reason::FilterDrop | Reason::FilterReset | Reason::Drained => h2::Reason::CANCEL,
        Reason::BadRequest => h2::Reason::PROTOCOL_ERROR,
        _ => h2::Reason::INTERNAL_ERROR,
    }
}
