//! What exchanges behind middleware report to the client's.

use crate::error::Reason;
use crate::upstream::Pool;
use std::sync::Arc;
use std::time::Duration;

/// What the exchanges behind middleware report to the client's, whose record is the only one.
#[derive(Default)]
pub struct InnerJournal {
    pub pool: Option<Arc<Pool>>,
    pub endpoint: Option<Arc<str>>,
    pub tries: u32,
    pub upstream_time: Duration,
    pub filter_time: Duration,
    pub filter_wait: Duration,
    /// Why the last of them ended otherwise than by being finished.
    pub reason: Option<Reason>,
    /// A filter behind the middleware ended the connection, which is the client's.
    pub cut: Option<Reason>,
}
