//! One request and its response, phase by phase. `Exchange::phases` is the whole path in order; each step lies below it.

use super::client_side::{ClientSide, ResponseBody};
use super::forward::{self, Client, Hop};
use super::h1::body::{BodyError, IncomingBody, Pulled};
use super::h1::framing::Framing;
use super::h1::parse::ParsedResponse;
use super::h1::upstream::Upstream;
use super::h1::write::{self, BodyFraming};
use super::respond;
use crate::chain::{ExchangeState, LogFacts, Outcome, Reply, RequestFacts, ResponseFacts};
use crate::config::{HostPolicy, PoolConfig};
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::{RequestId, Service};
use crate::head::{Fields, HeadLimits, RequestHead, ResponseHead, Version};
use crate::io::timer::Timer;
use crate::telemetry::{self as record, Record};
use crate::upstream::{EndpointId, Failure, Lease, Pick, PickError, Pool};
use crate::wasm::Phase;
use smallvec::SmallVec;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

/// Informational responses of one upstream that are relayed; more are a malfunction.
const INFORMATIONAL_MAX: u32 = 16;

/// A request as a client connection hands it over: parsed and checked, hop-by-hop fields still there.
pub struct Incoming {
    pub head: RequestHead,
    pub framing: Framing,
    pub expect_continue: bool,
}

/// How the exchange left the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A whole response was sent; the connection goes on if nothing else forbids it.
    Complete,
    /// A whole response was sent, but request bytes may still come: close after it.
    CompleteThenClose,
    /// A head was sent and the rest will not come.
    Abort,
    /// Close without a byte.
    Drop,
    /// Close with a reset.
    Reset,
    /// The client is gone already.
    Gone,
}

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

/// Serves one exchange to its end and writes its record.
pub async fn run<C: ClientSide>(
    service: &Rc<Service>,
    connection: &Rc<Connection>,
    timer: &Timer,
    client: &mut C,
    incoming: Incoming,
) -> Ending {
    let mut exchange = Exchange::begin(service, connection, timer, client, incoming);
    let ending = exchange.phases().await;
    exchange.ended = true;
    ending
}

struct Exchange<'a, C: ClientSide> {
    service: &'a Rc<Service>,
    connection: &'a Rc<Connection>,
    timer: &'a Timer,
    side: &'a mut C,
    head: RequestHead,
    framing: Framing,
    expect_continue: bool,
    id: RequestId,
    client: Client,
    hop: Hop,
    /// The same of the response.
    response_hop: Hop,
    state: ExchangeState,
    /// Request body bytes already sent once, kept while a try may be repeated.
    replay: Option<Vec<u8>>,
    upload: Upload,
    journal: Journal,
    /// The response filters have run.
    responded: bool,
    ended: bool,
}

/// What the record of the exchange tells.
struct Journal {
    started: Instant,
    started_at: SystemTime,
    status: u16,
    reason: Option<Reason>,
    bytes_in: u64,
    bytes_out: u64,
    pool: Option<Arc<Pool>>,
    endpoint: Option<Arc<str>>,
    tries: u32,
    upstream_time: Duration,
    upgraded: bool,
    head_sent: bool,
    /// The response's field lines, when a filter is told of the end.
    fields: Option<Fields>,
}

/// Where the request body is on its way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    /// Nothing of the body was asked of the client yet.
    Running,
    /// The body's end is queued but not with the kernel yet.
    Flushing,
    Done,
    /// The upstream takes no more; its answer may be there all the same.
    Refused,
}

impl<'a, C: ClientSide> Exchange<'a, C> {
    fn begin(
        service: &'a Rc<Service>,
        connection: &'a Rc<Connection>,
        timer: &'a Timer,
        side: &'a mut C,
        incoming: Incoming,
    ) -> Self {
        let mut head = incoming.head;
        let options = &service.listener.config.http;
        let client = forward::client(connection, options, &head.fields);
        forward::distrust(connection, options, &mut head.fields);
        let id = match head.fields.get(b"x-request-id").map(RequestId::from_client) {
            Some(Some(id)) => id,
            _ => service.worker.ids.next(),
        };
        let hop = forward::strip_hop_by_hop(&mut head.fields);
        service.metrics.exchange_started();
        Self {
            service,
            connection,
            timer,
            side,
            framing: incoming.framing,
            expect_continue: incoming.expect_continue,
            id,
            client,
            hop,
            response_hop: Hop::default(),
            state: ExchangeState::default(),
            replay: None,
            upload: Upload::Running,
            journal: Journal {
                started: Instant::now(),
                started_at: SystemTime::now(),
                status: 0,
                reason: None,
                bytes_in: 0,
                bytes_out: 0,
                pool: None,
                endpoint: None,
                tries: 0,
                upstream_time: Duration::ZERO,
                upgraded: false,
                head_sent: false,
                fields: None,
            },
            head,
            responded: false,
            ended: false,
        }
    }

