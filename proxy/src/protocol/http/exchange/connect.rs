//! A connection for one try: kept, shared or dialled, with the request's head on its way.

use super::Exchange;
use super::repeat::{Failed, is_idempotent};
use crate::config::{HostPolicy, HttpOptions, PoolConfig, PoolProtocol};
use crate::error::Reason;
use crate::generation::Multiplexed;
use crate::head::{RequestHead, Version};
use crate::io::Io;
use crate::protocol::http::client_side::ClientSide;
use crate::protocol::http::forward::Hop;
use crate::protocol::http::h1;
use crate::protocol::http::h1::framing::Framing;
use crate::protocol::http::h1::write::{self, BodyFraming};
use crate::protocol::http::h2_upstream::{self, Target, Unsent};
use crate::protocol::http::handler_upstream;
use crate::protocol::http::upstream::Upstream;
use crate::tls::{Offer, agreed_http2};
use crate::upstream::{ConnectError, DialRight, Dialling, Failure, Lease, Pool, StreamPermit};
use socket2::SockRef;
use std::sync::Arc;
use std::time::Duration;

/// Connections that one try may find ending under its hands.
const DIALS_MAX: usize = 8;

impl<C: ClientSide> Exchange<'_, C> {
    /// A connection with the request's head on its way.
    pub(super) async fn connect(
        &mut self,
        pool: &Arc<Pool>,
        lease: &Lease,
        fresh: bool,
    ) -> Result<Upstream, Failed> {
        if pool.config.is_handled() {
            self.continue_now();
            return self.to_handler(pool, lease);
        }
        if pool.config.protocol != PoolProtocol::Http1 && self.wanted_upgrade().is_none() {
            // Boxed, so that exchanges over HTTP/1 do not carry the state of this.
            return Box::pin(self.connect_shared(pool, lease, fresh)).await;
        }
        match self.kept(pool, lease, fresh) {
            Some(io) => Ok(self.over_http1(io, true, pool, lease)),
            None => {
                let io = self.dial(pool, lease, Offer::Http1).await?;
                Ok(self.over_http1(io, false, pool, lease))
            }
        }
    }

    /// The same for a pool whose endpoints may speak HTTP/2: a stream on a connection that others use too.
    async fn connect_shared(
        &mut self,
        pool: &Arc<Pool>,
        lease: &Lease,
        fresh: bool,
    ) -> Result<Upstream, Failed> {
        let worker = self.service.worker.clone();
        let (endpoint, class) = (lease.endpoint.id, pool.connection_class());
        let deadline =
            tokio::time::Instant::now() + self.connect_timeout(pool).map_err(Failed::at_all)?;
        if !self.is_repeatable() {
            // The tasks of connections that have just ended get their turn to say so.
            tokio::task::yield_now().await;
        }
        let mut dials = 0;
        // Waiting for others' dials is bounded by the deadline.
        while dials < DIALS_MAX {
            if let Some(permit) = worker.shared.take(endpoint, class, h2_upstream::has_room) {
                match self.over_http2(permit, !fresh, pool, lease)? {
                    Some(upstream) => return Ok(upstream),
                    None => {
                        dials += 1;
                        continue;
                    }
                }
            }
            let single = worker.shared.is_single(endpoint, class);
            if single && let Some(io) = self.kept(pool, lease, fresh) {
                return Ok(self.over_http1(io, true, pool, lease));
            }
            // An endpoint that is silent on one connection may be so on others: a request that can go elsewhere does not
            // wait for that long, and one that cannot is sent all the same.
            let doubted = worker.shared.is_doubted(endpoint, class);
            let elsewhere = doubted && self.has_others();
            let patience = if doubted {
                deadline.min(tokio::time::Instant::now() + pool.config.http2.timeout)
            } else {
                deadline
            };
            let turn = match worker.shared.dial_right(endpoint) {
                DialRight::Theirs(dial) if !single => {
                    match tokio::time::timeout_at(patience, dial.ended()).await {
                        Ok(None) => continue,
                        Ok(Some(reason)) => return Err(Failed::to_connect(reason)),
                        Err(_) if elsewhere => {
                            if dial.give_up(pool.config.http2.timeout) {
                                lease.failed(Failure::Connect);
                            }
                            return Err(Failed::to_connect(Reason::ConnectTimeout));
                        }
                        Err(_) if doubted => {
                            let room = h2_upstream::has_room;
                            let permit = worker.shared.take_doubted(endpoint, class, room);
                            match permit.map(|permit| self.over_http2(permit, !fresh, pool, lease))
                            {
                                Some(Ok(Some(upstream))) => return Ok(upstream),
                                Some(Err(failed)) => return Err(failed),
                                Some(Ok(None)) => {
                                    dials += 1;
                                    continue;
                                }
                                None => {
                                    let reason = self.timed_out(Reason::ConnectTimeout);
                                    return Err(Failed::to_connect(reason));
                                }
                            }
                        }
                        Err(_) => {
                            let reason = self.timed_out(Reason::ConnectTimeout);
                            return Err(Failed::to_connect(reason));
                        }
                    }
                }
                DialRight::Theirs(_) => None,
                DialRight::Mine(turn) => Some(turn),
            };
            dials += 1;
            let offer = match pool.config.protocol {
                PoolProtocol::Auto => Offer::Either,
                _ => Offer::Http2,
            };
            let io = match self.dial(pool, lease, offer).await {
                Ok(io) => io,
                Err(failed) => {
                    if let Some(turn) = turn {
                        turn.failed(failed.reason);
                    }
                    return Err(failed);
                }
            };
            let http2 = match &io {
                Io::TlsOut(stream) if offer == Offer::Either => agreed_http2(stream),
                _ => true,
            };
            if !http2 {
                worker.shared.note_single(endpoint, class);
                return Ok(self.over_http1(io, false, pool, lease));
            }
            let limits = self.response_limits();
            let idle_max = match pool.config.keep_alive_max {
                0 => Duration::ZERO,
                _ => pool.config.keep_alive_timeout,
            };
            let place = h2_upstream::Place {
                shared: &worker.shared,
                endpoint: &lease.endpoint,
                class,
                idle_max,
                pings: &pool.config.http2,
            };
            let dial = turn.as_ref().map(Dialling::dial);
            let opened = h2_upstream::open(io, &limits, turn, place);
            match tokio::time::timeout_at(deadline, opened).await {
                Ok(Ok(permit)) => {
                    if elsewhere
                        && let Some(dial) = dial
                        && tokio::time::timeout_at(patience, dial.ended())
                            .await
                            .is_err()
                    {
                        // Nobody else is to wait for it either.
                        permit.line().retire();
                        lease.failed(Failure::Connect);
                        return Err(Failed::to_connect(Reason::ConnectTimeout));
                    }
                    if let Some(upstream) = self.over_http2(permit, false, pool, lease)? {
                        return Ok(upstream);
                    }
                }
                Ok(Err(_)) => return Err(Failed::to_connect(Reason::UpstreamReset)),
                Err(_) => return Err(Failed::to_connect(self.timed_out(Reason::ConnectTimeout))),
            }
        }
        Err(Failed::to_connect(Reason::UpstreamReset))
    }

    /// A connection that lies ready for this request.
    fn kept(&self, pool: &Pool, lease: &Lease, fresh: bool) -> Option<Io> {
        if fresh || self.wanted_upgrade().is_some() {
            return None;
        }
        self.service.worker.take_kept(&lease.endpoint, pool)
    }

    /// Whether a death of the connection under this request would do no harm, however much of it was sent.
    fn is_repeatable(&self) -> bool {
        is_idempotent(self.head.method()) && !self.framing.has_body()
    }

    async fn dial(&self, pool: &Pool, lease: &Lease, offer: Offer) -> Result<Io, Failed> {
        let timeout = self.connect_timeout(pool).map_err(Failed::at_all)?;
        let options = &self.service.listener.config.tcp;
        let dialled = lease.connect(timeout, options, offer).await;
        if let (Ok(io), Some(_)) = (&dialled, pool.config.tcp_user_timeout) {
            // A peer that vanished without a word: what was sent to it is given up before the response's time is.
            let _ = SockRef::from(io.tcp()).set_tcp_user_timeout(pool.config.tcp_user_timeout);
        }
        dialled.map_err(|error: ConnectError| {
            Failed::to_connect(match error.reason() {
                Reason::ConnectTimeout => self.timed_out(Reason::ConnectTimeout),
                reason => reason,
            })
        })
    }

    fn connect_timeout(&self, pool: &Pool) -> Result<Duration, Reason> {
        let configured = pool.config.connect_timeout;
        let of_try = self.state.route.try_timeout;
        self.until_total(of_try.map_or(configured, |t| t.min(configured)))
    }

    fn over_http1(&self, io: Io, reused: bool, pool: &Pool, lease: &Lease) -> Upstream {
        let mut out = self.service.worker.buffer();
        let framing = body_framing(self.framing);
        let host = host_for(&self.head, &pool.config, &lease.endpoint.authority);
        write::request(
            &mut out,
            &self.head,
            host.as_ref(),
            framing,
            self.wanted_upgrade().as_deref(),
            self.hop.trailers,
        );
        let buffer = self.service.worker.buffer();
        Upstream::Http1(h1::upstream::Upstream::new(
            io, reused, out, buffer, framing,
        ))
    }

    /// No connection: the endpoint is a component.
    fn to_handler(&self, pool: &Pool, lease: &Lease) -> Result<Upstream, Failed> {
        let host = host_for(&self.head, &pool.config, &lease.endpoint.authority);
        let target = Target {
            secure: self.client.origin.secure,
            authority: host.as_ref(),
            framing: self.framing,
            trailers: self.hop.trailers,
        };
        let begun = handler_upstream::Upstream::begin(pool, lease, &self.head, &target);
        match begun {
            Some(upstream) => Ok(Upstream::Handler(Box::new(upstream))),
            None => Err(Failed::at_all(Reason::BadRequest)),
        }
    }

    /// None: the connection has just ended, and another is needed.
    fn over_http2(
        &self,
        permit: StreamPermit<Multiplexed>,
        reused: bool,
        pool: &Pool,
        lease: &Lease,
    ) -> Result<Option<Upstream>, Failed> {
        let host = host_for(&self.head, &pool.config, &lease.endpoint.authority);
        let target = Target {
            secure: pool.config.tls.is_some(),
            authority: host.as_ref(),
            framing: self.framing,
            trailers: self.hop.trailers,
        };
        match h2_upstream::Upstream::send(permit, reused, &self.head, &target) {
            Ok(upstream) => Ok(Some(Upstream::Http2(Box::new(upstream)))),
            Err(Unsent::Connection) => Ok(None),
            Err(Unsent::Request) => Err(Failed::at_all(Reason::BadRequest)),
        }
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
        HostPolicy::Preserve if head.host().is_empty() => authority.as_bytes().into(),
        HostPolicy::Preserve => head.host().into(),
        HostPolicy::Endpoint => authority.as_bytes().into(),
        HostPolicy::Literal(host) => host.as_bytes().into(),
    }
}

/// The protocols that a request asks to upgrade to and may, as a list.
pub fn allowed_upgrade(
    version: Version,
    hop: &Hop,
    options: &HttpOptions,
    pool: &PoolConfig,
) -> Option<Vec<u8>> {
    if hop.upgrade.is_empty()
        || version == Version::Http10
        || pool.protocol == PoolProtocol::Http2
        || pool.is_handled()
    {
        return None;
    }
    let is_allowed = |protocol: &[u8]| {
        let mut allowed = options.upgrade.iter();
        allowed.any(|p| p.as_bytes().eq_ignore_ascii_case(protocol))
    };
    let listed = hop.upgrade.iter().map(Vec::as_slice);
    let allowed: Vec<&[u8]> = listed.filter(|protocol| is_allowed(protocol)).collect();
    (!allowed.is_empty()).then(|| allowed.join(&b", "[..]))
}

/// How the body of a request is framed towards an endpoint.
pub fn body_framing(framing: Framing) -> BodyFraming {
    match framing {
        Framing::None | Framing::Empty | Framing::UntilClose => BodyFraming::None,
        Framing::Length(n) => BodyFraming::Length(n),
        Framing::Chunked => BodyFraming::Chunked,
    }
}
