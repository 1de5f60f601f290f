//! The command line, one file a verb.

/// One request to the admin interface of a running process.
pub mod client;
pub mod reload;
