//! One relayed connection, phase by phase: stream filters, the pool, the endpoint, then bytes both ways.

use super::pieces::{Filtered, Pieces};
use super::relay::{RelayEnd, RelayOptions, Tally, relay};
use crate::chain::{ExchangeState, StreamFacts, StreamOutcome, Suspension};
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::Service;
use crate::io::{DropBounds, Io, Timer, drop_quietly, reset_on_close};
use crate::telemetry::Record;
use crate::tls::Offer;
use crate::upstream::{EndpointId, Lease, Patience, Pick, PickError, Pool, backoff};
use crate::wasm::{EffectResult, Phase};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, ReadBuf};

/// How the session ended, for its record.
struct Journal {
    started: Instant,
    started_at: SystemTime,
    pool: Option<Arc<Pool>>,
    endpoint: Option<Arc<str>>,
    tries: u32,
    upstream_time: Option<Duration>,
    reason: Option<Reason>,
}

/// Performs what filters suspend for: the results, in order. What can be asked for is more than this room knows.
pub type Perform = for<'a> fn(
    &'a Rc<Service>,
    &'a Rc<Connection>,
    &'a Suspension,
) -> Pin<Box<dyn Future<Output = Vec<EffectResult>> + 'a>>;

struct Session<'a> {
    service: &'a Rc<Service>,
    perform: Perform,
    connection: &'a Rc<Connection>,
    state: RefCell<ExchangeState>,
    journal: Journal,
    /// Bytes delivered, true at every moment.
    tally: Tally,
    ended: bool,
}

/// Serves the session to its end and writes its record.
pub async fn serve(service: Rc<Service>, connection: Rc<Connection>, io: Io, perform: Perform) {
    service.metrics.session_started();
    let mut session = Session {
        service: &service,
        perform,
        connection: &connection,
        state: RefCell::default(),
        journal: Journal {
            started: Instant::now(),
            started_at: SystemTime::now(),
            pool: None,
            endpoint: None,
            tries: 0,
            upstream_time: None,
            reason: None,
        },
        tally: Tally::default(),
        ended: false,
    };
    session.phases(io).await;
    session.ended = true;
}

