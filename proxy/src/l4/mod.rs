//! TCP sessions.
