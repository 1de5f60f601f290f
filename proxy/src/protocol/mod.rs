//! What listeners speak, a folder for each. They never meet.

pub mod http;
pub(crate) mod stream;
