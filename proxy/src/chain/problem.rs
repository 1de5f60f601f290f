//! Where a mistake in a configured filter lies, and what its findings are called.

use crate::config::{ConfigPath, Problem};

/// A finding about the filter or its settings.
pub(super) fn problem(at: ConfigPath, code: &'static str, message: impl Into<String>) -> Problem {
    Problem {
        at,
        code,
        message: message.into(),
        help: None,
    }
}

/// The place of a setting: `pointer` is relative to the settings of the filter at `filter`.
pub(super) fn setting(filter: &ConfigPath, pointer: &str) -> ConfigPath {
    let slash = if pointer.is_empty() || pointer.starts_with('/') {
        ""
    } else {
        "/"
    };
    ConfigPath(format!("{}/settings{slash}{pointer}", filter.0))
}
