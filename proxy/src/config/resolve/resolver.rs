//! What all parts of a configuration are resolved with.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::diagnostic::{Diagnostic, Severity, closest, is_full, quoted, ticked};
use crate::config::environment::Environment;
use crate::config::model::{Config, ConfigPath};
use crate::config::node::{Location, Node};
use crate::config::paths::clean;
use crate::config::raw::{RawDuration, RawSize};
use crate::config::source::Sources;
use crate::config::units;

/// Names appear in logs, metrics and command lines.
const NAME_MAX: usize = 128;

pub(super) struct Resolver<'a> {
    pub(super) sources: &'a Sources,
    pub(super) env: &'a Environment<'a>,
    pub(super) found: &'a mut Vec<Diagnostic>,
    /// Where validation found mistakes; what is there now are stand-ins.
    pub(super) blamed: HashSet<ConfigPath>,
}

impl Resolver<'_> {
    pub(super) fn push(&mut self, mut diagnostic: Diagnostic, path: &ConfigPath) {
        if !is_full(self.found, diagnostic.severity) && !self.is_blamed(path) {
            diagnostic.path = path.clone();
            diagnostic.at = self.sources.locate(path);
            self.found.push(diagnostic);
        }
    }

    /// Whether enough is wrong already. Asked before costly preparations.
    pub(super) fn is_full(&self) -> bool {
        is_full(self.found, Severity::Error)
    }

    pub(super) fn error(
        &mut self,
        path: &ConfigPath,
        code: &'static str,
        message: impl Into<String>,
    ) {
        self.push(Diagnostic::error(code, message), path);
    }

    pub(super) fn unused(&mut self, config: &Config, used: &[bool]) {
        for (filter, _) in config.filters.iter().zip(used).filter(|(_, used)| !**used) {
            let message = format!("filter {} is used by no listener", quoted(&filter.name));
            self.push(Diagnostic::warning("unused-filter", message), &filter.at);
        }
        if config.listeners.is_empty() {
            // A reload that took it would close every address while the process looks well.
            let at = ConfigPath::default().join("listeners");
            let message = "there are no listeners: nothing would be served";
            let help = "add one under `listeners`, such as `{name: web, bind: \":8080\", protocol: http, pool: NAME}`";
            self.push(Diagnostic::error("no-listeners", message).help(help), &at);
        }
    }

    /// Whether the value at `path`, or one it is part of, is known to be wrong.
    pub(super) fn is_blamed(&self, path: &ConfigPath) -> bool {
        let ends = path
            .0
            .match_indices('/')
            .map(|(i, _)| i)
            .skip(1)
            .chain([path.0.len()]);
        let mut parts = ends.map(|end| ConfigPath(path.0[..end].to_owned()));
        !self.blamed.is_empty() && parts.any(|part| self.blamed.contains(&part))
    }

    /// The keys of a map in the order they were written.
    pub(super) fn order(&self, path: &ConfigPath) -> Vec<String> {
        let entries = self
            .sources
            .node(path)
            .and_then(Node::map)
            .unwrap_or_default();
        entries
            .iter()
            .map(|entry| entry.key.text.to_string())
            .collect()
    }

    pub(super) fn has(&self, path: &ConfigPath) -> bool {
        self.sources.node(path).is_some_and(|node| !node.is_null())
    }

    pub(super) fn key_location(&self, path: &ConfigPath) -> Option<Location> {
        let (node, key, whole) = self.sources.root().follow(path);
        whole.then(|| key.map_or(node.at, |key| key.at))
    }

    /// A duration from `least` on; zero when it is wrong.
    pub(super) fn duration(
        &mut self,
        raw: &RawDuration,
        path: &ConfigPath,
        least: Duration,
    ) -> Duration {
        match units::duration(&raw.0) {
            Ok(duration) if duration >= least => duration,
            Ok(_) => {
                self.error(
                    path,
                    "out-of-range",
                    format!(
                        "{} is at least {}, not {}",
                        key_name(path),
                        units::show_duration(least),
                        quoted(&raw.0)
                    ),
                );
                least
            }
            Err(why) => {
                let message = format!("{} is not a duration", quoted(&raw.0));
                self.push(Diagnostic::error("bad-duration", message).help(why), path);
                least
            }
        }
    }

    /// A size within bounds.
    pub(super) fn size(
        &mut self,
        raw: &RawSize,
        path: &ConfigPath,
        least: u64,
        most: u64,
    ) -> usize {
        let bytes = match raw {
            RawSize::Bytes(bytes) => Ok(*bytes),
            RawSize::Text(text) => units::size(text),
        };
        let shown = match raw {
            RawSize::Bytes(bytes) => show_size(*bytes),
            RawSize::Text(text) => quoted(text),
        };
        match bytes {
            Ok(bytes) if (least..=most).contains(&bytes) => {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }
            Ok(_) => {
                let message = format!(
                    "{} is a size from {} to {}, not {shown}",
                    key_name(path),
                    show_size(least),
                    show_size(most)
                );
                self.error(path, "out-of-range", message);
                0
            }
            Err(why) => {
                self.push(
                    Diagnostic::error("bad-size", format!("{shown} is not a size")).help(why),
                    path,
                );
                0
            }
        }
    }

    /// A path as written at `at`: relative ones start at the directory of their file.
    pub(super) fn path(&self, text: &str, at: &ConfigPath) -> PathBuf {
        clean(&self.sources.dir(at).join(text))
    }

    pub(super) fn name(&mut self, what: &str, name: &str, path: &ConfigPath) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(allowed) {
            let message = format!("{} cannot be the name of a {what}", quoted(name));
            let help = format!("a name has 1 to {NAME_MAX} letters, digits and `-_./:@`");
            self.push(Diagnostic::error("bad-name", message).help(help), path);
        }
    }

    /// A reference to something that is not defined.
    pub(super) fn undefined<'n>(
        &mut self,
        code: &'static str,
        message: String,
        path: &ConfigPath,
        name: &str,
        known: impl Iterator<Item = &'n str>,
        section: &str,
    ) {
        if self.is_full() {
            return;
        }
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        let help = match closest(name, known.iter().copied()) {
            Some(near) => {
                let at = self.key_location(&ConfigPath::default().join(section).join(near));
                let here = self.sources.locate(path).map(|at| at.file);
                match at {
                    Some(at) if Some(at.file) == here => {
                        format!("did you mean {}? (line {})", quoted(near), at.line)
                    }
                    Some(at) => {
                        format!(
                            "did you mean {}? ({}:{})",
                            quoted(near),
                            self.sources.file_name(at.file),
                            at.line
                        )
                    }
                    None => format!("did you mean {}?", quoted(near)),
                }
            }
            None if known.is_empty() => format!("nothing is defined under `{section}`"),
            None => format!(
                "defined are: {}",
                known
                    .iter()
                    .take(20)
                    .map(|name| quoted(name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        self.push(Diagnostic::error(code, message).help(help), path);
    }
}

/// What a setting is called in messages: its key.
pub(super) fn key_name(path: &ConfigPath) -> String {
    ticked(path.0.rsplit('/').next().unwrap_or_default())
}

pub(super) fn show_size(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    match bytes {
        1 => "1 byte".to_owned(),
        _ => format!("{bytes} bytes"),
    }
}
