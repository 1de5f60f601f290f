//! One backend address: its identity, its counters, and what operator and checks say of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::health::{Note, Standing, Verdict};
use super::registry::{EndpointId, Lineage};

/// Failed handshakes with one endpoint are told no more often than this.
const TLS_TOLD_EVERY_MS: u64 = 10_000;

/// An endpoint that sent something unasked is treated with care for so long.
const UNASKED_MS: u64 = 600_000;

/// What the operator wants of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AdminState {
    Enabled = 0,
    /// Only clients that name the endpoint (a hint, such as a cookie) still reach it.
    Draining = 1,
    /// Nothing new reaches it, and it is not checked.
    Disabled = 2,
}

/// Shared by all workers, by the pool and, across a reload, by the pool that replaces it.
#[derive(Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    /// Unspecified for a handler, which nothing connects to.
    pub address: SocketAddr,
    /// `ip:port`, IPv6 in brackets; `wasm:FILE` for a handler.
    pub text: Arc<str>,
    /// `name:port` when a name was resolved, else the same as `text`.
    pub authority: Arc<str>,
    /// The pool's name, for logs.
    pub pool: Arc<str>,
    pub(super) lineage: Arc<Lineage>,
    pub(super) standing: Standing,
    admin_state: AtomicU8,
    active: AtomicU32,
    picks: AtomicU64,
    /// Of these, those that a budget of retries has been credited with.
    credited: AtomicU64,
    failures: AtomicU64,
    connects: AtomicU64,
    connect_failures: AtomicU64,
    /// When a failed handshake was told last, in the registry's milliseconds.
    tls_told: AtomicU64,
    /// When it last sent something that nobody had asked for, in the registry's milliseconds; 0 for never.
    unasked: AtomicU64,
    /// HTTP/2 connections that this side ended with GOAWAY, by [`Offence`].
    goaways: [AtomicU64; Offence::ALL.len()],
}

/// Why this side ends an HTTP/2 connection to an endpoint with GOAWAY before its streams have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// The endpoint sent too much that costs work and brings nothing.
    Flood,
    /// It broke a rule of HTTP/2.
    Protocol,
}

impl Offence {
    pub const ALL: [Offence; 2] = [Offence::Flood, Offence::Protocol];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Offence::Flood => "flood",
            Offence::Protocol => "protocol",
        }
    }
}

impl Endpoint {
    pub(super) fn new(
        pool: &Arc<str>,
        address: SocketAddr,
        name: Option<&str>,
        lineage: &Arc<Lineage>,
    ) -> Self {
        let text: Arc<str> = address.to_string().into();
        let authority = match name {
            Some(name) => format!("{name}:{}", address.port()).into(),
            None => Arc::clone(&text),
        };
        Self::called(pool, address, text, authority, lineage)
    }