    /// Every phase of an exchange, in order.
    async fn phases(&mut self) -> Ending {
        match self.request_filters() {
            Outcome::Continue => {}
            Outcome::Reply(reply) => return self.reply(reply, Some(Reason::FilterReply)).await,
            Outcome::Drop => return self.cut(Reason::FilterDrop, Ending::Drop),
            Outcome::Reset => return self.cut(Reason::FilterReset, Ending::Reset),
            Outcome::Fault { .. } => return self.fail(Reason::FilterFault).await,
        }
        let pool = match self.pool() {
            Ok(pool) => pool,
            Err(reason) => return self.fail(reason).await,
        };
        self.write_forwarding_fields();
        let (mut upstream, response, lease) = match self.upstream_response(&pool).await {
            Ok(answered) => answered,
            Err(Reason::ClientGone) => return self.cut(Reason::ClientGone, Ending::Gone),
            Err(reason) => return self.fail(reason).await,
        };
        if response.head.status == 101 {
            return self.tunnel(upstream, response.head, &lease).await;
        }
        let mut keep = response.keep_alive;
        let mut body = self.response_body(&response);
        let mut head = response.head;
        let status = head.status;
        self.responded = true;
        self.response_hop = forward::strip_hop_by_hop(&mut head.fields);
        match self.response_filters(&mut head) {
            Outcome::Continue => {}
            Outcome::Reply(reply) => return self.reply(reply, Some(Reason::FilterReply)).await,
            Outcome::Drop => return self.cut(Reason::FilterDrop, Ending::Drop),
            Outcome::Reset => return self.cut(Reason::FilterReset, Ending::Reset),
            Outcome::Fault { .. } => return self.fail(Reason::FilterFault).await,
        }
        if is_bodiless(head.status) && body != ResponseBody::None {
            // A filter chose a status without a body: what the upstream still sends must not follow it.
            upstream.body = IncomingBody::empty();
            (keep, body) = (false, ResponseBody::None);
            head.fields.remove(b"content-length");
        } else if is_bodiless(status) && !is_bodiless(head.status) && self.head.method() != b"HEAD"
        {
            body = ResponseBody::Length(0);
        }
        self.send_head(head, body, None);
        let ending = self.bodies(&mut upstream, &lease).await;
        if keep && ending == Ending::Complete {
            self.keep(upstream, &lease, &pool);
        }
        ending
    }

    // ------------------------------------------------------------ filters and route

    fn request_filters(&mut self) -> Outcome {
        if self.service.chain.is_empty() {
            return Outcome::Continue;
        }
        let facts = request_facts(self.connection, &self.client, &self.id, self.framing);
        self.service
            .chain
            .request(&mut self.state, &facts, &mut self.head)
    }

    fn response_filters(&mut self, head: &mut ResponseHead) -> Outcome {
        if !self.service.chain.wants(Phase::Response) {
            return Outcome::Continue;
        }
        let facts = ResponseFacts {
            request: request_facts(self.connection, &self.client, &self.id, self.framing),
            version: self.head.version,
            method: self.head.method(),
            authority: self.head.authority(),
            target: self.head.target(),
            endpoint: self.journal.endpoint.as_deref().unwrap_or(""),
            pool: self.journal.pool.as_ref().map_or("", |p| &*p.config.name),
        };
        self.service.chain.response(&mut self.state, &facts, head)
    }

    /// The pool a filter chose, else the listener's.
    fn pool(&mut self) -> Result<Arc<Pool>, Reason> {
        let index = self
            .state
            .route
            .pool
            .or(self.service.listener.config.pool)
            .ok_or(Reason::NoRoute)?;
        let pool = self
            .service
            .generation
            .pools
            .get(index)
            .ok_or(Reason::NoRoute)?
            .clone();
        self.journal.pool = Some(pool.clone());
        Ok(pool)
    }

