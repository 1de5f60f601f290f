//! The process: build a generation, put it to work, replace it, and end in order.
//!
//! The main thread is *control*: it compiles, checks, watches and answers the admin interface. Every worker is a thread
//! with a runtime of its own; control and workers meet only in [`worker::Command`]s.

mod access_log;
mod build;
mod checks;
mod control;
mod descriptors;
mod drain;
mod follower;
mod handlers;
mod origin;
mod reload;
mod restart;
mod run_error;
mod samples;
mod server;
mod socket_key;
mod sockets;
mod state;
mod ticks;
mod watch;
mod worker;
mod workers;

#[cfg(test)]
mod follower_tests;

pub use build::{Builder, Vars};
pub use control::{RunOptions, run};

pub use run_error::RunError;
pub use server::Ready;
