//! One request and its response, phase by phase. `Exchange::phases` is the whole path in order; the steps lie in `exchange/`.

mod behind;
mod body_filters;
mod call;
mod connect;
mod ends;
mod final_recipient;
mod pipeline;
mod record;
mod repeat;
mod response;
mod suspended;
mod tries;
mod tunnel;
mod upload;

pub use call::{call, make_call};
pub use connect::{allowed_upgrade, body_framing, host_for};
pub use record::record_refused;

use crate::chain::{ExchangeState, Outcome, RequestFacts, ResponseFacts};
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::{RequestId, Service};
use crate::head::{Fields, RequestHead, ResponseHead};
use crate::io::timer::Timer;
use crate::protocol::http::client::Client;
use crate::protocol::http::client_side::{ClientSide, ResponseBody};
use crate::protocol::http::forward::{self, Arrived, Hop};
use crate::protocol::http::h1::framing::Framing;
use crate::protocol::http::h1::parse::ParsedResponse;
use crate::protocol::http::inner::InnerJournal;
use crate::protocol::http::upstream::Upstream;
use crate::upstream::{Lease, Pool};
use crate::wasm::Phase;
use pipeline::Pipeline;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

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
    /// A head was sent and the rest will not come, for what the code says (RFC 9113 §7).
    Abort(h2::Reason),
    /// Close without a byte.
    Drop,
    /// Close with a reset.
    Reset,
    /// The client is gone already.
    Gone,
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
    /// The request's trailers, once its body has ended.
    trailers: Option<Fields>,
    /// The bodies on their way through filters that want to see them.
    request_body: Option<Box<Pipeline>>,
    response_body: Option<Box<Pipeline>>,
    upload: Upload,
    journal: Journal,
    kind: Kind,
    /// What the exchanges behind middleware tell.
    inner: Option<Rc<RefCell<InnerJournal>>>,
    /// The response filters have run.
    responded: bool,
    ended: bool,
}

