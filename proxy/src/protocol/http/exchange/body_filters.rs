//! Bodies and trailers that filters want to see: waiting for what holds a head back, and the pieces of what passes.

use super::call::make_call;
use super::pipeline::{BodyHalt, Effects, FilterCalls, Pipeline, Source};
use super::{Ending, Exchange, Journal, Upload, is_bodiless, request_facts};
use crate::chain::{Message, Outcome, ResponseFacts, Suspension};
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::Service;
use crate::head::{Fields, ResponseHead, Version};
use crate::io::Scratch;
use crate::protocol::http::call::Caller;
use crate::protocol::http::client::Client;
use crate::protocol::http::client_side::{ClientSide, ResponseBody};
use crate::protocol::http::forward;
use crate::protocol::http::h1::body::{BodyError, Pulled, Taker};
use crate::protocol::http::h1::framing::Framing;
use crate::protocol::http::suspended::perform;
use crate::protocol::http::upstream::Upstream;
use crate::upstream::{Failure, Lease};
use crate::wasm::{BodyMode, Phase};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The request's body as the client sends it.
struct FromClient<'s, C> {
    side: &'s mut C,
    bytes_in: &'s mut u64,
}

impl<C: ClientSide> Source for FromClient<'_, C> {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, Reason>> {
        let bytes_in = &mut *self.bytes_in;
        let pulled = ready!(self.side.poll_body(cx, &mut |cx, data| {
            *bytes_in += data.len() as u64;
            take(cx, data);
        }));
        Poll::Ready(pulled.map_err(|error| match error {
            BodyError::Truncated(_) => Reason::ClientGone,
            BodyError::Malformed => Reason::BadRequest,
        }))
    }

    fn is_done(&self) -> bool {
        self.side.body_done()
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.side.body_trailers()
    }
}

/// The response's body as the endpoint sends it.
struct FromEndpoint<'s> {
    upstream: &'s mut Upstream,
    scratch: &'s Scratch,
}

impl Source for FromEndpoint<'_> {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, Reason>> {
        let pulled = ready!(self.upstream.poll_body(cx, self.scratch, take));
        Poll::Ready(pulled.map_err(|_| self.upstream.truncation()))
    }

    fn is_done(&self) -> bool {
        self.upstream.is_body_done()
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.upstream.trailers()
    }
}

