//! Connections to endpoints: those that are kept between exchanges, and those that exchanges share.

use super::{KeptConnection, Worker};
use crate::io::{Io, Look};
use crate::upstream::{Endpoint, EndpointId, Pool, REST};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

impl Worker {
    /// The connection to the endpoint that was used last, still lives and has nothing to read: what lies there unasked would
    /// be taken for the answer to the next request (RFC 9112 §9.2). Costs a system call, because only the kernel knows.
    pub fn take_kept(&self, endpoint: &Endpoint, pool: &Pool) -> Option<Io> {
        self.tell_unasked(endpoint);
        let lives = |kept: &mut KeptConnection| {
            if kept.class != pool.connection_class() {
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
            class: pool.connection_class(),
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
}
