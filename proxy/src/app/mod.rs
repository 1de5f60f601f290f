//! The process: build a generation, put it to work, replace it, and end in order.
//!
//! The main thread is *control*: it compiles, checks, watches and answers the admin interface. Every worker is a thread
//! with a runtime of its own; control and workers meet only in [`worker::Command`]s.

mod build;
mod control;
mod descriptors;
mod handlers;
mod samples;
mod sockets;
mod ticks;
mod watch;
mod worker;

pub use build::{Build, BuildError, Builder, Changes, Vars};
pub use control::{Ready, RunError, RunOptions, run};
