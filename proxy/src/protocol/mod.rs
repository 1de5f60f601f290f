//! What listeners speak: a folder for each protocol, which never meet, and a line for each in the table.

mod contract;
pub mod http;
pub(crate) mod stream;
mod table;

pub use contract::{Arrived, Protocol};
pub use table::{ALL, of};
