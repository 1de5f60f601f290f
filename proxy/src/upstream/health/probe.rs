//! The answer of a check.

/// What a probe found: nothing wrong, or what.
pub type Probe = Result<(), String>;
