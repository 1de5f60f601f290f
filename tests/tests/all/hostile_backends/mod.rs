//! Backends that break off, contradict themselves, dawdle and flood: what the client is told, what the record says, that
//! the next exchange works, and that nothing is left behind.

mod cases;
mod http2;
mod kept;
mod slow;
mod table;
mod unasked;

/// Ends a backend's connection with a reset. The harness holds copies of it, so that closing would not do.
pub fn reset(stream: &std::net::TcpStream) {
    // Connecting to nothing is how Linux is told to disconnect; a connection that is gone already may refuse.
    let _ = rustix::net::connect_unspec(stream);
}
