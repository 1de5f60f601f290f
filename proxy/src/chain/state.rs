//! What an exchange carries through its chain, and what comes of it.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::own::PrivateInstance;
use crate::head::Fields;

/// What filters said about where the exchange goes. A later filter wins; what nobody said stays none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// Index into `Config::pools`.
    pub pool: Option<usize>,
    pub sticky_key: Option<SmallVec<[u8; 32]>>,
    /// `address:port`; ignored when no endpoint of the pool has it.
    pub endpoint: Option<Box<str>>,
    pub try_timeout: Option<Duration>,
    pub total_timeout: Option<Duration>,
    /// Further tries after the first.
    pub retries: Option<u32>,
}

/// One exchange's (or connection's) way through one chain. Made anew for each; not to be used with another chain.
#[derive(Debug, Default)]
pub struct ExchangeState {
    pub(super) parts: SmallVec<[Part; 8]>,
    pub route: Route,
    /// Time spent in filters so far.
    pub filter_time: Duration,
    /// Time that filters have waited for effects.
    pub filter_wait: Duration,
}

/// One filter's part in an exchange.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// What the filter keeps between its phases.
    pub(super) state: u64,
    /// The predicate matched: its later phases are called too.
    pub(super) matched: bool,
    /// It ended the request itself: its response phase is not called.
    pub(super) ended: bool,
    /// It said that it does not want this body.
    pub(super) skips_request_body: bool,
    pub(super) skips_response_body: bool,
    pub(super) own: PrivateInstance,
}

impl ExchangeState {
    pub(super) fn begin(&mut self, filters: usize) {
        self.parts.clear();
        self.parts.resize_with(filters, Part::default);
    }
}

/// A response made by a filter. Its head was checked; framing is the caller's.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub fields: Fields,
    pub body: Bytes,
}
