//! Scalars with a meaning of their own.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Text that is a duration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawDuration(pub String);

impl From<&str> for RawDuration {
    fn from(text: &str) -> Self {
        RawDuration(text.to_owned())
    }
}

impl JsonSchema for RawDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "duration", "pattern": "^([0-9]+(ms|s|m|h|d))+$|^0$|\\$\\{"})
    }
}

/// A number of bytes, or text that is a size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RawSize {
    Bytes(u64),
    Text(String),
}

impl From<&str> for RawSize {
    fn from(text: &str) -> Self {
        RawSize::Text(text.to_owned())
    }
}

impl JsonSchema for RawSize {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "format": "size",
            "minimum": 0,
            "pattern": "^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)?$|\\$\\{",
        })
    }
}

/// `auto` or a number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RawWorkers {
    Count(u32),
    Auto(String),
}

impl Default for RawWorkers {
    fn default() -> Self {
        RawWorkers::Auto("auto".into())
    }
}

impl JsonSchema for RawWorkers {
    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 1024}]})
    }
}

/// `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Off {
    Off,
}

/// `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Auto {
    Auto,
}

/// `off`, or text that is a count within a duration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RawFaults {
    Off(Off),
    Text(String),
}

impl JsonSchema for RawFaults {
    fn schema_name() -> Cow<'static, str> {
        "Faults".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"const": "off"},
            {"type": "string", "pattern": "^[0-9]+/([0-9]+(ms|s|m|h|d))+$|\\$\\{"},
        ]})
    }
}

/// A duration, or `off`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum DurationOrOff {
    Off(Off),
    Duration(RawDuration),
}

/// `1.2` or `1.3`; unquoted YAML makes numbers of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RawTlsVersion {
    Text(String),
    Number(f64),
}

impl RawTlsVersion {
    pub fn is_1_3(&self) -> bool {
        match self {
            RawTlsVersion::Text(text) => text == "1.3",
            RawTlsVersion::Number(number) => *number > 1.25,
        }
    }
}

impl JsonSchema for RawTlsVersion {
    fn schema_name() -> Cow<'static, str> {
        "TlsVersion".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["1.2", "1.3", 1.2, 1.3]})
    }
}