/// Who asks.
enum Kind {
    /// A client, of whom there will be a record.
    Client,
    /// The proxy itself, for a filter.
    Call,
    /// Middleware before the chain; what its record is to tell goes to the client's exchange.
    Behind(Rc<RefCell<InnerJournal>>),
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
    /// When the head of the response came, from the start.
    answered: Duration,
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
        let mut incoming = incoming;
        let options = &service.listener.config.http;
        let arrived = forward::arrive(connection, options, &mut incoming.head);
        service.metrics.exchange_started();
        Self::of(service, connection, timer, side, incoming, arrived)
    }

    /// An exchange before its first phase.
    fn of(
        service: &'a Rc<Service>,
        connection: &'a Rc<Connection>,
        timer: &'a Timer,
        side: &'a mut C,
        incoming: Incoming,
        arrived: Arrived,
    ) -> Self {
        let Arrived { client, id, hop } = arrived;
        Self {
            service,
            connection,
            timer,
            side,
            framing: incoming.framing,
            expect_continue: incoming.expect_continue,
            id: id.unwrap_or_else(|| service.worker.ids.next()),
            client,
            hop,
            response_hop: Hop::default(),
            state: ExchangeState::default(),
            replay: None,
            trailers: None,
            request_body: None,
            response_body: None,
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
                answered: Duration::ZERO,
                fields: None,
            },
            head: incoming.head,
            kind: Kind::Client,
            inner: None,
            responded: false,
            ended: false,
        }
    }

    /// Every phase of an exchange, in order.
    async fn phases(&mut self) -> Ending {
        if self.is_refused_trace() {
            return self.fail(Reason::MethodNotAllowed).await;
        }
        let mut decided = self.request_filters();
        if let Outcome::Suspend(suspension) = decided {
            // Boxed, so that other exchanges do not carry the state of this.
            decided = match Box::pin(self.request_resumed(suspension)).await {
                Ok(decided) => decided,
                Err(reason) => return self.give_up(reason).await,
            };
        }
        match decided {
            Outcome::Continue => {}
            Outcome::Reply(reply) => return self.reply(reply, Some(Reason::FilterReply)).await,
            Outcome::Drop => return self.cut(Reason::FilterDrop, Ending::Drop),
            Outcome::Reset => return self.cut(Reason::FilterReset, Ending::Reset),
            // What suspended has been resumed above.
            Outcome::Fault { .. } | Outcome::Suspend(_) => {
                return self.fail(Reason::FilterFault).await;
            }
        }
        if self.service.chain.wants(Phase::RequestBody)
            && self.framing != Framing::None
            && let Some(ending) = Box::pin(self.hold_request()).await
        {
            return ending;
        }
        if let Some(reply) = self.last_forward() {
            return self.reply(reply, None).await;
        }
        let (mut upstream, response, lease) = match self.answered().await {
            Ok(answered) => answered,
            Err(reason) => return self.give_up(reason).await,
        };
        let lease = lease.as_ref();
        if response.head.status == 101 {
            return self.tunnel(upstream, response.head, lease).await;
        }
        if self.opens_websocket() && matches!(response.head.status, 200..=299) {
            // To the client a success would be an open WebSocket (RFC 8441 §5).
            return self.fail(Reason::UpstreamMalformed).await;
        }
        let mut keep = response.keep_alive;
        let mut body = self.response_body(&response);
        let mut head = response.head;
        let status = head.status;
        self.response_hop = forward::strip_hop_by_hop(&mut head.fields);
        if let Some(ending) = self.response_filtered(&mut head).await {
            return ending;
        }
        if self.service.chain.wants(Phase::ResponseBody)
            && body != ResponseBody::None
            && !is_bodiless(head.status)
            && let Some(ending) =
                Box::pin(self.hold_response(&mut upstream, lease, &mut head, &mut body)).await
        {
            return ending;
        }
        if is_bodiless(head.status) && body != ResponseBody::None {
            // A filter chose a status without a body: what the upstream still sends must not follow it.
            upstream.discard_body();
            (keep, body) = (false, ResponseBody::None);
            head.fields.remove(b"content-length");
        } else if is_bodiless(status) && !is_bodiless(head.status) && self.head.method() != b"HEAD"
        {
            body = ResponseBody::Length(0);
        }
        if body == ResponseBody::None && self.may_change_response_body() {
            // The length is that of a body which filters would have had their say about.
            head.fields.remove(b"content-length");
        }
        self.send_head(head, body, None);
        let ending = self.bodies(&mut upstream, lease).await;
        if keep
            && ending == Ending::Complete
            && let (Some(lease), Some(pool)) = (lease, &self.journal.pool)
        {
            self.keep(upstream, lease, pool);
        }
        ending
    }

    /// The head of the response, from an endpoint of the pool or from the middleware that the chain ends in.
    async fn answered(&mut self) -> Result<(Upstream, ParsedResponse, Option<Lease>), Reason> {
        if let Some(behind) = &self.service.behind {
            if self.opens_websocket() {
                return Err(Reason::MethodNotAllowed);
            }
            // Boxed, so that other exchanges do not carry the state of this.
            let (upstream, response) = Box::pin(self.through(behind)).await?;
            self.journal.answered = self.journal.started.elapsed();
            self.publish_endpoint();
            return Ok((upstream, response, None));
        }
        let pool = self.pool()?;
        if self.opens_websocket() && self.wanted_upgrade().is_none() {
            return Err(Reason::MethodNotAllowed);
        }
        self.write_forwarding_fields();
        let (upstream, response, lease) = self.upstream_response(&pool).await?;
        self.publish_endpoint();
        Ok((upstream, response, Some(lease)))
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

    /// Shows an upstream's response to the filters; `Some` when one of them ended the exchange instead.
    async fn response_filtered(&mut self, head: &mut ResponseHead) -> Option<Ending> {
        self.responded = true;
        let mut decided = self.response_filters(head);
        if let Outcome::Suspend(suspension) = decided {
            decided = match Box::pin(self.response_resumed(suspension, head)).await {
                Ok(decided) => decided,
                Err(reason) => return Some(self.give_up(reason).await),
            };
        }
        Some(match decided {
            Outcome::Continue => return None,
            Outcome::Reply(reply) => self.reply(reply, Some(Reason::FilterReply)).await,
            Outcome::Drop => self.cut(Reason::FilterDrop, Ending::Drop),
            Outcome::Reset => self.cut(Reason::FilterReset, Ending::Reset),
            Outcome::Fault { .. } | Outcome::Suspend(_) => self.fail(Reason::FilterFault).await,
        })
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
        let id = self.id.as_str();
        forward::depart(self.connection, options, &self.client, id, &mut self.head);
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
}

/// What filters are told of a request beside its head.
pub fn request_facts<'a>(
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
        scheme: client.origin.scheme(),
        request_id: id.as_str(),
        has_body: framing.has_body(),
    }
}

/// Statuses whose responses have no body, whatever their fields say (RFC 9112 §6.3).
pub fn is_bodiless(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}
