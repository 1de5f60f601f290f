//! TCP sessions.

pub mod relay;
