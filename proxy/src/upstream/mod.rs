//! Pools, endpoints, balancing, checks, connections.
//!
//! A [`Pool`] is shared by all workers. Workers [`Pool::pick`] a [`Lease`] on an [`Endpoint`] and say how it went;
//! control runs [`Checks`], which probe endpoints and resolve names. Everything between them is atomics and one
//! immutable set behind a pointer, so that neither side waits for the other.

mod balance;
mod comeback;
mod connect;
mod endpoint;
mod handlers;
mod health;
mod kept;
mod lease;
mod pool;
mod registry;
mod report;
mod retry;
mod roster;
mod set;
mod shared;
mod waiting;

pub use comeback::Patience;
pub use connect::{ConnectError, connect};
pub use endpoint::{AdminState, Endpoint, Offence};
pub use handlers::Handlers;
pub use health::{Checks, Note, Verdict};
pub use kept::{Kept, REST};
pub use lease::{Failure, Lease};
pub use pool::{Pick, PickError, Pool};
pub use registry::{ConnectionClass, EndpointId, Registry};
pub use report::{EndpointReport, State};
pub use retry::backoff;
pub use set::{MEMBERS_MAX, Member};
pub use shared::{Belief, DialRight, Dialling, SharedConnection, SharedConnections, StreamPermit};

#[cfg(test)]
mod tests;