impl<C: ClientSide> Exchange<'_, C> {
    /// Readies the request's body for the filters that want it, and waits for those that the head waits for. `Some`
    /// when one of them, or the client, ended the exchange. To be called before the pool is chosen.
    pub(super) async fn hold_request(&mut self) -> Option<Ending> {
        let chain = &self.service.chain;
        let stages = chain.body_stages(&self.state, Phase::RequestBody);
        if stages.is_empty() {
            return None;
        }
        self.request_body = Some(Box::new(Pipeline::new(stages)));
        match self.request_settled().await {
            Ok(()) => None,
            Err(halt) => Some(self.halted(halt, Reason::RequestTooLarge).await),
        }
    }

    async fn request_settled(&mut self) -> Result<(), BodyHalt> {
        let announced = match self.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        if let Some(length) = announced {
            self.with_request(|pipeline, calls, _| pipeline.announce(length, calls))?;
        }
        let holds = self.request_body.as_ref().is_some_and(|b| !b.is_settled());
        if holds && std::mem::take(&mut self.expect_continue) {
            // The endpoint would say so only once it has the head, which waits.
            self.head.fields.remove(b"expect");
            if !self.side.body_done() {
                self.side.send_informational(&ResponseHead {
                    version: Version::Http11,
                    status: 100,
                    fields: Fields::default(),
                });
            }
        }
        if holds {
            self.await_request(false).await?;
        }
        let Some(pipeline) = &self.request_body else {
            return Ok(());
        };
        self.framing = match pipeline.length(announced) {
            Err(_) => self.framing,
            Ok(Some(length)) if !pipeline.has_trailers() => Framing::Length(length),
            Ok(_) => Framing::Chunked,
        };
        if self.framing == Framing::Length(0) {
            // There will be no upload, which would show it its end.
            self.await_request(true).await?;
            self.request_body = None;
        }
        Ok(())
    }

    /// Waits until no filter holds the request's head back, or until the end of a body in which nothing is left.
    async fn await_request(&mut self, to_end: bool) -> Result<(), BodyHalt> {
        let idle = self.service.listener.config.timeouts.body_idle;
        let timer = self.timer;
        timer.set(self.until_total(idle).map_err(BodyHalt::Reason)?);
        let waited = timer.run(std::future::poll_fn(|cx| {
            // An interim 100 must be out before the client can be expected to send.
            let _ = self.side.poll_flush(cx);
            let before = (self.journal.bytes_in, self.request_waits());
            let polled = self.with_request(|pipeline, calls, source| match to_end {
                false => pipeline.poll_settle(cx, calls, source),
                true => pipeline
                    .poll_next(cx, calls, source, &mut |_, _| {})
                    .map_ok(|_| ()),
            });
            let waits = self.request_waits();
            if (self.journal.bytes_in, waits) != before {
                // The client is not idle while a filter waits.
                let phase = if waits { Duration::MAX } else { idle };
                self.timer
                    .set(self.until_total(phase).map_err(BodyHalt::Reason)?);
            }
            if waits && polled.is_pending() && self.side.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(BodyHalt::Reason(Reason::ClientGone)));
            }
            polled
        }));
        match waited.await {
            Ok(settled) => settled,
            Err(_) => Err(BodyHalt::Reason(self.timed_out(Reason::RequestBodyTimeout))),
        }
    }

    fn request_waits(&self) -> bool {
        self.request_body.as_ref().is_some_and(|b| b.is_waiting())
    }

    /// Lends the request's pipeline with what it needs. There is one.
    fn with_request<R>(
        &mut self,
        work: impl FnOnce(&mut Pipeline, &mut FilterCalls<'_, '_>, &mut FromClient<'_, C>) -> R,
    ) -> R {
        let mut pipeline = self.request_body.take().unwrap_or_default();
        let perform = performing(self.service, self.connection, &self.client);
        let mut calls = FilterCalls {
            chain: &self.service.chain,
            state: &mut self.state,
            message: Message::Request {
                facts: request_facts(self.connection, &self.client, &self.id, self.framing),
                head: &mut self.head,
            },
            phase: Phase::RequestBody,
            perform: &perform,
        };
        let mut source = FromClient {
            side: &mut *self.side,
            bytes_in: &mut self.journal.bytes_in,
        };
        let done = work(&mut pipeline, &mut calls, &mut source);
        self.request_body = Some(pipeline);
        done
    }

    /// Moves a piece of what the filters make of the request's body towards the upstream. Data: whether the upstream took
    /// it does not show yet; `refused` says when it does not.
    pub(super) fn poll_filtered_upload(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
        refused: &mut bool,
    ) -> Poll<Result<Pulled, Reason>> {
        let replay_max = self.service.listener.config.limits.replay_bytes;
        let mut replay = self.replay.take();
        let pulled = self.with_request(|pipeline, calls, source| {
            pipeline.poll_next(cx, calls, source, &mut |cx, data| {
                super::upload::keep(&mut replay, replay_max, data);
                *refused |= upstream.send_data(cx, data).is_err();
            })
        });
        self.replay = replay;
        if pulled.is_pending() && self.request_waits() && self.side.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Reason::ClientGone));
        }
        pulled.map_err(passing)
    }

    /// Counts how the request's body goes on: bytes that came from the client, and such as filters that had held it
    /// let go.
    pub(super) fn upload_progress(&self) -> u64 {
        self.journal.bytes_in + self.request_body.as_ref().map_or(0, |p| p.given)
    }

    /// The end of the request's body was not taken yet, nor anything else of it.
    pub(super) fn is_upload_untouched(&self) -> bool {
        match &self.request_body {
            Some(pipeline) => pipeline.given == 0,
            None => self.journal.bytes_in == 0,
        }
    }

    /// The client has sent everything, and it went on.
    pub(super) fn is_upload_drained(&self) -> bool {
        match &self.request_body {
            Some(pipeline) => pipeline.is_done(),
            None => self.side.body_done(),
        }
    }

    /// The trailers of a request whose body has ended, as filters leave them.
    pub(super) fn request_trailers(&mut self) -> Result<Option<Fields>, Reason> {
        let seen = self.request_body.as_mut().and_then(|p| p.take_trailers());
        let Some(mut trailers) = seen.or_else(|| self.side.body_trailers()) else {
            return Ok(None);
        };
        forward::strip_trailers(&mut trailers, &self.hop);
        if self.service.chain.wants(Phase::RequestTrailers) {
            let message = Message::Request {
                facts: request_facts(self.connection, &self.client, &self.id, self.framing),
                head: &mut self.head,
            };
            let chain = &self.service.chain;
            let outcome = chain.trailers(&mut self.state, &message, &mut trailers);
            went_on(&outcome)?;
            forward::strip_trailers(&mut trailers, &self.hop);
        }
        Ok(Some(trailers))
    }

    /// Readies the response's body for the filters that want it, and waits for those that the head waits for, which may
    /// edit `head`; `body` becomes what comes out. `Some` when the exchange ended instead.
    pub(super) async fn hold_response(
        &mut self,
        upstream: &mut Upstream,
        lease: Option<&Lease>,
        head: &mut ResponseHead,
        body: &mut ResponseBody,
    ) -> Option<Ending> {
        let chain = &self.service.chain;
        let stages = chain.body_stages(&self.state, Phase::ResponseBody);
        if stages.is_empty() {
            return None;
        }
        self.response_body = Some(Box::new(Pipeline::new(stages)));
        if let Err(halt) = self.response_settled(upstream, head, body).await {
            if matches!(halt, BodyHalt::Reason(Reason::UpstreamTruncated))
                && let Some(lease) = lease
            {
                lease.failed(Failure::Broken);
            }
            return Some(self.halted(halt, Reason::ResponseTooLarge).await);
        }
        if is_bodiless(head.status) {
            self.response_body = None;
        }
        None
    }

    /// A response to this request would pass filters that may make another body of it.
    pub(super) fn may_change_response_body(&self) -> bool {
        let chain = &self.service.chain;
        let stages = chain.body_stages(&self.state, Phase::ResponseBody);
        stages.iter().any(|stage| stage.mode != BodyMode::Watch)
    }

    async fn response_settled(
        &mut self,
        upstream: &mut Upstream,
        head: &mut ResponseHead,
        body: &mut ResponseBody,
    ) -> Result<(), BodyHalt> {
        let announced = match body {
            ResponseBody::Length(length) => Some(*length),
            ResponseBody::Empty => Some(0),
            _ => None,
        };
        if let Some(length) = announced {
            self.with_response(Some(&mut *head), upstream, |pipeline, calls, _, _| {
                pipeline.announce(length, calls)
            })?;
        }
        if self.response_body.as_ref().is_some_and(|b| !b.is_settled()) {
            self.await_response(upstream, head).await?;
        }
        if let Some(pipeline) = &self.response_body {
            *body = match pipeline.length(announced) {
                Err(_) => *body,
                Ok(Some(0)) if *body == ResponseBody::Empty => *body,
                Ok(Some(length)) if !pipeline.has_trailers() => ResponseBody::Length(length),
                Ok(_) => ResponseBody::Stream,
            };
        }
        Ok(())
    }

    async fn await_response(
        &mut self,
        upstream: &mut Upstream,
        head: &mut ResponseHead,
    ) -> Result<(), BodyHalt> {
        let idle = self.service.listener.config.timeouts.stream_idle;
        let timer = self.timer;
        timer.set(self.until_total(idle).map_err(BodyHalt::Reason)?);
        let waited = timer.run(std::future::poll_fn(|cx| {
            // A body that is still being sent goes on beside the response.
            let before = (
                self.upload_progress(),
                self.response_taken(),
                self.response_waits(),
            );
            if let Poll::Ready(Err(reason)) = self.poll_upload(cx, upstream) {
                return Poll::Ready(Err(BodyHalt::Reason(reason)));
            }
            let settled =
                self.with_response(Some(&mut *head), upstream, |pipeline, calls, source, _| {
                    pipeline.poll_settle(cx, calls, source)
                });
            let waits = self.response_waits();
            if before != (self.upload_progress(), self.response_taken(), waits) {
                let phase = if waits { Duration::MAX } else { idle };
                self.timer
                    .set(self.until_total(phase).map_err(BodyHalt::Reason)?);
            }
            if settled.is_ready() {
                return settled;
            }
            if let Poll::Ready(reason) = upstream.poll_overdue(cx) {
                return Poll::Ready(Err(BodyHalt::Reason(reason)));
            }
            if self.upload == Upload::Done && self.side.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(BodyHalt::Reason(Reason::ClientGone)));
            }
            Poll::Pending
        }));
        match waited.await {
            Ok(settled) => settled,
            Err(_) => Err(BodyHalt::Reason(self.timed_out(Reason::ResponseTimeout))),
        }
    }

    fn response_waits(&self) -> bool {
        self.response_body.as_ref().is_some_and(|b| b.is_waiting())
    }

    fn response_taken(&self) -> u64 {
        self.response_body.as_ref().map_or(0, |p| p.taken)
    }

    /// Lends the response's pipeline with what it needs, and the count of bytes to the client. There is one. `head`
    /// is none once it was sent.
    fn with_response<R>(
        &mut self,
        head: Option<&mut ResponseHead>,
        upstream: &mut Upstream,
        work: impl FnOnce(
            &mut Pipeline,
            &mut FilterCalls<'_, '_>,
            &mut FromEndpoint<'_>,
            (&mut C, &mut u64),
        ) -> R,
    ) -> R {
        let mut pipeline = self.response_body.take().unwrap_or_default();
        let perform = performing(self.service, self.connection, &self.client);
        let Journal {
            endpoint,
            pool,
            bytes_out,
            status,
            ..
        } = &mut self.journal;
        let facts = ResponseFacts {
            request: request_facts(self.connection, &self.client, &self.id, self.framing),
            version: self.head.version,
            method: self.head.method(),
            authority: self.head.authority(),
            target: self.head.target(),
            endpoint: endpoint.as_deref().unwrap_or(""),
            pool: pool.as_ref().map_or("", |p| &*p.config.name),
        };
        let message = match head {
            Some(head) => Message::Response { facts, head },
            None => Message::Sent {
                facts,
                status: *status,
            },
        };
        let mut calls = FilterCalls {
            chain: &self.service.chain,
            state: &mut self.state,
            message,
            phase: Phase::ResponseBody,
            perform: &perform,
        };
        let mut source = FromEndpoint {
            upstream,
            scratch: &self.service.worker.scratch,
        };
        let done = work(
            &mut pipeline,
            &mut calls,
            &mut source,
            (&mut *self.side, bytes_out),
        );
        self.response_body = Some(pipeline);
        done
    }

    /// Moves a piece of what the filters make of the response's body towards the client, as [`Self::poll_filtered_upload`].
    pub(super) fn poll_filtered_download(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
        gone: &mut bool,
        idle: Duration,
    ) -> Poll<Result<Pulled, Reason>> {
        let before = (self.response_taken(), self.response_waits());
        let pulled = self.with_response(
            None,
            upstream,
            |pipeline, calls, source, (side, bytes_out)| {
                pipeline.poll_next(cx, calls, source, &mut |cx, data| {
                    *bytes_out += data.len() as u64;
                    *gone |= side.send_data(cx, data).is_err();
                })
            },
        );
        // What a filter swallows is progress, too, and while one waits the endpoint is not idle.
        let waits = self.response_waits();
        if (self.response_taken(), waits) != before {
            let phase = if waits { Duration::MAX } else { idle };
            self.timer.set(self.until_total(phase)?);
        }
        pulled.map_err(passing)
    }

    /// The trailers of a response whose body has ended, as filters leave them.
    pub(super) fn response_trailers(
        &mut self,
        upstream: &mut Upstream,
    ) -> Result<Option<Fields>, Reason> {
        let seen = self.response_body.as_mut().and_then(|p| p.take_trailers());
        let Some(mut trailers) = seen.or_else(|| upstream.trailers()) else {
            return Ok(None);
        };
        forward::strip_trailers(&mut trailers, &self.response_hop);
        if self.service.chain.wants(Phase::ResponseTrailers) {
            let body = self.response_body.take();
            let outcome = self.with_response(None, upstream, |_, calls, _, _| {
                calls
                    .chain
                    .trailers(calls.state, &calls.message, &mut trailers)
            });
            self.response_body = body;
            went_on(&outcome)?;
            forward::strip_trailers(&mut trailers, &self.response_hop);
        }
        Ok(Some(trailers))
    }

    /// Ends an exchange whose body did not go on while a head waited for it.
    async fn halted(&mut self, halt: BodyHalt, too_large: Reason) -> Ending {
        match halt {
            BodyHalt::TooLarge => self.fail(too_large).await,
            BodyHalt::Reason(reason) => self.give_up(reason).await,
            BodyHalt::Filter(outcome) => match *outcome {
                Outcome::Reply(reply) => self.reply(reply, Some(Reason::FilterReply)).await,
                Outcome::Drop => self.give_up(Reason::FilterDrop).await,
                Outcome::Reset => self.give_up(Reason::FilterReset).await,
                _ => self.give_up(Reason::FilterFault).await,
            },
        }
    }
}

