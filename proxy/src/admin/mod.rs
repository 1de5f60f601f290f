//! The admin interface: a small HTTP server on the control runtime, for operators, probes and scrapers.
//!
//! `GET` reads, `POST` changes; [`routes`] has a file for each path. By default it is a unix socket that only
//! its owner and group may open; over TCP it binds loopback alone and answers only requests that a browser cannot be
//! tricked into making. It knows the process through [`Process`] and nothing else.

mod answer;
mod bind;
mod routes;
mod serve;
mod table;
mod trust;

use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

use crate::telemetry::Exposition;

pub use bind::Admin;

/// What the admin interface asks of the process. Called on the control thread; nothing may block but [`Process::reload`].
pub trait Process {
    fn readiness(&self) -> Readiness;

    /// The text of `/metrics`.
    fn metrics(&self, format: Exposition) -> String;

    /// Reads and checks the configuration anew, and swaps to it when it is right. Two at a time are served in turn.
    /// Dropping the future (the client went away) must not leave a reload half done.
    fn reload(&self) -> LocalBoxFuture<'static, ReloadAnswer>;
}

/// Whether new connections should be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    Starting,
    Ready,
    Draining,
}

/// How a reload ended: the body that `POST /reload` answers with, 200 or 422.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReloadAnswer {
    Done(Reloaded),
    Refused(ReloadRefused),
}

/// The new generation serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Always true.
    pub ok: bool,
    pub from: u64,
    pub to: u64,
    pub took_ms: u64,
    pub changed: Changed,
    /// What is odd about the configuration, each with file, line, column, code, path, message and help.
    #[serde(default)]
    pub warnings: serde_json::Value,
    /// The same as text to be printed.
    #[serde(default)]
    pub text: String,
}

/// How many objects of each kind were added, removed or changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub listeners: usize,
    pub filters: usize,
    pub pools: usize,
    /// The sections beside these that changed, by their keys.
    #[serde(default)]
    pub sections: Vec<String>,
}

/// Nothing changed: the old generation serves on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadRefused {
    /// Always false.
    pub ok: bool,
    /// The generation that goes on.
    pub generation: u64,
    /// Each problem with file, line, column, code, path, message and help.
    pub diagnostics: serde_json::Value,
    /// The same as text to be printed.
    pub text: String,
}

impl Readiness {
    pub fn as_str(self) -> &'static str {
        match self {
            Readiness::Starting => "starting",
            Readiness::Ready => "ready",
            Readiness::Draining => "draining",
        }
    }
}

impl ReloadAnswer {
    pub fn done(from: u64, to: u64, took: std::time::Duration, changed: Changed) -> Self {
        Self::Done(Reloaded {
            ok: true,
            from,
            to,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            changed,
            warnings: serde_json::json!([]),
            text: String::new(),
        })
    }

    pub fn refused(generation: u64, diagnostics: serde_json::Value, text: String) -> Self {
        Self::Refused(ReloadRefused {
            ok: false,
            generation,
            diagnostics,
            text,
        })
    }
}

/// `generation 7 → 8 (1 filter, 2 pools changed) in 41 ms`.
impl std::fmt::Display for Reloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Changed {
            listeners,
            filters,
            pools,
            sections,
        } = &self.changed;
        let mut parts: Vec<String> = [
            (*listeners, "listener"),
            (*filters, "filter"),
            (*pools, "pool"),
        ]
        .into_iter()
        .filter(|&(count, _)| count > 0)
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .collect();
        parts.extend(sections.iter().cloned());
        let changed = match parts.is_empty() {
            true => "nothing".to_owned(),
            false => parts.join(", "),
        };
        write!(
            f,
            "generation {} \u{2192} {} ({changed} changed) in {} ms",
            self.from, self.to, self.took_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_reads_like_a_sentence() {
        let check = |(listeners, filters, pools, sections): (_, _, _, &[&str]), expected: &str| {
            let changed = Changed {
                listeners,
                filters,
                pools,
                sections: sections.iter().map(|&name| name.to_owned()).collect(),
            };
            let took = std::time::Duration::from_millis(41);
            let ReloadAnswer::Done(done) = ReloadAnswer::done(7, 8, took, changed) else {
                panic!("not done");
            };
            assert_eq!(
                done.to_string(),
                format!("generation 7 \u{2192} 8 ({expected} changed) in 41 ms")
            );
        };
        check((0, 1, 2, &[]), "1 filter, 2 pools");
        check((2, 0, 0, &[]), "2 listeners");
        check((0, 0, 0, &[]), "nothing");
        check((0, 0, 0, &["telemetry"]), "telemetry");
        check(
            (0, 0, 1, &["telemetry", "drain"]),
            "1 pool, telemetry, drain",
        );
    }

    #[test]
    fn answers_survive_json() {
        for answer in [
            ReloadAnswer::done(1, 2, std::time::Duration::ZERO, Changed::default()),
            ReloadAnswer::refused(1, serde_json::json!([{"line": 3}]), "error".into()),
        ] {
            let text = serde_json::to_string(&answer).expect("JSON");
            assert_eq!(
                serde_json::from_str::<ReloadAnswer>(&text).expect("back"),
                answer
            );
        }
    }
}
