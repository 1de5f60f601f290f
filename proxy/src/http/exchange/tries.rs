//! Endpoint after endpoint until one answers: connecting, asking, and whether a failed try may be repeated.

use super::{Exchange, Upload};
use crate::config::{HostPolicy, HttpOptions, PoolConfig};
use crate::error::Reason;
use crate::head::{HeadLimits, RequestHead, ResponseHead, Version};
use crate::http::client_side::ClientSide;
use crate::http::forward::{self, Hop};
use crate::http::h1::framing::Framing;
use crate::http::h1::parse::ParsedResponse;
use crate::http::h1::upstream::Upstream;
use crate::http::h1::write::{self, BodyFraming};
use crate::upstream::{EndpointId, Failure, Lease, Pick, PickError, Pool};
use smallvec::SmallVec;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

/// Informational responses of one upstream that are relayed; more are a malfunction.
const INFORMATIONAL_MAX: u32 = 16;

/// Why a try at an endpoint failed, and whether another may be made.
struct Failed {
    reason: Reason,
    retry: Retry,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    No,
    /// At another endpoint first.
    Elsewhere,
    /// The kept connection had died: at the same endpoint on a fresh connection.
    Fresh,
}

impl<C: ClientSide> Exchange<'_, C> {
    /// Asks endpoint after endpoint until one answers with a response head.
    pub(super) async fn upstream_response(
        &mut self,
        pool: &Arc<Pool>,
    ) -> Result<(Upstream, ParsedResponse, Lease), Reason> {
        if !pool.is_settled() {
            pool.first_checks().await;
        }
        let mut tried: SmallVec<[EndpointId; 4]> = SmallVec::new();
        let mut left = self.state.route.retries.unwrap_or(pool.config.retries);
        let mut last = None;
        let mut fresh = false;
        // Held while the retry it is for runs.
        let mut _permit = None;
        loop {
            let lease = match self.pick(pool, &tried) {
                Ok(lease) => lease,
                Err(_) if last.is_some() => return Err(last.unwrap_or(Reason::NoHealthyEndpoint)),
                Err(PickError::NoHealthy) => return Err(Reason::NoHealthyEndpoint),
                Err(PickError::Overload) => return Err(Reason::Overload),
            };
            self.journal.tries += 1;
            self.journal.endpoint = Some(lease.endpoint.text.clone());
            let started = Instant::now();
            let failed = match self.attempt(pool, &lease, fresh).await {
                Ok((upstream, response)) => {
                    self.journal.upstream_time += started.elapsed();
                    lease.succeeded();
                    return Ok((upstream, response, lease));
                }
                Err(failed) => failed,
            };
            self.journal.upstream_time += started.elapsed();
            match failed.retry {
                Retry::No => {
                    if failed.reason.is_upstream() {
                        self.blame(&lease, failed.reason);
                    }
                    return Err(failed.reason);
                }
                Retry::Fresh => fresh = true,
                Retry::Elsewhere => {
                    self.blame(&lease, failed.reason);
                    if left == 0 {
                        return Err(failed.reason);
                    }
                    match pool.retry() {
                        Some(granted) => _permit = Some(granted),
                        None => return Err(failed.reason),
                    }
                    left -= 1;
                    tried.push(lease.endpoint.id);
                    last = Some(failed.reason);
                    self.back_off(pool, tried.len()).await?;
                }
            }
        }
    }

    /// Tells the endpoint's health what happened. Dialling has counted its own failures.
    fn blame(&self, lease: &Lease, reason: Reason) {
        if !matches!(reason, Reason::ConnectRefused | Reason::ConnectTimeout) {
            lease.failed(Failure::Broken);
        }
    }

    fn pick(&self, pool: &Arc<Pool>, tried: &[EndpointId]) -> Result<Lease, PickError> {
        pool.pick(&Pick {
            sticky: self.state.route.sticky_key.as_deref(),
            hint: self.state.route.endpoint.as_deref(),
            client: self.client.ip,
            exclude: tried,
        })
    }

    /// Waits a random time before a further try, when the pool has no other endpoint to go to at once.
    async fn back_off(&mut self, pool: &Arc<Pool>, tries: usize) -> Result<(), Reason> {
        if pool.members().len() > tries {
            return Ok(());
        }
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
                let retry = self.may_repeat(&upstream, reason);
                if retry != Retry::No {
                    self.rewind();
                }
                Err(Failed { reason, retry })
            }
        }
    }

    async fn connect(
        &mut self,
        pool: &Arc<Pool>,
        lease: &Lease,
        fresh: bool,
    ) -> Result<Upstream, Failed> {
        let no = |reason| Failed {
            reason,
            retry: Retry::No,
        };
        let kept = if fresh || self.hop.upgrade.is_some() {
            None
        } else {
            self.service.worker.take_kept(lease.endpoint.id)
        };
        let reused = kept.is_some();
        let stream = match kept {
            Some(stream) => stream,
            None => {
                let configured = pool.config.connect_timeout;
                let timeout = self
                    .state
                    .route
                    .try_timeout
                    .map_or(configured, |t| t.min(configured));
                let timeout = self.until_total(timeout).map_err(no)?;
                match lease
                    .connect(timeout, &self.service.listener.config.tcp)
                    .await
                {
                    Ok(stream) => stream,
                    Err(error) => {
                        let reason = match error.reason() {
                            Reason::ConnectTimeout => self.timed_out(Reason::ConnectTimeout),
                            reason => reason,
                        };
                        let retry = if reason == Reason::TotalTimeout {
                            Retry::No
                        } else {
                            Retry::Elsewhere
                        };
                        return Err(Failed { reason, retry });
                    }
                }
            }
        };
        let mut out = self.service.worker.buffer();
        let framing = body_framing(self.framing);
        let host = host_for(&self.head, &pool.config, &lease.endpoint.authority);
        write::request(
            &mut out,
            &self.head,
            host.as_ref(),
            framing,
            self.wanted_upgrade(),
            self.hop.trailers,
        );
        Ok(Upstream::new(
            stream,
            reused,
            out,
            self.service.worker.buffer(),
            framing,
        ))
    }

    /// The protocol to ask the upstream for, when the client asked and the listener allows it.
    pub(super) fn wanted_upgrade(&self) -> Option<&[u8]> {
        let options = &self.service.listener.config.http;
        allowed_upgrade(self.head.version, self.framing, &self.hop, options)
    }

    /// Sends the request and waits for the response head, both at once.
    async fn ask(&mut self, upstream: &mut Upstream) -> Result<ParsedResponse, Reason> {
        let limits = self.head_limits();
        let head_request = self.head.method() == b"HEAD";
        let timeouts = &self.service.listener.config.timeouts;
        let response_head = self
            .state
            .route
            .try_timeout
            .unwrap_or(timeouts.response_head);
        let mut informational = 0;
        if let Some(replay) = self.replay.take() {
            self.send_replay(upstream, replay);
        } else if self.framing.has_body() && is_idempotent(self.head.method()) {
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
                let before = (self.upload, self.journal.bytes_in);
                if let Poll::Ready(Err(reason)) = self.poll_upload(cx, upstream) {
                    return Poll::Ready(Err(reason));
                }
                if before != (self.upload, self.journal.bytes_in) {
                    let phase = if self.upload == Upload::Running {
                        timeouts.body_idle
                    } else {
                        response_head
                    };
                    self.timer.set(self.until_total(phase)?);
                }
                if let Poll::Ready(answer) =
                    upstream.poll_head(cx, &self.service.worker.scratch, &limits, head_request)
                {
                    return Poll::Ready(answer);
                }
                if self.upload == Upload::Done && self.side.poll_gone(cx).is_ready() {
                    return Poll::Ready(Err(Reason::ClientGone));
                }
                Poll::Pending
            });
            let answer = match waited.run(step).await {
                Ok(answer) => answer?,
                // The client is late only when everything it sent has been taken.
                Err(_) if self.upload == Upload::Running && upstream.out.is_empty() => {
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

    /// May the request be sent again after `reason`? (RFC 9110 §9.2.2)
    fn may_repeat(&self, upstream: &Upstream, reason: Reason) -> Retry {
        let whole_again =
            !self.framing.has_body() || self.replay.is_some() || self.journal.bytes_in == 0;
        // A timeout of one try, as opposed to the listener's, says that another is wanted.
        let try_over = reason == Reason::ResponseTimeout && self.state.route.try_timeout.is_some();
        let failed = reason == Reason::UpstreamReset || try_over;
        if upstream.answered || !failed || !whole_again || !is_idempotent(self.head.method()) {
            return Retry::No;
        }
        if upstream.reused && !try_over {
            Retry::Fresh
        } else {
            Retry::Elsewhere
        }
    }

    fn head_limits(&self) -> HeadLimits {
        self.service.listener.head_limits()
    }
}

/// The protocol that a request asks to upgrade to, when it may.
pub fn allowed_upgrade<'a>(
    version: Version,
    framing: Framing,
    hop: &'a Hop,
    options: &HttpOptions,
) -> Option<&'a [u8]> {
    let protocol = hop.upgrade.as_deref()?;
    let allowed = version == Version::Http11
        && !framing.has_body()
        && options.upgrade.iter().any(|p| p.as_bytes() == protocol);
    allowed.then_some(protocol)
}

/// How the body of a request is framed towards an endpoint.
pub fn body_framing(framing: Framing) -> BodyFraming {
    match framing {
        Framing::None | Framing::UntilClose => BodyFraming::None,
        Framing::Length(n) => BodyFraming::Length(n),
        Framing::Chunked => BodyFraming::Chunked,
    }
}

/// The Host field for an endpoint, by the pool's policy.
pub fn host_for<'a>(
    head: &'a RequestHead,
    pool: &'a PoolConfig,
    authority: &'a str,
) -> std::borrow::Cow<'a, [u8]> {
    match &pool.host {
        // An HTTP/1.0 client may send none; a request of ours may not (RFC 9112 §3.2).
        HostPolicy::Preserve if head.authority().is_empty() => authority.as_bytes().into(),
        HostPolicy::Preserve => head.authority().into(),
        HostPolicy::Endpoint => authority.as_bytes().into(),
        HostPolicy::Literal(host) => host.as_bytes().into(),
    }
}

/// Methods that may be repeated (RFC 9110 §9.2.2).
fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}