impl Session<'_> {
    /// Every phase of a session, in order.
    async fn phases(&mut self, mut io: Io) {
        let mut initial = Vec::new();
        if let Err(reason) = self.filters(&mut io, &mut initial).await {
            return self.refuse(io, reason).await;
        }
        let (upstream, lease) = match self.upstream().await {
            Ok(connected) => connected,
            Err(reason) => return self.refuse(io, reason).await,
        };
        self.relay(io, upstream, initial).await;
        drop(lease);
    }

    // ------------------------------------------------------------ filters

    /// Connect, client hello and first bytes, each when a filter wants it. What was read for them is in `initial`.
    async fn filters(&mut self, io: &mut Io, initial: &mut Vec<u8>) -> Result<(), Reason> {
        let service = self.service;
        let (chain, connection) = (&service.chain, self.connection);
        if chain.is_empty() {
            return Ok(());
        }
        let facts = facts_of(connection);
        let outcome = chain.connect(self.state.get_mut(), &facts);
        self.decided(outcome, io, &facts, &[]).await?;
        let deadline = tokio::time::Instant::now() + service.listener.config.timeouts.head;
        if chain.wants(Phase::ClientHello)
            && let Io::Tcp(stream) = io
        {
            let read =
                tokio::time::timeout_at(deadline, crate::tls::client_hello(stream, initial)).await;
            if let Ok(Ok(Some(hello))) = read {
                let offered: Vec<_> = hello
                    .alpn
                    .iter()
                    .map(|p| String::from_utf8_lossy(p))
                    .collect();
                let offered = offered.join(",");
                let facts = StreamFacts {
                    sni: hello.sni.as_deref(),
                    offered_alpn: Some(&offered),
                    ..facts
                };
                let outcome = chain.client_hello(self.state.get_mut(), &facts);
                self.decided(outcome, io, &facts, &[]).await?;
            }
        }
        let wanted = chain.first_bytes();
        if wanted > 0 {
            read_at_least(io, initial, wanted, deadline).await?;
            let shown = &initial[..initial.len().min(wanted)];
            let outcome = chain.first_bytes_seen(self.state.get_mut(), &facts, shown);
            self.decided(outcome, io, &facts, shown).await?;
        }
        Ok(())
    }

    /// What comes of a phase, once everything is there that its filters wait for.
    async fn decided(
        &mut self,
        mut outcome: StreamOutcome,
        io: &mut Io,
        facts: &StreamFacts<'_>,
        bytes: &[u8],
    ) -> Result<(), Reason> {
        let service = self.service;
        loop {
            outcome = match outcome {
                StreamOutcome::Continue => return Ok(()),
                StreamOutcome::Drop => return Err(Reason::FilterDrop),
                StreamOutcome::Reset => return Err(Reason::FilterReset),
                StreamOutcome::Fault { .. } => return Err(Reason::FilterFault),
                StreamOutcome::Suspend(suspension) => {
                    let mut work = (self.perform)(service, self.connection, &suspension);
                    let results = poll_fn(|cx| match work.as_mut().poll(cx) {
                        Poll::Ready(results) => Poll::Ready(Some(results)),
                        Poll::Pending => poll_reset(io, cx).map(|()| None),
                    })
                    .await
                    .ok_or(Reason::ClientGone)?;
                    drop(work);
                    let (chain, state) = (&service.chain, self.state.get_mut());
                    chain.resume_stream(state, facts, bytes, *suspension, &results)
                }
            };
        }
    }

    // ------------------------------------------------------------ upstream

    /// Dials endpoint after endpoint until one takes the connection.
    async fn upstream(&mut self) -> Result<(Io, Lease), Reason> {
        let service = self.service;
        let route = self.state.get_mut().route.clone();
        let index = route
            .pool
            .or(service.listener.config.pool)
            .ok_or(Reason::NoRoute)?;
        let pool = service
            .generation
            .pools
            .get(index)
            .ok_or(Reason::NoRoute)?
            .clone();
        self.journal.pool = Some(pool.clone());
        if !pool.is_settled() {
            pool.first_checks().await;
        }
        let mut tried: SmallVec<[EndpointId; 4]> = SmallVec::new();
        let mut left = route.retries.unwrap_or(pool.config.retries);
        let retries = left;
        let mut last = None;
        let mut patience = Patience::default();
        loop {
            let pick = pool.pick(&Pick {
                sticky: route.sticky_key.as_deref(),
                hint: route.endpoint.as_deref(),
                client: self.connection.peer.ip(),
                exclude: &tried,
            });
            let lease = match (pick, last) {
                (Ok(lease), _) => lease,
                (Err(PickError::NoHealthy), _) if pool.come_back(&mut patience).await => {
                    tried.clear();
                    continue;
                }
                (Err(_), Some(reason)) => return Err(reason),
                (Err(PickError::NoHealthy), None) => return Err(Reason::NoHealthyEndpoint),
                (Err(PickError::Overload), None) => return Err(Reason::Overload),
            };
            if tried.contains(&lease.endpoint.id) {
                // There is no other: it gets a moment.
                tokio::time::sleep(backoff(tried.len() as u32 - 1)).await;
            }
            self.journal.tries += 1;
            self.journal.endpoint = Some(lease.endpoint.text.clone());
            let started = Instant::now();
            let dialled = lease
                .connect(
                    pool.config.connect_timeout,
                    &service.listener.config.tcp,
                    Offer::Bytes,
                )
                .await;
            self.journal.upstream_time = Some(started.elapsed());
            match dialled {
                Ok(stream) => {
                    lease.succeeded();
                    return Ok((stream, lease));
                }
                Err(error) if left == 0 => {
                    let refused = error.reason() == Reason::ConnectRefused && retries > 0;
                    if !refused || !pool.hold_on(&mut patience).await {
                        return Err(error.reason());
                    }
                    tried.clear();
                    last = Some(error.reason());
                }
                Err(error) => {
                    left -= 1;
                    tried.push(lease.endpoint.id);
                    last = Some(error.reason());
                }
            }
        }
    }

    // ------------------------------------------------------------ bytes

    async fn relay(&mut self, mut io: Io, mut upstream: Io, initial: Vec<u8>) {
        let config = &self.service.listener.config;
        let worker = &self.service.worker;
        let timer = Timer::new();
        let filtered = Filtered::new(&self.service.chain, facts_of(self.connection), &self.state);
        let options = RelayOptions {
            scratch: &worker.scratch,
            pipes: config.tcp.splice.then_some(&worker.pipes),
            idle: config.timeouts.stream_idle,
            half_closed: config.timeouts.half_closed,
            timer: &timer,
            tally: &self.tally,
            pieces: filtered.as_ref().map(|filtered| filtered as &dyn Pieces),
        };
        let end = match (&mut io, &mut upstream) {
            (Io::Tcp(client), Io::Tcp(upstream)) => {
                relay(client, upstream, &initial, &options).await
            }
            (client, upstream) => relay(client, upstream, &initial, &options).await,
        };
        self.journal.reason = match end {
            RelayEnd::Finished => None,
            RelayEnd::ClientReset => Some(Reason::ClientGone),
            RelayEnd::UpstreamReset => Some(Reason::UpstreamTruncated),
            RelayEnd::Idle => Some(Reason::IdleTimeout),
            RelayEnd::Refused => {
                let refused = filtered.and_then(|filtered| filtered.refused.get());
                return self
                    .refuse(io, refused.unwrap_or(Reason::FilterFault))
                    .await;
            }
        };
    }

    /// Ends a connection that will not be relayed, or not any more: quietly or with a reset.
    async fn refuse(&mut self, io: Io, reason: Reason) {
        self.journal.reason = Some(reason);
        if reason == Reason::FilterReset {
            reset_on_close(io.tcp());
        } else {
            drop_quietly(io, &self.service.worker.scratch, DropBounds::default()).await;
        }
    }

    /// The one record of this session.
    fn record(&self) {
        let (journal, connection, service) = (&self.journal, self.connection, self.service);
        let (bytes_in, bytes_out) = (self.tally.up.get(), self.tally.down.get());
        service.metrics.session_ended(bytes_in, bytes_out);
        if let Some(reason) = journal.reason {
            service.metrics.reason(reason);
        }
        service.worker.log(&Record {
            start: journal.started_at,
            duration: journal.started.elapsed(),
            listener: &connection.listener,
            client: &connection.peer_text,
            peer: &connection.peer_text,
            request_id: "",
            exchange: None,
            bytes_in,
            bytes_out,
            pool: journal.pool.as_ref().map(|pool| &*pool.config.name),
            endpoint: journal.endpoint.as_deref(),
            tries: journal.tries,
            filter_time: self.state.borrow().filter_time,
            filter_wait: self.state.borrow().filter_wait,
            upstream_time: journal.upstream_time,
            reason: journal.reason,
            tls_version: connection.tls.as_ref().map(|tls| tls.version),
            sni: connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            trace_id: None,
        });
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.journal.reason = Some(Reason::Drained);
        }
        self.record();
    }
}

/// Ready when the connection broke. A client that only ended its side may be waiting for what the endpoint says first.
fn poll_reset(io: &Io, cx: &mut Context<'_>) -> Poll<()> {
    let mut byte = [MaybeUninit::uninit()];
    match io.tcp().poll_peek(cx, &mut ReadBuf::uninit(&mut byte)) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        _ => Poll::Pending,
    }
}

/// What filters are told of a session by its connection alone.
fn facts_of(connection: &Connection) -> StreamFacts<'_> {
    StreamFacts {
        connection,
        client: connection.peer.ip(),
        client_text: &connection.peer_text,
        client_port: connection.peer.port(),
        sni: None,
        offered_alpn: None,
    }
}
/// Reads until `wanted` bytes are there, the client ends, or `deadline` passes.
async fn read_at_least(
    io: &mut Io,
    bytes: &mut Vec<u8>,
    wanted: usize,
    deadline: tokio::time::Instant,
) -> Result<(), Reason> {
    while bytes.len() < wanted {
        match tokio::time::timeout_at(deadline, io.read_buf(bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) | Err(_) => break,
            Ok(Err(_)) => return Err(Reason::ClientGone),
        }
    }
    Ok(())
}