    fn write_forwarding_fields(&mut self) {
        let options = &self.service.listener.config.http;
        forward::write_forwarded(
            self.connection,
            options,
            &self.client,
            self.id.as_str(),
            &mut self.head,
        );
        let version = self.head.version;
        forward::write_via(&mut self.head.fields, version, &options.via);
        self.head.fields.remove(b"content-length");
        if self.head.version == Version::Http2 {
            // An HTTP/2 client gets no 100 from us, so the upstream must not wait for one to be passed on.
            self.head.fields.remove(b"expect");
        }
    }

    // ------------------------------------------------------------ upstream

    /// Asks endpoint after endpoint until one answers with a response head.
    async fn upstream_response(
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

    /// `phase`, or what is left of the exchange's total time when that is less.
    fn until_total(&self, phase: Duration) -> Result<Duration, Reason> {
        let total = self
            .state
            .route
            .total_timeout
            .or(self.service.listener.config.timeouts.total);
        let Some(total) = total else { return Ok(phase) };
        match total.checked_sub(self.journal.started.elapsed()) {
            Some(left) if !left.is_zero() => Ok(phase.min(left)),
            _ => Err(Reason::TotalTimeout),
        }
    }

    /// The reason of a phase's timeout: the phase's own, unless the whole exchange is out of time.
    fn timed_out(&self, phase: Reason) -> Reason {
        if self.until_total(Duration::ZERO).is_err() {
            Reason::TotalTimeout
        } else {
            phase
        }
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
        let framing = match self.framing {
            Framing::None | Framing::UntilClose => BodyFraming::None,
            Framing::Length(n) => BodyFraming::Length(n),
            Framing::Chunked => BodyFraming::Chunked,
        };
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
    fn wanted_upgrade(&self) -> Option<&[u8]> {
        let protocol = self.hop.upgrade.as_deref()?;
        let allowed = self.head.version == Version::Http11
            && !self.framing.has_body()
            && self
                .service
                .listener
                .config
                .http
                .upgrade
                .iter()
                .any(|p| p.as_bytes() == protocol);
        allowed.then_some(protocol)
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

    /// Sets the upload back to its beginning; `replay` holds what the client has sent already.
    fn rewind(&mut self) {
        if self.journal.bytes_in == 0 {
            self.replay = None;
        }
        self.upload = Upload::Running;
    }

    /// What was sent to an earlier endpoint, sent again.
    fn send_replay(&mut self, upstream: &mut Upstream, replay: Vec<u8>) {
        if !replay.is_empty() {
            upstream.queue_data(&replay);
        }
        self.replay = Some(replay);
        if self.side.body_done() {
            let trailers = self.side.body_trailers();
            upstream.send_end(trailers.as_ref());
            self.upload = Upload::Flushing;
        }
    }

    /// Moves the request body towards the upstream. `Err` is the client's fault and ends the exchange.
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
    ) -> Poll<Result<(), Reason>> {
        loop {
            if matches!(self.upload, Upload::Done | Upload::Refused) {
                return Poll::Ready(Ok(()));
            }
            if ready!(upstream.poll_flush(cx)).is_err() {
                self.upload = Upload::Refused;
                continue;
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
                Ok(Pulled::End) => {
                    let mut trailers = self.side.body_trailers();
                    if let Some(trailers) = &mut trailers {
                        forward::strip_trailers(trailers, &self.hop);
                        // Trailers are not kept, so what they belong to cannot be sent again whole.
                        self.replay = None;
                    }
                    upstream.send_end(trailers.as_ref());
                    self.upload = Upload::Flushing;
                }
                Err(BodyError::Truncated(_)) => return Poll::Ready(Err(Reason::ClientGone)),
                Err(BodyError::Malformed) => return Poll::Ready(Err(Reason::BadRequest)),
            }
        }
    }

    fn head_limits(&self) -> HeadLimits {
        self.service.listener.head_limits()
    }

    // ------------------------------------------------------------ response

    fn response_body(&self, response: &ParsedResponse) -> ResponseBody {
        match response.framing {
            Framing::None => ResponseBody::None,
            Framing::Length(n) => ResponseBody::Length(n),
            Framing::Chunked | Framing::UntilClose => ResponseBody::Stream,
        }
    }

    fn send_head(&mut self, mut head: ResponseHead, body: ResponseBody, tunnel: Option<&[u8]>) {
        if body != ResponseBody::None || head.status == 204 || head.status < 200 {
            head.fields.remove(b"content-length");
        }
        forward::write_via(
            &mut head.fields,
            head.version,
            &self.service.listener.config.http.via,
        );
        self.announce(head, body, tunnel);
    }

    /// The one place where a head goes to the client.
    fn announce(&mut self, head: ResponseHead, body: ResponseBody, tunnel: Option<&[u8]>) {
        self.journal.status = head.status;
        self.journal.head_sent = true;
        if self.service.chain.wants(Phase::Log) {
            self.journal.fields = Some(head.fields.clone());
        }
        self.side.send_head(head, body, tunnel);
    }

    /// Moves both bodies to their ends. The response's end is the exchange's end.
    async fn bodies(&mut self, upstream: &mut Upstream, lease: &Lease) -> Ending {
        let idle = self.service.listener.config.timeouts.stream_idle;
        let timer = self.timer;
        let Ok(first) = self.until_total(idle) else {
            return self.abort(Reason::TotalTimeout);
        };
        timer.set(first);
        let mut ended = false;
        let pumped = timer.run(std::future::poll_fn(|cx| {
            // A body that is still being sent goes on beside the response.
            let before = self.journal.bytes_in;
            if let Poll::Ready(Err(reason)) = self.poll_upload(cx, upstream) {
                return Poll::Ready(Err(reason));
            }
            if self.journal.bytes_in != before {
                self.timer.set(self.until_total(idle)?);
            }
            if let Poll::Ready(done) = self.poll_download(cx, upstream, &mut ended, idle) {
                return Poll::Ready(done);
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
                self.abort(reason)
            }
            Ok(Err(reason)) => {
                if reason == Reason::UpstreamTruncated {
                    lease.failed(Failure::Broken);
                }
                self.abort(reason)
            }
            Ok(Ok(())) if self.upload == Upload::Done => Ending::Complete,
            Ok(Ok(())) => Ending::CompleteThenClose,
        }
    }

    fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
        ended: &mut bool,
        idle: Duration,
    ) -> Poll<Result<(), Reason>> {
        loop {
            if *ended || !upstream.body.is_done() && !upstream.body.has_rest() {
                // What is queued goes out before more is read, so that one piece at most is held.
                if ready!(self.side.poll_flush(cx)).is_err() {
                    return Poll::Ready(Err(Reason::ClientGone));
                }
            }
            if *ended {
                return Poll::Ready(Ok(()));
            }
            let side = &mut *self.side;
            let bytes_out = &mut self.journal.bytes_out;
            let mut gone = false;
            let pulled =
                ready!(
                    upstream.poll_body(cx, &self.service.worker.scratch, &mut |cx, data| {
                        *bytes_out += data.len() as u64;
                        gone |= side.send_data(cx, data).is_err();
                    })
                );
            match pulled {
                Ok(_) if gone => return Poll::Ready(Err(Reason::ClientGone)),
                Ok(Pulled::Data(_)) => self.timer.set(self.until_total(idle)?),
                Ok(Pulled::End) => {
                    let mut trailers = upstream.body.trailers();
                    if let Some(trailers) = &mut trailers {
                        forward::strip_trailers(trailers, &self.response_hop);
                    }
                    self.side.send_end(trailers);
                    *ended = true;
                }
                Err(_) => return Poll::Ready(Err(Reason::UpstreamTruncated)),
            }
        }
    }

    /// A protocol was switched to: bytes both ways until both ends are done, one is silent too long, or a drain ends it.
    async fn tunnel(
        &mut self,
        mut upstream: Upstream,
        mut head: ResponseHead,
        lease: &Lease,
    ) -> Ending {
        let answered = forward::strip_hop_by_hop(&mut head.fields).upgrade;
        let wanted = self.wanted_upgrade().map(<[u8]>::to_vec);
        if answered.is_none() || answered != wanted {
            lease.failed(Failure::Broken);
            return self.fail(Reason::UpstreamMalformed).await;
        }
        self.journal.upgraded = true;
        self.send_head(head, ResponseBody::Tunnel, answered.as_deref());
        upstream.become_tunnel();
        self.upload = Upload::Running;
        self.replay = None;
        let idle = self.service.listener.config.timeouts.stream_idle;
        self.timer.set(idle);
        let (timer, service) = (self.timer, self.service);
        let (mut ended, mut up_closed, mut down_closed) = (false, false, false);
        let mut drain = service.worker.drain_window();
        let done = timer
            .run(std::future::poll_fn(|cx| {
                let before = self.journal.bytes_in;
                let up = self.poll_upload(cx, &mut upstream);
                if let Poll::Ready(Err(reason)) = up {
                    return Poll::Ready(Err(reason));
                }
                if self.journal.bytes_in != before {
                    self.timer.set(idle);
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
                match drain.poll_cut(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(Reason::Drained)),
                    Poll::Pending => Poll::Pending,
                }
            }))
            .await;
        match done {
            Ok(Ok(())) => return Ending::Complete,
            Ok(Err(Reason::UpstreamTruncated | Reason::ClientGone)) => self.journal.reason = None,
            Ok(Err(reason)) => self.journal.reason = Some(reason),
            Err(_) => self.journal.reason = Some(Reason::IdleTimeout),
        }
        Ending::Abort
    }

    fn keep(&self, upstream: Upstream, lease: &Lease, pool: &Arc<Pool>) {
        if let Some((stream, buffer)) = upstream.into_kept() {
            self.service.worker.give_back(buffer);
            self.service
                .worker
                .keep(lease.endpoint.id, stream, &pool.config);
        }
    }

    // ------------------------------------------------------------ other ends

    /// Answers without an upstream's response. `reason` says who decided so.
    async fn reply(&mut self, reply: Reply, reason: Option<Reason>) -> Ending {
        self.journal.reason = self.journal.reason.or(reason);
        let Reply {
            status,
            mut fields,
            body,
        } = match self.filtered(reply) {
            Ok(reply) => reply,
            Err((reason, ending)) => return self.cut(reason, ending),
        };
        let framing = if is_bodiless(status) {
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
        if !fields.contains(b"date") {
            // Who makes a response dates it (RFC 9110 §6.6.1).
            let now = httpdate::fmt_http_date(SystemTime::now());
            fields.append(b"date", now.as_bytes());
        }
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
    fn filtered(&mut self, mut reply: Reply) -> Result<Reply, (Reason, Ending)> {
        if std::mem::replace(&mut self.responded, true) {
            return Ok(reply);
        }
        let fields = std::mem::take(&mut reply.fields);
        let mut head = ResponseHead {
            version: Version::Http11,
            status: reply.status,
            fields,
        };
        match self.response_filters(&mut head) {
            Outcome::Continue => Ok(Reply {
                status: head.status,
                fields: head.fields,
                body: reply.body,
            }),
            Outcome::Reply(instead) => Ok(instead),
            Outcome::Drop => Err((Reason::FilterDrop, Ending::Drop)),
            Outcome::Reset => Err((Reason::FilterReset, Ending::Reset)),
            Outcome::Fault { .. } => {
                self.journal.reason = Some(Reason::FilterFault);
                let via = &self.service.listener.config.http.via;
                Ok(respond::failure(Reason::FilterFault, via, self.id.as_str()))
            }
        }
    }

    /// Tells the client what failed.
    async fn fail(&mut self, reason: Reason) -> Ending {
        self.journal.reason = Some(reason);
        let via = &self.service.listener.config.http.via;
        let reply = respond::failure(reason, via, self.id.as_str());
        let ending = self.reply(reply, None).await;
        let unreadable = matches!(reason, Reason::BadRequest | Reason::RequestBodyTimeout);
        if unreadable && ending == Ending::Complete {
            Ending::CompleteThenClose
        } else {
            ending
        }
    }

    fn cut(&mut self, reason: Reason, ending: Ending) -> Ending {
        self.journal.reason = Some(reason);
        if reason == Reason::ClientGone && !self.journal.head_sent {
            self.journal.status = reason.status();
        }
        ending
    }

    fn abort(&mut self, reason: Reason) -> Ending {
        self.cut(
            reason,
            if reason == Reason::ClientGone {
                Ending::Gone
            } else {
                Ending::Abort
            },
        )
    }

    /// The one record of this exchange.
    fn record(&mut self) {
        let journal = &self.journal;
        let duration = journal.started.elapsed();
        let service = self.service;
        if service.chain.wants(Phase::Log) {
            let facts = LogFacts {
                response: ResponseFacts {
                    request: request_facts(self.connection, &self.client, &self.id, self.framing),
                    version: self.head.version,
                    method: self.head.method(),
                    authority: self.head.authority(),
                    target: self.head.target(),
                    endpoint: journal.endpoint.as_deref().unwrap_or(""),
                    pool: journal.pool.as_ref().map_or("", |p| &*p.config.name),
                },
                status: journal.status,
                duration,
                bytes_in: journal.bytes_in,
                bytes_out: journal.bytes_out,
                reason: journal.reason,
                fields: journal.fields.as_ref(),
            };
            service.chain.log(&mut self.state, &facts);
        }
        service.metrics.request(
            journal.status,
            duration,
            journal.bytes_in,
            journal.bytes_out,
        );
        if let Some(reason) = journal.reason {
            service.metrics.reason(reason);
        }
        if !service.worker.logs() {
            return;
        }
        let (head, connection) = (&self.head, self.connection);
        service.worker.log(&Record {
            start: journal.started_at,
            duration,
            listener: &connection.listener,
            client: self.client.text(connection),
            peer: &connection.peer_text,
            request_id: self.id.as_str(),
            exchange: Some(record::Exchange {
                method: head.method(),
                authority: head.authority(),
                target: head.target(),
                version: head.version,
                status: journal.status,
                user_agent: head.fields.get(b"user-agent"),
                referer: head.fields.get(b"referer"),
                upgraded: journal.upgraded,
            }),
            bytes_in: journal.bytes_in,
            bytes_out: journal.bytes_out,
            pool: journal.pool.as_ref().map(|p| &*p.config.name),
            endpoint: journal.endpoint.as_deref(),
            tries: journal.tries,
            filter_time: self.state.filter_time,
            upstream_time: (journal.tries > 0).then_some(journal.upstream_time),
            reason: journal.reason,
            tls_version: connection.tls.as_ref().map(|tls| tls.version),
            sni: connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            trace_id: head.fields.get(b"traceparent").and_then(trace_id),
        });
    }
}

/// The trace id of a `traceparent` field (W3C Trace Context §3.2).
fn trace_id(value: &[u8]) -> Option<&str> {
    let id = std::str::from_utf8(value.get(3..35)?).ok()?;
    id.bytes().all(|b| b.is_ascii_hexdigit()).then_some(id)
}

/// The record of a request that could not be read, or not be accepted as one.
pub fn record_refused(service: &Service, connection: &Connection, reason: Reason) {
    let version = match connection.tls.as_ref().and_then(|tls| tls.alpn.as_deref()) {
        Some("h2") => Version::Http2,
        _ => Version::Http11,
    };
    service.metrics.exchange_started();
    service
        .metrics
        .request(reason.status(), Duration::ZERO, 0, 0);
    service.metrics.reason(reason);
    service.worker.log(&Record {
        start: SystemTime::now(),
        duration: Duration::ZERO,
        listener: &connection.listener,
        client: &connection.peer_text,
        peer: &connection.peer_text,
        request_id: "",
        exchange: Some(record::Exchange {
            method: b"",
            authority: b"",
            target: b"",
            version,
            status: reason.status(),
            user_agent: None,
            referer: None,
            upgraded: false,
        }),
        bytes_in: 0,
        bytes_out: 0,
        pool: None,
        endpoint: None,
        tries: 0,
        filter_time: Duration::ZERO,
        upstream_time: None,
        reason: Some(reason),
        tls_version: connection.tls.as_ref().map(|tls| tls.version),
        sni: connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
        trace_id: None,
    });
}

impl<C: ClientSide> Drop for Exchange<'_, C> {
    fn drop(&mut self) {
        if !self.ended && self.journal.reason.is_none() {
            // The connection's task was ended under us: a drain deadline, or HTTP/2 cancelling the stream.
            let drained = self.service.worker.is_draining();
            self.journal.reason = Some(if drained {
                Reason::Drained
            } else {
                Reason::ClientGone
            });
            if !self.journal.head_sent {
                self.journal.status = 499;
            }
        }
        self.record();
        let fields = std::mem::take(&mut self.head.fields);
        self.service.worker.give_back(fields.into_arena());
    }
}

fn request_facts<'a>(
    connection: &'a Connection,
    client: &'a Client,
    id: &'a RequestId,
    framing: Framing,
) -> RequestFacts<'a> {
    RequestFacts {
        connection,
        client: client.ip,
        client_text: client.text(connection),
        client_port: client.port,
        scheme: if connection.tls.is_some() {
            "https"
        } else {
            "http"
        },
        request_id: id.as_str(),
        has_body: framing.has_body(),
    }
}

/// The Host field for an endpoint, by the pool's policy.
fn host_for<'a>(
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

/// Statuses whose responses have no body, whatever their fields say (RFC 9112 §6.3).
fn is_bodiless(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

/// Methods that may be repeated (RFC 9110 §9.2.2).
fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}
