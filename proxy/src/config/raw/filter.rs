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
    /// What an instance may hand over to the one that replaces it after a reload.
    pub state: RawSize,
}

impl Default for RawFilterLimits {
    fn default() -> Self {
        RawFilterLimits {
            memory: "16MiB".into(),
            deadline: "10ms".into(),
            configure_deadline: "2s".into(),
            output: "1MiB".into(),
            state: "1MiB".into(),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawCapability {
    /// Write lines into the proxy's log.
    Log,
    /// Have metrics of its own in the proxy's.
    Metrics,
    /// Read the time.
    Clock,
    /// Have random numbers.
    Random,
    /// Be called at intervals, without an exchange.
    Tick,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawOnError {
    /// The exchange is answered with 500, a session is closed.
    Fail,
    /// The exchange goes on as if the filter were not there.
    Bypass,
}
