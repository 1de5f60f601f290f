//! Sluicegate: a load-balancing proxy whose policy is WebAssembly filters.
//!
//! The rooms, in reading order (a room uses only rooms of lower layers; `tests` holds this):
//!
//! | layer | rooms |
//! | --- | --- |
//! | 7 | `cli` |
//! | 6 | [`app`] |
//! | 5 | [`listen`], [`admin`], [`explain`] |
//! | 4 | [`protocol`] |
//! | 3 | [`generation`] |
//! | 2 | [`chain`], [`upstream`] |
//! | 1 | [`wasm`], [`discovery`], [`tls`], [`store`], [`builtin`] |
//! | 0 | [`config`], [`telemetry`], [`io`], [`connection`], [`head`], [`error`] |

mod admin;
mod app;
pub mod builtin;
pub mod chain;
pub mod cli;
pub mod config;
pub mod connection;
mod discovery;
pub mod error;
mod explain;
pub mod generation;
pub mod head;
pub mod io;
mod listen;
pub mod protocol;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod wasm;
