//! TCP sessions: `session` shows every phase in order, `relay` moves the bytes.

pub mod relay;
pub mod session;
