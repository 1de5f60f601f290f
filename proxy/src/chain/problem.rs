//! What is wrong with a configured filter, and where.

use crate::config::ConfigPath;

/// One mistake, for the diagnostics of `check` and `reload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub at: ConfigPath,
    pub message: String,
    /// What to write instead, when that can be said.
    pub help: Option<String>,
}

impl Problem {
    pub fn new(at: ConfigPath, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            help: None,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
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
