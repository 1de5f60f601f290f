//! The sections about the process: `admin:`, `telemetry:`, `drain:`, `modules:`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Off, RawDuration};

/// `off`, or where the admin interface listens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Admin")]
pub(in crate::config) enum RawAdmin {
    Off(Off),
    On(RawAdminMap),
}

impl Default for RawAdmin {
    fn default() -> Self {
        RawAdmin::On(RawAdminMap::default())
    }
}

/// The admin interface.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawAdminMap {
    /// `unix:/path` or a loopback address with a port.
    pub bind: String,
}

impl Default for RawAdminMap {
    fn default() -> Self {
        RawAdminMap {
            bind: "unix:/run/sluicegate/admin.sock".into(),
        }
    }
}

/// What is told about the traffic.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawTelemetry {
    /// `off`, or where and how exchanges and sessions are logged.
    pub access_log: RawAccessLog,
}

/// `off`, or where and how exchanges and sessions are logged.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum RawAccessLog {
    Off(Off),
    On(RawAccessLogMap),
}

impl Default for RawAccessLog {
    fn default() -> Self {
        RawAccessLog::On(RawAccessLogMap::default())
    }
}

/// The access log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawAccessLogMap {
    /// `stdout`, `stderr`, or the path of a file.
    pub to: String,
    /// How a record looks.
    pub format: RawLogFormat,
}

impl Default for RawAccessLogMap {
    fn default() -> Self {
        RawAccessLogMap {
            to: "stdout".into(),
            format: RawLogFormat::Text,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawLogFormat {
    /// Aligned, for people.
    Text,
    /// One object a line.
    Json,
    /// NCSA combined, for programs that read web server logs.
    Combined,
}

/// How the process ends.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawDrain {
    /// Between readiness failing and the listeners closing.
    pub pre_stop: RawDuration,
    /// What still runs after this is cut.
    pub timeout: RawDuration,
}

impl Default for RawDrain {
    fn default() -> Self {
        RawDrain {
            pre_stop: "0s".into(),
            timeout: "30s".into(),
        }
    }
}

/// Where modules are found and kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawModules {
    /// Directories where relative module paths are looked up after the configuration's own.
    pub paths: Vec<String>,
    /// Directory of compiled modules, or `off`. Without it, `$XDG_CACHE_HOME/sluicegate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
}
