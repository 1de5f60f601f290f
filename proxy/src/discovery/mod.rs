//! Where a pool's addresses come from: names are resolved here, behind a trait so that tests and later sources
//! can stand in. What becomes of the addresses is the business of `upstream`.

mod hosts;
mod system;

pub use system::SystemResolver;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Addresses taken from one answer at most; a name that has more is cut, in the order of their values.
pub const ADDRESSES_MAX: usize = 1024;

/// What a name resolved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Never empty; sorted, without duplicates, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<IpAddr>,
    /// How long the answer holds, where its source says so (the hosts file does not).
    pub ttl: Option<Duration>,
}

impl Answer {
    /// Sorts and cuts. An answer without addresses is [`ResolveError::NoAddress`].
    pub fn new(mut addresses: Vec<IpAddr>, ttl: Option<Duration>) -> Result<Self, ResolveError> {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(ResolveError::NoAddress);
        }
        Ok(Self { addresses, ttl })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist or has no address.
    #[error("the name has no address")]
    NoAddress,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// No name server is configured, or none could be asked.
    #[error("{0}")]
    Other(Arc<str>),
}

pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Answer, ResolveError>> + Send + 'a>>;

/// Turns a host name into addresses. Called on the control runtime only; the caller bounds the time.
pub trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}
