//! What is wrong with a configuration, said so that a person can mend it.

use super::model::ConfigPath;
use super::node::Location;
pub use super::quoted::quoted;
pub(super) use super::quoted::ticked;

/// At most this many errors are collected, and as many warnings; a file that is wrong in more places is wrong as a whole.
pub(super) const DIAGNOSTICS_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Warning,
    Error,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Kebab-case, stable: scripts match on it.
    pub code: &'static str,
    pub message: String,
    /// The setting it is about; empty when it is about the whole.
    pub path: ConfigPath,
    /// Where the caret goes; none when no text is to blame.
    pub at: Option<Location>,
    /// Other places that matter, each with what it has to do with it.
    pub labels: Vec<(Location, String)>,
    /// What to write instead.
    pub help: Option<String>,
}

/// A finding of a room that knows the setting by its path but not its place in a file. `Sources::diagnose` makes it
/// a [`Diagnostic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub at: ConfigPath,
    pub code: &'static str,
    pub message: String,
    pub help: Option<String>,
}

impl Problem {
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Diagnostic {
    pub fn error(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code,
            message: message.into(),
            path: ConfigPath::default(),
            at: None,
            labels: Vec::new(),
            help: None,
        }
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            ..Diagnostic::error(code, message)
        }
    }

    pub fn at(mut self, path: &ConfigPath, at: Location) -> Diagnostic {
        self.path = path.clone();
        self.at = Some(at);
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    pub fn label(mut self, at: Location, text: impl Into<String>) -> Diagnostic {
        self.labels.push((at, text.into()));
        self
    }
}

/// Warnings before errors, each by place; the same finding once.
pub(super) fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| (a.severity, a.at, a.code).cmp(&(b.severity, b.at, b.code)));
    let mut seen = std::collections::HashSet::new();
    diagnostics.retain(|d| seen.insert((d.code, d.at, d.message.clone())));
    diagnostics.truncate(2 * DIAGNOSTICS_MAX);
}

/// Whether no more of this severity is wanted. Warnings never crowd out an error.
pub(super) fn is_full(found: &[Diagnostic], severity: Severity) -> bool {
    found.len() >= DIAGNOSTICS_MAX
        && found.iter().filter(|d| d.severity == severity).count() >= DIAGNOSTICS_MAX
}

/// The candidate that `word` was probably meant to be.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= 1.max(word.chars().count().max(candidate.chars().count()) / 3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

pub(super) fn any_error(found: &[Diagnostic]) -> bool {
    found.iter().any(|d| d.severity == Severity::Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near() {
        let words = ["endpoints", "balance", "connect-timeout"];
        assert_eq!(closest("endpoint", words), Some("endpoints"));
        assert_eq!(closest("connect_timeout", words), Some("connect-timeout"));
        assert_eq!(closest("weight", words), None);
    }

    #[test]
    fn quoted_text_is_tame() {
        assert_eq!(quoted("a\u{1b}[31m\nb"), "\"a\\u{1b}[31m\\nb\"");
        assert!(quoted(&"x".repeat(1000)).chars().count() < 90);
    }
}
