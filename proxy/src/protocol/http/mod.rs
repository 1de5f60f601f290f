//! HTTP from the client's bytes to the upstream and back. `exchange` shows every phase in order; the rest are its steps.

pub mod call;
mod client;
mod client_address;
pub mod client_origin;
mod client_side;
mod effects;
pub mod exchange;
mod fields;
pub mod forward;
pub(crate) mod grpc;
pub mod h1;
mod h2;
mod h2_upstream;
mod handler_upstream;
mod inner;
mod member;
pub(crate) mod respond;
mod suspended;
mod upstream;
pub mod websocket;
pub(crate) mod without_request;

#[cfg(test)]
mod call_tests;

pub use member::Http;
