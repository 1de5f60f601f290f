//! `filters:` and the anonymous filters of listeners.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{RawDuration, RawSize};

/// A configured use of a module.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(rename = "Filter", extend("required" = ["module"]))]
pub(in crate::config) struct RawFilter {
    /// `builtin:NAME`, or the path of a `.wasm` file. A relative path is looked up in the directory of this file, in
    /// `modules.paths`, `/usr/lib/sluicegate/filters` and `/var/lib/sluicegate/filters`.
    pub module: String,
    /// What the module is given; each module says what it takes.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub settings: Json,
    /// What one instance may use.
    pub limits: RawFilterLimits,
    /// What the module may do besides answering. It is refused when it needs more.
    pub capabilities: Vec<RawCapability>,
    /// Where the filter's keys and values are kept: `memory`, which this proxy's workers share, or
    /// `redis://[user:password@]host[:port][/db]`, which other proxies may share too. In Redis, every key begins with
    /// `sluicegate:` and the filter's name.
    pub store: String,
    /// What happens to an exchange when the filter fails.
    pub on_error: RawOnError,
}

impl Default for RawFilter {
    fn default() -> Self {
        RawFilter {
            module: String::new(),
            settings: Json::Null,
            limits: RawFilterLimits::default(),
            capabilities: Vec::new(),
            store: "memory".into(),
            on_error: RawOnError::Fail,
        }
    }
}

/// The name of a filter, or a filter in place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "FilterUse")]
pub(in crate::config) enum RawFilterUse {
    Named(String),
    Inline(Box<RawFilter>),
}

/// Bounds of one filter instance.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawFilterLimits {
    /// Linear memory of one instance.
    pub memory: RawSize,
    /// Processor time of one call.
    pub deadline: RawDuration,
    /// Processor time of reading its settings.
    pub configure_deadline: RawDuration,
    /// What one call may answer.
    pub output: RawSize,
    /// Calls that wait for something at one time, on each worker.
    #[schemars(range(min = 1, max = 65_536), extend("x-unit" = "calls"))]
    pub suspends: u32,
    /// What the store in memory may hold, over all workers; `64KiB` to `16GiB`. A store in Redis has its bound there.
    pub store: RawSize,
}

impl Default for RawFilterLimits {
    fn default() -> Self {
        RawFilterLimits {
            memory: "16MiB".into(),
            deadline: "10ms".into(),
            configure_deadline: "2s".into(),
            output: "1MiB".into(),
            suspends: 1024,
            store: "16MiB".into(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawCapability {
    /// Write lines into the proxy's log.
    Log,
    /// Read and write the store.
    KeyValue,
    /// Call HTTP services.
    HttpCall(RawCalledPools),
}

/// Names of the pools that the filter may call itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(in crate::config) struct RawCalledPools(pub Vec<String>);

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawOnError {
    /// The exchange is answered with 500, a session is closed.
    Fail,
    /// The exchange goes on as if the filter were not there.
    Bypass,
}
