//! Endpoint after endpoint until one answers: asking, and whether a failed try may be repeated.

use super::connect::allowed_upgrade;
use super::repeat::{Failed, Retry, is_dialling, is_idempotent};
use super::{Exchange, Upload};
use crate::error::Reason;
use crate::head::{HeadLimits, ResponseHead, Version};
use crate::protocol::http::client_side::ClientSide;
use crate::protocol::http::forward;
use crate::protocol::http::h1::parse::ParsedResponse;
use crate::protocol::http::upstream::Upstream;
use crate::upstream::{
    Belief, EndpointId, Failure, Lease, Member, Patience, Pick, PickError, Pool, Verdict,
};
use smallvec::SmallVec;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Informational responses of one upstream that are relayed; more are a malfunction.
const INFORMATIONAL_MAX: u32 = 16;

impl<C: ClientSide> Exchange<'_, C> {
    /// Asks endpoint after endpoint until one answers with a response head.
    pub(super) async fn upstream_response(
        &mut self,
        pool: &Arc<Pool>,
    ) -> Result<(Upstream, ParsedResponse, Lease), Reason> {
        if !pool.is_settled() {
            // Bounded by itself, and by the exchange's own time if that is less.
            self.timer.set(self.until_total(Duration::MAX)?);
            let waited = self.timer.run(pool.first_checks()).await;
            waited.map_err(|_| Reason::TotalTimeout)?;
        }
        let mut tried: SmallVec<[EndpointId; 4]> = SmallVec::new();
        let mut left = self.state.route.retries.unwrap_or(pool.config.retries);
        let retries = left;
        let mut last = None;
        let mut patience = Patience::default();
        // The endpoint whose kept connection had died.
        let mut again: Option<Lease> = None;
        loop {
            let fresh = again.is_some();
            let lease = match again.take().map_or_else(|| self.pick(pool, &tried), Ok) {
                Ok(lease) => lease,
                Err(PickError::NoHealthy) if self.comes_back(pool, &mut patience).await? => {
                    tried.clear();
                    continue;
                }
                Err(_) if last.is_some() => return Err(last.unwrap_or(Reason::NoHealthyEndpoint)),
                Err(PickError::NoHealthy) => return Err(Reason::NoHealthyEndpoint),
                Err(PickError::Overload) => return Err(Reason::Overload),
            };
            if tried.contains(&lease.endpoint.id) {
                self.back_off(tried.len()).await?;
            }
            self.journal.tries += 1;
            self.journal.endpoint = Some(lease.endpoint.text.clone());
            let started = Instant::now();
            let failed = match self.attempt(pool, &lease, fresh).await {
                Ok((upstream, response)) => {
                    let now = Instant::now();
                    self.journal.upstream_time += now - started;
                    self.journal.answered = now - self.journal.started;
                    let worker = &self.service.worker;
                    worker.responded(pool, self.journal.upstream_time);
                    match response.head.status {
                        // It answers quickly that it cannot serve: that must not look like being idle.
                        502..=504 => lease.failed(Failure::Answer),
                        _ => lease.succeeded(),
                    }
                    return Ok((upstream, response, lease));
                }
                Err(failed) => failed,
            };
            self.journal.upstream_time += started.elapsed();
            match failed.retry {
                Retry::No => {
                    self.blame(&lease, &failed);
                    return Err(failed.reason);
                }
                Retry::Fresh if !fresh => again = Some(lease),
                Retry::Fresh | Retry::Elsewhere => {
                    self.blame(&lease, &failed);
                    if left == 0 {
                        let refused = failed.reason == Reason::ConnectRefused && retries > 0;
                        if !refused || !self.holds_on(pool, &mut patience).await? {
                            return Err(failed.reason);
                        }
                        tried.clear();
                        last = Some(failed.reason);
                        continue;
                    }
                    // What was never sent made no endpoint any work, so that the budget is not touched.
                    if !is_dialling(failed.reason) && !pool.may_retry() {
                        return Err(failed.reason);
                    }
                    left -= 1;
                    tried.push(lease.endpoint.id);
                    last = Some(failed.reason);
                }
            }
        }
    }

    /// Reports to the endpoint's health what happened. Dialling has counted its own failures; what is this side's own
    /// trouble (no more descriptors, say) is no fault of the endpoint, nor is an answer that cannot be passed on.
    fn blame(&self, lease: &Lease, failed: &Failed) {
        let reason = failed.reason;
        if reason.is_upstream() && !is_dialling(reason) && !failed.is_answer {
            lease.failed(Failure::Broken);
        }
    }

    /// [`Pool::come_back`], within the exchange's own time. Boxed, so that exchanges do not carry the state of it.
    async fn comes_back(&mut self, pool: &Pool, patience: &mut Patience) -> Result<bool, Reason> {
        self.timer.set(self.until_total(Duration::MAX)?);
        let waited = self.timer.run(Box::pin(pool.come_back(patience))).await;
        waited.map_err(|_| Reason::TotalTimeout)
    }

    /// [`Pool::hold_on`] in the same way.
    async fn holds_on(&mut self, pool: &Pool, patience: &mut Patience) -> Result<bool, Reason> {
        self.timer.set(self.until_total(Duration::MAX)?);
        let waited = self.timer.run(Box::pin(pool.hold_on(patience))).await;
        waited.map_err(|_| Reason::TotalTimeout)
    }

    fn pick(&self, pool: &Arc<Pool>, tried: &[EndpointId]) -> Result<Lease, PickError> {
        pool.pick(&Pick {
            sticky: self.state.route.sticky_key.as_deref(),
            hint: self.state.route.endpoint.as_deref(),
            client: self.client.ip,
            exclude: tried,
        })
    }

    /// Waits a random time before a further try, when there is no other endpoint to go to at once.
    async fn back_off(&mut self, tries: usize) -> Result<(), Reason> {
        let delay = crate::upstream::backoff(tries as u32 - 1);
        self.timer.set(self.until_total(delay)?);
        let _ = self.timer.run(std::future::pending::<()>()).await;
        Ok(())
    }

    /// One try: a connection, the request, and its response head.
    async fn attempt(
        &mut self,
        pool: &Arc<Pool>,
        lease: &Lease,
        fresh: bool,
    ) -> Result<(Upstream, ParsedResponse), Failed> {
        let mut upstream = self.connect(pool, lease, fresh).await?;
        let answer = self.ask(&mut upstream).await;
        match answer {
            Ok(response) => Ok((upstream, response)),
            Err(reason) => {
                upstream.blame(reason);
                if upstream.is_unasked() {
                    lease.endpoint.sent_unasked();
                }
                let retry = self.may_repeat(&upstream, reason);
                if retry != Retry::No {
                    self.rewind();
                }
                Err(Failed {
                    reason,
                    retry,
                    is_answer: reason == Reason::UpstreamMalformed && upstream.gave_answer(),
                })
            }
        }
    }

    /// The protocols to ask the upstream for, when the client asked and the listener allows it.
    pub(super) fn wanted_upgrade(&self) -> Option<Vec<u8>> {
        let pool = &self.journal.pool.as_ref()?.config;
        let options = &self.service.listener.config.http;
        allowed_upgrade(self.head.version, &self.hop, options, pool)
    }

    /// Sends the request and waits for the response head, both at once.
    pub(super) async fn ask(&mut self, upstream: &mut Upstream) -> Result<ParsedResponse, Reason> {
        let limits = self.response_limits();
        let head_request = self.head.method() == b"HEAD";
        let timeouts = &self.service.listener.config.timeouts;
        let response_head = self
            .state
            .route
            .try_timeout
            .unwrap_or(timeouts.response_head);
        let response_head = match self.service.behind {
            // It has a deadline of its own, and what it asks has these.
            Some(_) => Duration::MAX,
            None => response_head,
        };
        let mut informational = 0;
        if let Some(replay) = self.replay.take() {
            self.send_replay(upstream, replay)?;
        } else if self.framing.has_body()
            && upstream.may_be_repeated()
            && (is_idempotent(self.head.method()) || upstream.may_refuse())
        {
            self.replay = Some(Vec::new());
        }
        if !self.framing.has_body() {
            self.upload = Upload::Flushing;
        }
        let phase = if self.upload == Upload::Flushing {
            response_head
        } else {
            timeouts.body_idle
        };
        self.timer.set(self.until_total(phase)?);
        loop {
            let waited = self.timer;
            let step = std::future::poll_fn(|cx| {
                let before = (self.upload, self.upload_progress());
                if let Poll::Ready(Err(reason)) = self.poll_upload(cx, upstream) {
                    return Poll::Ready(Err(reason));
                }
                if before != (self.upload, self.upload_progress()) {
                    let phase = if self.upload == Upload::Running {
                        timeouts.body_idle
                    } else {
                        response_head
                    };
                    self.timer.set(self.until_total(phase)?);
                }
                if informational > 0 {
                    // Interim responses are of use only while the final one is awaited.
                    let _ = self.side.poll_flush(cx);
                }
                if let Poll::Ready(answer) =
                    upstream.poll_head(cx, &self.service.worker.scratch, &limits, head_request)
                {
                    return Poll::Ready(answer);
                }
                if self.is_better_asked_again(cx, upstream) {
                    return Poll::Ready(Err(Reason::UpstreamReset));
                }
                if self.upload == Upload::Done && self.side.poll_gone(cx).is_ready() {
                    return Poll::Ready(Err(Reason::ClientGone));
                }
                Poll::Pending
            });
            let answer = match waited.run(step).await {
                Ok(answer) => answer?,
                // The client is late only when everything it sent has been taken.
                Err(_) if self.upload == Upload::Running && !upstream.has_output() => {
                    return Err(self.timed_out(Reason::RequestBodyTimeout));
                }
                Err(_) => return Err(self.timed_out(Reason::ResponseTimeout)),
            };
            match answer.head.status {
                101 if self.wanted_upgrade().is_some() => return Ok(answer),
                101 => return Err(Reason::UpstreamMalformed),
                200.. => return Ok(answer),
                _ => {
                    informational += 1;
                    if informational > INFORMATIONAL_MAX {
                        return Err(Reason::UpstreamMalformed);
                    }
                    self.relay_informational(answer.head);
                }
            }
        }
    }

    fn relay_informational(&mut self, mut head: ResponseHead) {
        if head.status == 100 && !self.expect_continue || self.head.version == Version::Http10 {
            return;
        }
        if head.status == 100 {
            self.expect_continue = false;
        }
        forward::strip_hop_by_hop(&mut head.fields);
        head.fields.remove(b"content-length");
        self.side.send_informational(&head);
    }

    /// The connection is silent, and there is somewhere else to ask. Once only: what is merely slow stays where it is then.
    fn is_better_asked_again(&self, cx: &mut Context<'_>, upstream: &Upstream) -> bool {
        let elsewhere = match upstream.belief(cx) {
            Belief::Alive => return false,
            Belief::Doubted => self.has_others(),
            Belief::Stalled => true,
        };
        if !elsewhere || self.journal.tries != 1 {
            return false;
        }
        match self.may_repeat(upstream, Reason::UpstreamReset) {
            Retry::No => false,
            Retry::Fresh => true,
            // A try that is given up for one that may not be made would have been better than none.
            Retry::Elsewhere => self.journal.pool.as_ref().is_some_and(|pool| {
                self.state.route.retries.unwrap_or(pool.config.retries) > 0 && pool.has_retry()
            }),
        }
    }

    /// The pool has another endpoint that may be tried than the one of this try.
    pub(super) fn has_others(&self) -> bool {
        let Some(pool) = &self.journal.pool else {
            return false;
        };
        let retries = self.state.route.retries.unwrap_or(pool.config.retries);
        let tried = self.journal.endpoint.as_deref();
        let other = |m: &Member| {
            let down = m.endpoint.verdict() == Verdict::Down;
            m.weight > 0 && !down && Some(&*m.endpoint.text) != tried
        };
        self.journal.tries <= retries && pool.members().iter().any(other)
    }

    /// May the request be sent again after `reason`? (RFC 9110 §9.2.2)
    fn may_repeat(&self, upstream: &Upstream, reason: Reason) -> Retry {
        let whole_again =
            !self.framing.has_body() || self.replay.is_some() || self.is_upload_untouched();
        // A timeout of one try, as opposed to the listener's, says that another is wanted.
        let try_over = reason == Reason::ResponseTimeout && self.state.route.try_timeout.is_some();
        // What came was not said to this request.
        let unasked = upstream.is_unasked();
        let failed = reason == Reason::UpstreamReset || try_over || unasked;
        let repeatable = is_idempotent(self.head.method()) || upstream.is_unseen();
        let answered = upstream.has_answered() && !unasked;
        if answered || !failed || !whole_again || !repeatable {
            return Retry::No;
        }
        if upstream.is_reused() && !try_over {
            Retry::Fresh
        } else {
            Retry::Elsewhere
        }
    }

    /// How large a response may be: as the pool says. Middleware has none, and the listener's limits.
    pub(super) fn response_limits(&self) -> HeadLimits {
        let of_listener = self.service.listener.head_limits();
        match &self.journal.pool {
            None => of_listener,
            Some(pool) => HeadLimits {
                bytes: pool.config.limits.header_bytes,
                fields: pool.config.limits.header_fields,
                ..of_listener
            },
        }
    }
}
