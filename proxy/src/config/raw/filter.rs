//! `filters:` and the anonymous filters of listeners.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Auto, DurationOrOff, Off, RawDuration, RawFaults, RawHandler, RawSize};

/// A configured use of a module.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(rename = "Filter", extend("required" = ["module"]))]
pub(in crate::config) struct RawFilter {
    /// `builtin:NAME`, or the path of a `.wasm` file. A relative path is looked up in the directory of this file, in
    /// `modules.paths`, `/usr/lib/sluicegate/filters` and `/var/lib/sluicegate/filters`.
    pub module: String,
    /// SHA-256 of the module, 64 hexadecimal digits. A module with another one is refused; `sluicegate filter inspect`
    /// prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9A-Fa-f]{64}$|\\$\\{"))]
    pub sha256: Option<String>,
    /// What the module is given; each module says what it takes.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub settings: Json,
    /// What it may use.
    pub limits: RawFilterLimits,
    /// What the module may do besides answering. It is refused when it needs more.
    pub capabilities: Vec<RawCapability>,
    /// Where the filter's keys and values are kept: `memory`, which this proxy's workers share, or
    /// `redis://[user:password@]host[:port][/db]`, which other proxies may share too. In Redis, every key begins with
    /// `sluicegate:` and the filter's name.
    pub store: String,
    /// What happens to an exchange when the filter fails.
    pub on_error: RawOnError,
    /// What shares an instance, and with it what the filter keeps in variables of its own.
    pub isolation: RawIsolation,
    /// Bounds of a module that is middleware, a component of `wasi:http` 0.3, instead of `limits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<RawHandler>,
}

impl Default for RawFilter {
    fn default() -> Self {
        RawFilter {
            module: String::new(),
            sha256: None,
            settings: Json::Null,
            limits: RawFilterLimits::default(),
            capabilities: Vec::new(),
            store: "memory".into(),
            on_error: RawOnError::Fail,
            isolation: RawIsolation::Worker,
            handler: None,
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

/// Bounds of a filter.
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
    /// What the store in memory may hold, over all workers; `64KiB` to `16GiB`. A store in Redis has its bound there.
    pub store: RawSize,
    /// Processor time it may use in each second on each worker, or `off`. When it is spent the filter is not called, and
    /// `on-error` applies, until there is time again.
    pub cpu: DurationOrOff,
    /// Calls into the proxy during one call: log lines, clocks, random numbers. One more is a fault.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-unit" = "calls"))]
    pub host_calls: u32,
    /// Instances alive at one time over all workers. `auto` is one for each worker, two to spare, and four that are
    /// being taken apart; 256 with `isolation: request`, where more exchanges at one time are a fault of the filter.
    pub instances: RawInstances,
    /// Calls that wait for something at one time, on each worker.
    #[schemars(range(min = 1, max = 65_536), extend("x-unit" = "calls"))]
    pub suspends: u32,
    /// State that a filter may hand to its successor at a reload.
    pub state: RawSize,
    /// From how many faults on the filter is skipped: `COUNT/TIME`, or `off`. When that many calls on a worker failed
    /// one after the other within that time, each for another client, the worker does not call the filter for a second,
    /// then for two, up to a minute while it goes on to fail; meanwhile `on-error` applies.
    pub faults: RawFaults,
}

/// How many instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum RawInstances {
    Auto(Auto),
    Count(#[schemars(range(min = 1, max = 4096))] u32),
}

impl Default for RawFilterLimits {
    fn default() -> Self {
        RawFilterLimits {
            memory: "16MiB".into(),
            deadline: "10ms".into(),
            configure_deadline: "2s".into(),
            output: "1MiB".into(),
            store: "16MiB".into(),
            cpu: DurationOrOff::Off(Off::Off),
            host_calls: 1000,
            instances: RawInstances::Auto(Auto::Auto),
            suspends: 1024,
            state: "1MiB".into(),
            faults: RawFaults::Text("5/10s".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
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

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawIsolation {
    /// All exchanges of a worker, one call at a time.
    Worker,
    /// Nothing: each exchange, session and tick has an instance of its own, freshly configured, which nobody uses after
    /// it.
    Request,
}
