//! HTTP/1.0 and 1.1 (RFC 9112), both sides: heads, framing, chunks, connections.
//!
//! This is our own codec rather than hyper's, for three reasons that a proxy cannot give up: messages that could be
//! read in two ways must be refused (hyper repairs some of them), `drop` must close without a byte, and an idle
//! connection must own no buffer. Lexing is httparse's.

pub mod body;
pub mod chunked;
pub mod framing;
pub mod parse;
pub mod server;
pub mod upstream;
pub mod write;
