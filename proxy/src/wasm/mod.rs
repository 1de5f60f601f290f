//! The wasm host: engine, modules, instances, limits. The only room that names wasmtime.
//!
//! A [`Host`] (one per process) compiles bytes into a [`Module`]; a module makes [`Instance`]s; an instance answers
//! `configure` once and then phases, by synchronous calls on the thread that holds it. Whatever a guest does ends in
//! a verdict or in a [`Fault`]; an instance that faulted is discarded by its owner.
//!
//! Must not know: configuration files, sockets, tokio, pools. What a verdict *means* is `chain`'s.

mod bad_verdict;
mod bindings;
mod canonical;
mod context;
mod contract;
mod deadline;
mod direct;
mod effect;
mod encode;
mod engine;
mod facts;
mod fault;
mod handler;
mod handover;
mod host;
mod hostcalls;
mod instance;
mod log;
mod module;
mod packed;
mod raw_op;
mod readable;
mod results;
mod verdict;
mod wasi;
mod words;

#[cfg(test)]
mod direct_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod wat;

pub use bindings::{
    BodyMode, Diagnostic, Effects, FactSet, Interest, OverCap, Phases, Plan, PoolUse, Test,
    WholeBody,
};
pub use context::InstanceOptions;
pub use contract::{Form, ModuleError, Phase};
pub use deadline::processor_time;
pub use engine::{Host, HostError, HostOptions};
pub use facts::{Fact, Facts, Shown, ShownFacts, ShownFields};
pub use fault::{Fault, FaultKind};
pub use handler::{
    BrokenOff, HANDLER_INSTANCES_MAX, Handler, HandlerCall, HandlerError, HandlerFault,
    HandlerHost, ONWARD_MAX, Onward, OnwardBody, OnwardReply, Onwards, Piece, is_middleware,
};
pub use host::{FilterMetrics, MetricKind, MetricLabels, MetricValue};
pub use instance::{ConfigureError, Instance, SETTINGS_BYTES_MAX};
pub use log::{Level, LogSink};
pub use module::{MODULE_BYTES_MAX, Module};
#[cfg(test)]
pub(crate) use verdict::Writer;
/// The version of the filter contract this build serves.
pub const CONTRACT_VERSION: &str = "0.1.0";

pub use bad_verdict::{BadVerdict, EFFECTS_MAX, Kind};
pub use effect::{Call, Effect};
pub use results::{EffectError, EffectResult, Resumed, flags_of, pack_results};
pub use verdict::{Op, Rules, Verdict};
pub use words::{tame, tame_lines};
