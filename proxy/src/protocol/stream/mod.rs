//! TCP sessions: `session` shows every phase in order, `relay` moves the bytes, `pieces`
//! puts them through filters that want them.

mod member;
mod pieces;
pub mod relay;
pub mod session;

pub use member::Tcp;
