//! Why a filter is not loaded, as problems of the configuration.

use std::sync::Arc;

use super::problem::{problem as finding, setting};
use crate::config::{ConfigPath, FilterConfig, PoolConfig, Problem, quoted};
use crate::wasm::{ConfigureError, Diagnostic, FaultKind, tame, tame_lines};

/// A module's own words about its settings: so many findings, and bytes of each, are shown.
const FINDINGS_MAX: usize = 20;
const WORDS_MAX: usize = 1024;
/// Longer names are no misspelt names of pools.
const POOL_NAME_MAX: usize = 64;

/// The module needs capabilities that the configuration does not grant; the help is what to write instead.
pub(super) fn not_granted(config: &FilterConfig, missing: &[&str]) -> Problem {
    let names: Vec<_> = missing
        .iter()
        .map(|name| quoted(name).to_string())
        .collect();
    let (word, verb) = match missing {
        [_] => ("capability", "is"),
        _ => ("capabilities", "are"),
    };
    let message = format!(
        "the module of filter {} uses the {word} {}, which {verb} not granted",
        quoted(&config.name),
        names.join(", ")
    );
    let mut all: Vec<String> = config.capabilities.names().map(str::to_owned).collect();
    all.extend(missing.iter().map(|name| (*name).to_owned()));
    let called = &config.capabilities.http_call;
    if !called.is_empty() {
        all.push(format!("{{http-call: [{}]}}", called.join(", ")));
    }
    let help = format!(
        "if it may, write `capabilities: [{}]` into the filter, beside its `module`",
        all.join(", ")
    );
    let at = ConfigPath(format!("{}/capabilities", config.at.0));
    finding(at, "missing-capability", message).help(help)
}

pub(super) fn problems(config: &FilterConfig, error: ConfigureError) -> Vec<Problem> {
    match error {
        ConfigureError::Rejected(diagnostics) if diagnostics.is_empty() => vec![finding(
            setting(&config.at, ""),
            "bad-settings",
            "the filter refuses its settings without saying why",
        )],
        ConfigureError::Rejected(diagnostics) => {
            let more = diagnostics.len().saturating_sub(FINDINGS_MAX);
            let shown = diagnostics.into_iter().take(FINDINGS_MAX);
            let mut problems: Vec<Problem> = shown.map(|d| refusal(config, d)).collect();
            if more > 0 {
                let message = format!("the filter finds {more} more mistakes in its settings");
                problems.push(finding(setting(&config.at, ""), "bad-settings", message));
            }
            problems
        }
        ConfigureError::Fault(fault) => {
            let mut message = format!("filter {} cannot be set up: {fault}", quoted(&config.name));
            if let Some(backtrace) = &fault.backtrace {
                message.push('\n');
                message.push_str(backtrace.trim_end());
            }
            let problem = finding(config.at.clone(), "filter-setup", message);
            vec![match fault.kind {
                FaultKind::Memory => problem.help("raise the filter's `limits: {memory: …}`"),
                FaultKind::Deadline => {
                    problem.help("raise the filter's `limits: {configure-deadline: …}`")
                }
                _ => problem,
            }]
        }
    }
}

/// What the filter says is wrong with one of its settings.
fn refusal(config: &FilterConfig, diagnostic: Diagnostic) -> Problem {
    Problem {
        code: "bad-settings",
        at: setting(&config.at, &tame(&diagnostic.path, WORDS_MAX)),
        message: tame_lines(&diagnostic.message, WORDS_MAX),
        help: diagnostic.help.map(|help| tame_lines(&help, WORDS_MAX)),
    }
}

pub(super) fn unknown_pool(
    config: &FilterConfig,
    wanted: &crate::wasm::PoolUse,
    pools: &[Arc<PoolConfig>],
) -> Problem {
    let message = format!(
        "pool {} is not defined",
        quoted(&tame(&wanted.name, WORDS_MAX))
    );
    let at = setting(&config.at, &tame(&wanted.path, WORDS_MAX));
    let problem = finding(at, "unknown-pool", message);
    let nearest = pools
        .iter()
        .filter(|_| wanted.name.len() <= POOL_NAME_MAX)
        .map(|pool| (strsim::damerau_levenshtein(&pool.name, &wanted.name), pool))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        // A third of the letters wrong is a typing mistake; more is another name.
        Some((distance, pool)) if distance <= (wanted.name.len() / 3).max(1) => {
            problem.help(format!("did you mean {}?", quoted(&pool.name)))
        }
        _ => problem,
    }
}
