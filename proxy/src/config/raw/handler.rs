//! `pools.….handler:`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RawDuration, RawSize};

/// Bounds of one request in a handler, a `wasm:` endpoint.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawHandler {
    /// Linear memory of one instance.
    pub memory: RawSize,
    /// From the request's head to the end of its response.
    pub deadline: RawDuration,
    /// Processor time of one request.
    pub cpu: RawDuration,
    /// Requests at one time, each in an instance of its own, per endpoint or middleware and over all workers.
    #[schemars(range(min = 1, max = 1024), extend("x-unit" = "instances"))]
    pub instances: u32,
}

impl Default for RawHandler {
    fn default() -> Self {
        RawHandler {
            memory: "64MiB".into(),
            deadline: "30s".into(),
            cpu: "1s".into(),
            instances: 128,
        }
    }
}
