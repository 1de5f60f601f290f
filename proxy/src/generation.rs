//! One immutable snapshot of everything that reload can change, and a worker's view of it.
//!
//! A [`Generation`] is built on the control thread and shared. Each worker makes its own [`Service`]s from it: a
//! listener, its chain with the worker's filter instances, and the worker itself. An exchange holds the `Rc<Service>`
//! it began with to its end; a reload puts a new one into the listener's [`ServiceSlot`].

use crate::chain::{Chain, Filter, Link, Middleware, Slots};
use crate::config::{Config, ListenerConfig};
use crate::head::HeadLimits;
use crate::io::{Io, Look, Scratch};
use crate::store::{Connections, Handle, Store};
use crate::telemetry::{HttpClock, ListenerMetrics, PoolMetrics, Record, WorkerLog};
use crate::tls::ServerTls;
use crate::upstream::{Endpoint, EndpointId, Kept, Pool, REST, Shared, Wire};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

/// Kept upstream connections of one worker, over all endpoints.
const KEPT_MAX: usize = 16 * 1024;
/// Output buffers a worker keeps for reuse, and the largest it keeps.
const BUFFERS_MAX: usize = 64;
/// What a new one begins with: room for most heads with what is added to them.
const BUFFER_BYTES: usize = 2048;
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// Everything a reload replaces, under one number.
pub struct Generation {
    pub number: u64,
    pub config: Arc<Config>,
    /// In the order of `config.pools`.
    pub pools: Vec<Arc<Pool>>,
    /// In the order of `config.filters`.
    pub members: Vec<Member>,
    /// In the order of `config.listeners`.
    pub listeners: Vec<Arc<Listener>>,
}

impl Generation {
    /// Every filter that is configured.
    pub fn filters(&self) -> impl Iterator<Item = &FilterUse> {
        self.members.iter().filter_map(|member| match member {
            Member::Filter(used) => Some(used),
            Member::Middleware(_) => None,
        })
    }

    /// The members of the chain of `listener`, in order.
    pub fn chain(&self, listener: &Listener) -> impl DoubleEndedIterator<Item = &Member> {
        let filters = listener.config.filters.iter();
        filters.filter_map(|&index| self.members.get(index))
    }

    /// The filters of `listener` in order, with a worker's instances.
    pub fn links(&self, listener: &Listener, slots: &Slots) -> Vec<Link> {
        let links = self.chain(listener).filter_map(|member| match member {
            Member::Filter(used) => Some(used.link(slots)),
            Member::Middleware(_) => None,
        });
        links.collect()
    }
}

/// What stands in a chain.
pub enum Member {
    Filter(FilterUse),
    Middleware(Arc<Middleware>),
}

/// A filter with the pools it names, as indices into this generation's, and its store.
pub struct FilterUse {
    pub filter: Arc<Filter>,
    pub pools: Arc<[usize]>,
    pub store: Arc<Store>,
}

impl FilterUse {
    /// With a worker's instance.
    pub fn link(&self, slots: &Slots) -> Link {
        Link {
            slot: slots.slot(&self.filter),
            pools: self.pools.clone(),
        }
    }
}

/// A listener with what was loaded for it.
pub struct Listener {
    pub config: Arc<ListenerConfig>,
    pub tls: Option<Arc<ServerTls>>,
}

impl Listener {
    pub fn head_limits(&self) -> HeadLimits {
        let limits = &self.config.limits;
        HeadLimits {
            bytes: limits.header_bytes,
            fields: limits.header_fields,
            target: limits.target_bytes,
        }
    }
}

/// A listener as one worker serves it in one generation; or what is behind middleware of its chain.
pub struct Service {
    pub generation: Arc<Generation>,
    pub listener: Arc<Listener>,
    pub chain: Chain,
    /// The stores of the chain's filters, in the same order.
    pub stores: Box<[Handle]>,
    /// What takes a request that the chain lets pass; none: a pool.
    pub behind: Option<Behind>,
    pub metrics: Rc<ListenerMetrics>,
    pub worker: Rc<Worker>,
}

/// Middleware, and what it asks: the rest of the chain, and a pool.
pub struct Behind {
    pub middleware: Arc<Middleware>,
    pub service: Rc<Service>,
}

