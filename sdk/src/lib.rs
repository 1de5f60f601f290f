//! Write Sluicegate filters in Rust.

// The macros write `::sluicegate_sdk`, here as elsewhere.
extern crate self as sluicegate_sdk;

#[doc(hidden)]
#[path = "guest.rs"]
pub mod __private;
mod bindings;
pub mod field;
mod filter;
mod glob;
pub mod log;
mod plan;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod text;
mod verdict;
mod view;

pub use schemars;
pub use serde;
pub use sluicegate_sdk_macros::{filter, settings};

pub use filter::{Exports, Filter};
pub use glob::Glob;
pub use plan::{
    Diagnostic, Diagnostics, Interest, Match, Phase, Phases, Plan, Pointer, PoolUse, Setup, Test,
};
pub use text::Text;
pub use verdict::{
    Http, OnRequest, OnResponse, OnStream, Pool, Reply, RequestVerdict, ResponseVerdict, Routes,
    StreamVerdict, Value, Verdict,
};
pub use view::{Head, Record, Request, Response, Stream, Tls};
