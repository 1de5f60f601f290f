//! The shapes of the YAML, as written. Private to `config`: everyone else reads the checked [`super::model`].
//!
//! The comments here are the manual: they become the JSON Schema's descriptions and the reference. So are the
//! `Default` implementations: they become the schema's defaults and what `config show` fills in. Ranges that JSON
//! Schema cannot say (durations, sizes) and everything that spans several keys are checked in `resolve`.

mod filter;
mod handler;
mod listener;
mod pool;
mod process;
mod scalar;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use filter::*;
pub(super) use handler::*;
pub(super) use listener::*;
pub(super) use pool::*;
pub(super) use process::*;
pub(super) use scalar::*;

/// Configuration of Sluicegate.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct RawConfig {
    /// Worker threads. `auto` is one for each processor this process may use.
    pub workers: RawWorkers,
    /// Groups of backends, by name.
    #[schemars(extend("maxProperties" = 10_000))]
    pub pools: BTreeMap<String, RawPool>,
    /// Configured uses of modules, by name.
    #[schemars(extend("maxProperties" = 10_000))]
    pub filters: BTreeMap<String, RawFilter>,
    /// Addresses that are served.
    #[schemars(length(max = 10_000))]
    pub listeners: Vec<RawListener>,
    /// The admin interface: `off`, or where it listens.
    pub admin: RawAdmin,
    /// Logs.
    pub telemetry: RawTelemetry,
    /// How the process ends.
    pub drain: RawDrain,
    /// Where modules are found and kept.
    pub modules: RawModules,
}

/// One value, or a list of them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values,
        }
    }

    pub fn is_many(&self) -> bool {
        matches!(self, OneOrMany::Many(_))
    }
}
