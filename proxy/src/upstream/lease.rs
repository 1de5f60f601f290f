//! The use of an endpoint by one exchange or session.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect::{ConnectError, connect, secure};
use super::endpoint::Endpoint;
use crate::config::TcpOptions;
use crate::io::Io;
use crate::tls::{ClientTls, Offer};

/// How an exchange failed for the endpoint's fault. What a client or a filter broke is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It could not be dialled.
    Connect,
    /// It broke or stalled before a response head, or answered what is not HTTP. Counts once for each client.
    Broken,
    /// It answered, with a status that says it cannot serve (502, 503, 504). Counts as load, not towards `fall`.
    Answer,
}

/// How failures of exchanges count in the pool that gave a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct PassiveRule {
    /// A handler is never down: each request has an instance of its own, and its failure says nothing of the next.
    pub handled: bool,
    pub fall: u32,
}

/// Counts as one running exchange until it is dropped.
#[derive(Debug)]
pub struct Lease {
    pub endpoint: Arc<Endpoint>,
    rule: PassiveRule,
    tls: Option<Arc<ClientTls>>,
    client: IpAddr,
}

impl Lease {
    /// Takes over a count that [`Endpoint::begin`] made.
    pub(super) fn begun(
        endpoint: Arc<Endpoint>,
        rule: PassiveRule,
        tls: Option<Arc<ClientTls>>,
        client: IpAddr,
    ) -> Self {
        Self {
            endpoint,
            rule,
            tls,
            client,
        }
    }

    /// Dials the endpoint, with TLS when the pool has it, and counts a failure that is its fault. `offer` is what the
    /// connection is for.
    pub async fn connect(
        &self,
        timeout: Duration,
        options: &TcpOptions,
        offer: Offer,
    ) -> Result<Io, ConnectError> {
        let began = Instant::now();
        let dialled = connect(self.endpoint.address, timeout, options).await;
        let result = match (dialled, &self.tls) {
            (Ok(stream), Some(tls)) => {
                let left = timeout.saturating_sub(began.elapsed());
                // Boxed, so that exchanges without it do not carry the state of a handshake.
                Box::pin(secure(tls, stream, &self.endpoint, offer, left)).await
            }
            (dialled, _) => dialled.map(Io::Tcp),
        };
        match &result {
            Ok(_) => self.endpoint.count_connect(),
            Err(error) if error.blames_endpoint() => self.failed(Failure::Connect),
            Err(_) => {}
        }
        result
    }

    /// The exchange failed for the endpoint's fault. Called once for each failure; [`Lease::connect`] has called it
    /// for a failed dial already. What becomes of it, the pool decides ([`super::health::ejection`]).
    pub fn failed(&self, failure: Failure) {
        let endpoint = &*self.endpoint;
        let standing = &endpoint.standing;
        endpoint.count_failure(failure == Failure::Connect);
        if self.rule.handled {
            return;
        }
        let now = endpoint.lineage.registry.now_ms();
        standing.penalise(now);
        let failures = match failure {
            Failure::Answer => return,
            Failure::Broken => standing.exchange_failed(self.client, now),
            Failure::Connect => {
                // Checks know at once whether it is gone, and then whether it is back.
                standing.schedule.prompt();
                standing.dial_failed()
            }
        };
        if failures >= self.rule.fall {
            standing.schedule.prompt();
            endpoint.lineage.changed();
        }
    }

    /// The endpoint served: an answer came (http), or it was dialled (tcp).
    pub fn succeeded(&self) {
        self.endpoint.standing.exchange_succeeded();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.end();
    }
}
