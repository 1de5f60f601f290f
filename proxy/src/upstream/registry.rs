//! What all pools of the process share: the counter that names endpoints, and the clock. Passed in, never global.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::health::NameState;

/// Unique in the process and never used again; an endpoint that survives a reload keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u64);

/// What connections of a pool are like: its TLS and its protocol. Connections that are kept are of use only to a pool of
/// the same class, since a reload may change both for endpoints that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionClass(u64);

/// One per process; made by `app` before the first generation.
#[derive(Debug)]
pub struct Registry {
    next_endpoint: AtomicU64,
    start: Instant,
    /// Added to the clock, so that tests can let hours pass.
    ahead_ms: AtomicU64,
}

impl Registry {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            next_endpoint: AtomicU64::new(1),
            start: Instant::now(),
            ahead_ms: AtomicU64::new(0),
        })
    }

    /// Never answers the same id twice.
    pub(super) fn endpoint_id(&self) -> EndpointId {
        EndpointId(self.next_endpoint.fetch_add(1, Ordering::Relaxed))
    }

    /// As [`Registry::endpoint_id`].
    pub(super) fn connection_class(&self) -> ConnectionClass {
        ConnectionClass(self.endpoint_id().0)
    }

    /// Milliseconds of a clock that never goes back and never says 0.
    pub(super) fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX >> 1);
        elapsed + 1 + self.ahead_ms.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn advance(&self, by: std::time::Duration) {
        self.ahead_ms
            .fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

/// What a pool hands to the one that replaces it at reload, and both use while the old one fades out.
#[derive(Debug)]
pub(super) struct Lineage {
    pub registry: Arc<Registry>,
    /// Counts changes that a pool must look at before its next pick: verdicts, operator states, ejections due.
    version: AtomicU64,
    /// Where round robin stands.
    pub cursor: AtomicU64,
    /// What is known of host names. Control alone looks at it.
    names: Mutex<HashMap<Arc<str>, NameState>>,
    /// Times the addresses of a name were dropped because it has none any more.
    names_gone: AtomicU64,
}

impl Lineage {
    pub fn new(registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            registry,
            version: AtomicU64::new(0),
            cursor: AtomicU64::new(0),
            names: Mutex::default(),
            names_gone: AtomicU64::new(0),
        })
    }

    pub fn names(&self) -> MutexGuard<'_, HashMap<Arc<str>, NameState>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is known of `hosts` alone.
    pub fn keep_names(&self, hosts: &[Arc<str>]) {
        self.names().retain(|name, _| hosts.contains(name));
    }

    pub fn count_gone(&self) {
        self.names_gone.fetch_add(1, Ordering::Relaxed);
    }

    pub fn names_gone(&self) -> u64 {
        self.names_gone.load(Ordering::Relaxed)
    }

    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Makes every pool of this line look at its endpoints again before its next pick.
    pub fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The next turn, modulo `turns`; 0 when there are none.
    pub fn turn(&self, turns: usize) -> usize {
        let turns = turns.max(1) as u64;
        (self.cursor.fetch_add(1, Ordering::Relaxed) % turns) as usize
    }
}