/// Performs what filters wait for in a body. It outlives the call that asks for it.
fn performing<'a>(
    service: &'a Rc<Service>,
    connection: &'a Rc<Connection>,
    client: &Client,
) -> impl Fn(Box<Suspension>) -> Effects + 'a {
    let (client, origin) = (client.ip, client.origin);
    move |suspension| {
        let (service, connection) = (service.clone(), connection.clone());
        Box::pin(async move {
            let caller = Caller {
                service: &service,
                connection: &connection,
                client,
                origin,
                make: make_call,
            };
            let results = perform(&caller, &suspension).await;
            (suspension, results)
        })
    }
}

/// What ended a body of which a head was sent already.
fn passing(halt: BodyHalt) -> Reason {
    match halt {
        BodyHalt::Reason(reason) => reason,
        BodyHalt::Filter(outcome) => went_on(&outcome).err().unwrap_or(Reason::FilterFault),
        // Only what holds a head back has a maximum.
        BodyHalt::TooLarge => Reason::FilterFault,
    }
}

fn went_on(outcome: &Outcome) -> Result<(), Reason> {
    match outcome {
        Outcome::Continue => Ok(()),
        Outcome::Drop => Err(Reason::FilterDrop),
        Outcome::Reset => Err(Reason::FilterReset),
        _ => Err(Reason::FilterFault),
    }
}