impl Service {
    /// The service of `listener` with its chain cut at each middleware: the filters before it, and behind it a service
    /// with those that follow.
    pub fn new(
        generation: &Arc<Generation>,
        listener: &Arc<Listener>,
        slots: &Slots,
        metrics: &Rc<ListenerMetrics>,
        worker: &Rc<Worker>,
    ) -> Rc<Self> {
        let service = |mut filters: Vec<&FilterUse>, behind| {
            filters.reverse();
            let stores = filters.iter().map(|used| worker.stores.handle(&used.store));
            let stores = stores.collect();
            let links = filters.iter().map(|used| used.link(slots)).collect();
            Rc::new(Self {
                generation: generation.clone(),
                listener: listener.clone(),
                chain: Chain::new(links),
                stores,
                behind,
                metrics: metrics.clone(),
                worker: worker.clone(),
            })
        };
        let (mut filters, mut behind) = (Vec::new(), None);
        for member in generation.chain(listener).rev() {
            match member {
                Member::Filter(used) => filters.push(used),
                Member::Middleware(middleware) => {
                    let service = service(std::mem::take(&mut filters), behind.take());
                    behind = Some(Behind {
                        middleware: middleware.clone(),
                        service,
                    });
                }
            }
        }
        service(filters, behind)
    }

    /// The service and those behind it.
    pub fn and_behind(self: &Rc<Self>) -> impl Iterator<Item = Rc<Self>> {
        std::iter::successors(Some(self.clone()), |service| {
            service.behind.as_ref().map(|behind| behind.service.clone())
        })
    }
}

/// Where a listener's connections find the service of the day.
pub struct ServiceSlot(RefCell<Rc<Service>>);

impl ServiceSlot {
    pub fn new(service: Rc<Service>) -> Self {
        Self(RefCell::new(service))
    }

    pub fn current(&self) -> Rc<Service> {
        self.0.borrow().clone()
    }

    pub fn replace(&self, service: Rc<Service>) {
        *self.0.borrow_mut() = service;
    }
}

/// What belongs to one worker thread and outlives generations.
pub struct Worker {
    pub scratch: Scratch,
    pub pipes: crate::io::Pipes,
    pub ids: RequestIds,
    kept: RefCell<Kept<KeptConnection>>,
    /// Endpoints that sent something on a kept connection and have not been told so.
    unasked: RefCell<HashSet<EndpointId>>,
    /// HTTP/2 connections to endpoints.
    pub shared: Shared<Multiplexed>,
    /// Connections to stores.
    pub stores: Connections,
    log: RefCell<Option<WorkerLog>>,
    clock: RefCell<HttpClock>,
    /// None: nobody wants to know.
    pools: Option<PoolMetrics>,
    buffers: RefCell<Vec<Vec<u8>>>,
    waiting: RefCell<slab::Slab<Option<Waker>>>,
    drain: Cell<Option<DrainPlan>>,
}

#[derive(Clone, Copy)]
struct DrainPlan {
    window: Duration,
    began: Instant,
}

impl Worker {
    pub fn new(log: Option<WorkerLog>) -> Self {
        Self {
            scratch: Scratch::new(),
            pipes: crate::io::Pipes::new(),
            ids: RequestIds::new(),
            kept: RefCell::new(Kept::new(KEPT_MAX)),
            unasked: RefCell::default(),
            shared: Shared::new(),
            stores: Connections::default(),
            log: RefCell::new(log),
            clock: RefCell::default(),
            pools: None,
            buffers: RefCell::default(),
            waiting: RefCell::default(),
            drain: Cell::new(None),
        }
    }

    /// The worker, counting what pools do.
    pub fn counting(mut self, pools: PoolMetrics) -> Self {
        self.pools = Some(pools);
        self
    }

    /// An endpoint of `pool` has answered; all tries took as long as `after`.
    pub fn responded(&self, pool: &Pool, after: Duration) {
        if let Some(pools) = &self.pools {
            pools.responded(&pool.config.name, after);
        }
    }

    // ------------------------------------------------------------ upstream connections

