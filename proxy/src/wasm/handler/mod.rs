//! Handlers: components of `wasi:http` 0.2 (world `proxy`) and 0.3 (`service`) that answer requests as an endpoint of a pool
//! does.
//!
//! A [`HandlerHost`] (one per process) compiles bytes into a [`Handler`]; each request gets an instance of its own, in
//! a [`HandlerCall`], which its exchange polls and may drop at any time. Guests are suspended while they wait and give the
//! worker back every few milliseconds while they compute, so that they live on engines beside the filters'.
//!
//! Middleware (world `middleware` of 0.3) is loaded and called the same way; what it asks of the handler that it imports comes
//! out of the call as an [`Onward`], for the exchange to answer.
//!
//! Unlike the rest of `wasm` this needs a tokio runtime under it, and must not know: configuration files, sockets, pools.

mod call;
mod engine;
mod guest;
mod imports;
mod module;
mod onward;
mod output;
mod piece;
mod proxy;
mod service;
mod upload;
mod version;

pub use call::{HandlerCall, HandlerFault};
pub use engine::{HANDLER_INSTANCES_MAX, HandlerHost};
pub use module::{Handler, HandlerError, is_middleware};
pub use onward::{BrokenOff, ONWARD_MAX, Onward, OnwardBody, OnwardReply, Onwards};
pub use piece::Piece;
