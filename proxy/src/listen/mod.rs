//! From an address to accepted connections: bind, accept under a limit, look at the first bytes.

pub mod accept;
pub mod bind;
pub mod peek;
pub mod seats;

pub use accept::accept;
pub use bind::{BindError, Bound, Claim, bind};
pub use peek::{ClientHello, FirstBytes};
pub use seats::{Seat, Seats};
