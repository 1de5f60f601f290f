//! From an address to accepted connections: bind, accept under a limit, look at the first bytes.

pub mod accept;
pub mod bind;
pub mod seats;
pub mod serve;

pub use accept::accept;
pub use bind::{BindError, Claim, bind};
pub use seats::Seats;
