//! The surroundings of a configuration.

use std::path::PathBuf;

/// What the world contributes to a configuration. Passed in, never looked up.
pub struct Environment<'a> {
    /// Environment variables.
    pub vars: &'a dyn Fn(&str) -> Option<String>,
    /// Names of the builtin modules, without `builtin:`.
    pub builtins: Vec<String>,
    /// Absolute; what relative inputs start from.
    pub cwd: PathBuf,
    /// What `workers: auto` means.
    pub processors: usize,
}
