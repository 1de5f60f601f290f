//! The command line, one file a verb.

pub mod config;
pub mod report;
