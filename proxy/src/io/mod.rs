//! Byte-level tools that every connection shares: time, buffers, pipes, and the ways to end a socket.
//!
//! Everything here belongs to one worker and is neither `Send` nor locked.

pub mod close;
pub mod pipe;
pub mod scratch;
pub mod timer;
pub mod transport;

pub use close::{DropBounds, drop_quietly, linger, reset_on_close};
pub use pipe::{Pipe, Pipes};
pub use scratch::Scratch;
pub use timer::{Elapsed, Timer};
pub use transport::{Io, Rewound};