    /// The connection to the endpoint that was used last, still lives and has nothing to read: what lies there unasked would
    /// be taken for the answer to the next request (RFC 9112 §9.2). Costs a system call, because only the kernel knows.
    pub fn take_kept(&self, endpoint: &Endpoint, pool: &Pool) -> Option<Io> {
        self.tell_unasked(endpoint);
        let lives = |kept: &mut KeptConnection| {
            if kept.wire != pool.wire() {
                return false;
            }
            let look = kept.io.look();
            if look == Look::Unasked {
                endpoint.sent_unasked();
            }
            look == Look::Quiet
        };
        let (now, max) = (Instant::now(), pool.config.keep_alive_max);
        let mut all = self.kept.borrow_mut();
        all.take(endpoint.id, now, max, lives).map(|kept| kept.io)
    }

    /// Keeps a connection whose last response has ended, as long as what `conduct` says of it allows.
    pub fn keep(&self, endpoint: &Endpoint, io: Io, conduct: Conduct, pool: &Pool) {
        self.tell_unasked(endpoint);
        let rest = match (conduct, endpoint.is_orderly()) {
            (Conduct::Framed, true) => None,
            (Conduct::Framed, false) | (Conduct::Bodyless, true) => Some(REST),
            (Conduct::Announced, true) => Some(REST_ANNOUNCED),
            // It is known to say more than it may, and here it had the opportunity.
            (Conduct::Bodyless | Conduct::Announced, false) => return,
        };
        let (max, timeout) = (pool.config.keep_alive_max, pool.config.keep_alive_timeout);
        let kept = KeptConnection {
            io,
            wire: pool.wire(),
        };
        let (now, mut all) = (Instant::now(), self.kept.borrow_mut());
        match rest {
            None => all.put(endpoint.id, kept, now, max, timeout),
            Some(rest) => all.put_to_rest(endpoint.id, kept, now, max, timeout, rest),
        }
    }

    /// Tells the endpoint what the sweep has found.
    fn tell_unasked(&self, endpoint: &Endpoint) {
        let mut unasked = self.unasked.borrow_mut();
        if !unasked.is_empty() && unasked.remove(&endpoint.id) {
            endpoint.sent_unasked();
        }
    }

    /// Drops kept connections to endpoints that are in none of `pools`: nobody will ask for them again.
    pub fn forget_others(&self, pools: &[Arc<Pool>]) {
        let ids: HashSet<EndpointId> = pools.iter().flat_map(|p| p.endpoint_ids()).collect();
        self.kept.borrow_mut().retain(|id| ids.contains(&id));
        self.unasked.borrow_mut().retain(|id| ids.contains(id));
        self.shared.retain(|id| ids.contains(&id));
        if let Some(counters) = &self.pools {
            counters.retain(|name| pools.iter().any(|pool| *pool.config.name == *name));
        }
    }

    /// Drops kept connections that expired or that the endpoint closed, and hands finished log lines over. Called about
    /// once a second.
    pub fn sweep(&self) {
        let quiet = |endpoint, kept: &mut KeptConnection| {
            let look = kept.io.glance();
            if look == Look::Unasked {
                self.unasked.borrow_mut().insert(endpoint);
            }
            look == Look::Quiet
        };
        let now = Instant::now();
        self.kept.borrow_mut().sweep(now, quiet);
        self.shared.sweep(now);
        if let Some(log) = &*self.log.borrow() {
            log.flush();
        }
    }

    // ------------------------------------------------------------ buffers and records

