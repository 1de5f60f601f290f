//! What belongs to one worker thread and outlives generations.

mod buffers;
mod connections;
mod drain;
mod ids;

pub use connections::{Conduct, Multiplexed};
pub use drain::{DrainWindow, Idle};
pub use ids::{RequestId, RequestIds};

use crate::io::{Io, Scratch};
use crate::store::Connections;
use crate::telemetry::{HttpClock, PoolMetrics, WorkerLog};
use crate::upstream::{ConnectionClass, EndpointId, Kept, Pool, SharedConnections};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Kept upstream connections of one worker, over all endpoints.
const KEPT_MAX: usize = 16 * 1024;

/// What belongs to one worker thread and outlives generations.
pub struct Worker {
    pub scratch: Scratch,
    pub pipes: crate::io::Pipes,
    pub ids: RequestIds,
    kept: RefCell<Kept<KeptConnection>>,
    /// Endpoints that sent something on a kept connection and have not been told so.
    unasked: RefCell<HashSet<EndpointId>>,
    /// HTTP/2 connections to endpoints.
    pub shared: SharedConnections<Multiplexed>,
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

struct KeptConnection {
    io: Io,
    class: ConnectionClass,
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
            shared: SharedConnections::new(),
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
}