    /// A component that the proxy runs.
    pub(super) fn handler(pool: &Arc<str>, text: &Arc<str>, lineage: &Arc<Lineage>) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::called(pool, nowhere, Arc::clone(text), Arc::clone(text), lineage)
    }

    fn called(
        pool: &Arc<str>,
        address: SocketAddr,
        text: Arc<str>,
        authority: Arc<str>,
        lineage: &Arc<Lineage>,
    ) -> Self {
        Self {
            id: lineage.registry.endpoint_id(),
            address,
            text,
            authority,
            pool: Arc::clone(pool),
            lineage: Arc::clone(lineage),
            standing: Standing::new(),
            admin_state: AtomicU8::new(AdminState::Enabled as u8),
            active: AtomicU32::new(0),
            picks: AtomicU64::new(0),
            credited: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            tls_told: AtomicU64::new(0),
            unasked: AtomicU64::new(0),
            goaways: [const { AtomicU64::new(0) }; Offence::ALL.len()],
        }
    }

    /// The host name it was resolved from, if it was.
    pub(super) fn host(&self) -> Option<&str> {
        if Arc::ptr_eq(&self.text, &self.authority) {
            return None;
        }
        self.authority.rsplit_once(':').map(|(host, _)| host)
    }

    /// Says in the log why a handshake failed, now and then: clients are only told that it did.
    pub(super) fn tell_tls_failure(&self, error: &std::io::Error) {
        let now = self.lineage.registry.now_ms();
        let told = self.tls_told.load(Ordering::Relaxed);
        if told == 0 || now.saturating_sub(told) >= TLS_TOLD_EVERY_MS {
            self.tls_told.store(now, Ordering::Relaxed);
            tracing::warn!(pool = %self.pool, endpoint = %self.text, %error, "TLS handshake failed");
        }
    }

    /// It sent bytes on a connection on which nothing was asked: the end of its responses is not to be relied on for a
    /// while. Logs the first time.
    pub fn sent_unasked(&self) {
        let orderly = self.is_orderly();
        let now = self.lineage.registry.now_ms().max(1);
        self.unasked.store(now, Ordering::Relaxed);
        if orderly {
            tracing::warn!(
                pool = %self.pool,
                endpoint = %self.text,
                "sent bytes behind the end of a response; the connection was closed, and others are used with care"
            );
        }
    }

    /// It has sent nothing unasked for some time.
    pub fn is_orderly(&self) -> bool {
        match self.unasked.load(Ordering::Relaxed) {
            0 => true,
            at => self.lineage.registry.now_ms().saturating_sub(at) >= UNASKED_MS,
        }
    }

    /// Exchanges and sessions running now.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// How often it was picked.
    pub fn picks(&self) -> u64 {
        self.picks.load(Ordering::Relaxed)
    }

    /// Exchanges that failed for its fault, dials included.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Tries since this was asked last.
    pub(super) fn take_tries(&self) -> u64 {
        let picks = self.picks();
        picks.saturating_sub(self.credited.swap(picks, Ordering::Relaxed))
    }

    /// Connections that were opened to it.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Counts a connection that was opened.
    pub(super) fn count_connect(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that could not be opened.
    pub fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Ordering::Relaxed)
    }

    /// How often it went out of use: checks took it down, or failures of exchanges made it doubted or ejected.
    pub fn downs(&self) -> u64 {
        self.standing.downs()
    }

    /// Counts an HTTP/2 connection that this side ended with GOAWAY.
    pub fn count_goaway(&self, offence: Offence) {
        self.goaways[offence as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// HTTP/2 connections that this side ended with GOAWAY.
    pub fn goaways(&self, offence: Offence) -> u64 {
        self.goaways[offence as usize].load(Ordering::Relaxed)
    }

    /// Probes that passed, and that failed.
    pub fn probes(&self) -> (u64, u64) {
        self.standing.schedule.counts()
    }

    /// What the checks say; stays `Unknown` in a pool without checks.
    pub fn verdict(&self) -> Verdict {
        self.standing.verdict()
    }

    /// Since when it stands as it does, and the last failure.
    pub fn note(&self) -> Arc<Note> {
        self.standing.note()
    }

    pub fn admin_state(&self) -> AdminState {
        match self.admin_state.load(Ordering::Acquire) {
            1 => AdminState::Draining,
            2 => AdminState::Disabled,
            _ => AdminState::Enabled,
        }
    }

    /// Holds from the next pick on; survives reload.
    pub fn operate(&self, operator: AdminState) {
        self.admin_state.store(operator as u8, Ordering::Release);
        self.lineage.changed();
        // What was known of one that was disabled is old.
        self.standing.schedule.prompt();
    }

    /// Counts one more running exchange unless `limit` are running; true when it was counted.
    pub(super) fn begin(&self, limit: Option<u32>) -> bool {
        match limit {
            None => {
                self.active.fetch_add(1, Ordering::Relaxed);
            }
            Some(limit) => {
                let more = |active: u32| (active < limit).then(|| active + 1);
                let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
                if self.active.fetch_update(set, fetch, more).is_err() {
                    return false;
                }
            }
        }
        self.picks.fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(super) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count_failure(&self, dialling: bool) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if dialling {
            self.connect_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}