    /// An empty buffer for a head or for output, most often with an allocation from before.
    pub fn buffer(&self) -> Vec<u8> {
        let kept = self.buffers.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffer.capacity() > 0
            && buffer.capacity() <= BUFFER_BYTES_MAX
            && buffers.len() < BUFFERS_MAX
        {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// `time` for a `Date` field.
    pub fn date(&self, time: SystemTime) -> [u8; 29] {
        self.clock.borrow_mut().at(time)
    }

    pub fn log(&self, record: &Record<'_>) {
        if let Some(log) = &*self.log.borrow() {
            log.record(record);
        }
    }

    pub fn logs(&self) -> bool {
        self.log.borrow().is_some()
    }

    /// A reload may change where records go.
    pub fn set_log(&self, log: Option<WorkerLog>) {
        *self.log.borrow_mut() = log;
    }

    // ------------------------------------------------------------ drain

    pub fn is_draining(&self) -> bool {
        self.drain.get().is_some()
    }

    /// Connections that wait for work end now; those at work end after it; tunnels end somewhere within `window`.
    pub fn begin_drain(&self, window: Duration) {
        self.drain.set(Some(DrainPlan {
            window,
            began: Instant::now(),
        }));
        for (_, waker) in self.waiting.borrow_mut().iter_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    /// A place among those that a drain wakes.
    pub fn idle(self: &Rc<Self>) -> Idle {
        Idle {
            worker: self.clone(),
            key: None,
        }
    }

    /// For a tunnel: its own random moment within the drain's window, so that not all clients come back at once.
    pub fn drain_window(self: &Rc<Self>) -> DrainWindow {
        DrainWindow {
            idle: self.idle(),
            cut: None,
        }
    }
}

/// A connection rests so long after a response whose fields announced a body that was not due, as after a HEAD: an
/// endpoint that sends it all the same does so soon.
const REST_ANNOUNCED: Duration = Duration::from_secs(1);

/// What the last response says about the bytes that may still come on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// It had a body, or said that it has none.
    Framed,
    /// It could have no body, whatever its fields say: HEAD, 204, 304.
    Bodyless,
    /// The same, and its fields spoke of a body.
    Announced,
}

/// The handle of an HTTP/2 connection on which exchanges open streams.
pub struct Multiplexed {
    pub streams: h2::client::SendRequest<Bytes>,
    /// Counts what is asked of the endpoint: requests and pieces of their bodies.
    pub asked: Rc<Cell<u64>>,
    /// Exchanges that ended before their responses did.
    pub cancelled: Cell<u32>,
    /// Never sent: the connection's task learns by its end that nobody uses the connection any more.
    pub used: tokio::sync::oneshot::Sender<()>,
}

struct KeptConnection {
    io: Io,
    wire: Wire,
}

/// Something that waits and wants to know when the drain begins.
pub struct Idle {
    worker: Rc<Worker>,
    key: Option<usize>,
}

impl Idle {
    /// Ready once the worker drains.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.worker.is_draining() {
            return Poll::Ready(());
        }
        let mut waiting = self.worker.waiting.borrow_mut();
        match self.key {
            None => self.key = Some(waiting.insert(Some(cx.waker().clone()))),
            Some(key) => match &mut waiting[key] {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                slot => *slot = Some(cx.waker().clone()),
            },
        }
        Poll::Pending
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.worker.waiting.borrow_mut().remove(key);
        }
    }
}

/// When a tunnel must end, once the worker drains.
pub struct DrainWindow {
    idle: Idle,
    cut: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl DrainWindow {
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.is_none() {
            std::task::ready!(self.idle.poll_drain(cx));
            let Some(plan) = self.idle.worker.drain.get() else {
                return Poll::Pending;
            };
            let at = plan.began + plan.window.mul_f64(fastrand::f64());
            self.cut = Some(Box::pin(tokio::time::sleep_until(at.into())));
        }
        match &mut self.cut {
            Some(cut) => cut.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Makes request ids: a random part for the worker, then a counter, so that no two in a fleet are likely to meet.
pub struct RequestIds {
    prefix: u64,
    next: Cell<u64>,
}

impl RequestIds {
    fn new() -> Self {
        Self {
            prefix: fastrand::u64(..),
            next: Cell::new(fastrand::u32(..) as u64),
        }
    }

    pub fn next(&self) -> RequestId {
        let n = self.next.get();
        self.next.set(n.wrapping_add(1));
        let mut text = [0; 64];
        hex(self.prefix, &mut text[..16]);
        hex(n, &mut text[16..32]);
        RequestId { text, len: 32 }
    }
}

fn hex(n: u64, out: &mut [u8]) {
    for (i, digit) in out.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(n >> (60 - 4 * i)) as usize & 15];
    }
}

/// Names one exchange in logs, in `X-Request-Id` and for filters.
#[derive(Debug, Clone, Copy)]
pub struct RequestId {
    text: [u8; 64],
    len: u8,
}

impl RequestId {
    /// Takes a trusted peer's id when it is short and plain; else a new one is made.
    pub fn from_client(value: &[u8]) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if value.is_empty() || value.len() > 64 || !value.iter().all(plain) {
            return None;
        }
        let mut text = [0; 64];
        text[..value.len()].copy_from_slice(value);
        Some(Self {
            text,
            len: value.len() as u8,
        })
    }

    pub fn as_str(&self) -> &str {
        // Only ASCII was put in.
        std::str::from_utf8(&self.text[..self.len as usize]).unwrap_or("")
    }
}
