//! What the process tells: its log, the access log, and metrics.
//!
//! Nothing here may slow a worker down: whatever is written goes through a bounded queue to a thread of its own, what
//! does not fit is dropped and counted, and counters are plain cells that only their worker writes. This room knows no
//! other room but the shared nouns: values that live elsewhere are pulled through [`Metrics::register`].

mod access_log;
mod clock;
mod escape;
mod exposition;
mod exposition_format;
mod fields;
mod listener;
pub mod log;
mod metrics;
mod pool;
mod process;
mod record;
mod shards;
mod whole_lines;

pub use access_log::{AccessLog, WorkerLog};
pub use clock::{Clock, HttpClock};
pub use exposition::{EndpointSample, FilterSample, FilterValue, PoolSample, StoreSample, Visitor};
pub use exposition_format::Exposition;
pub use listener::{GoAway, Handshake, ListenerMetrics};
pub use metrics::Metrics;
pub use pool::PoolMetrics;
pub use record::{Exchange, Record};
