//! Whether a filter was granted the effects that its plan announces.

use super::plan::CheckedPlan;
use super::problem::{problem, setting};
use crate::config::{ConfigPath, FilterConfig, Problem, quoted};
use crate::wasm::{Effects, Module, tame};

/// Bytes shown of what the filter says of its settings.
const WORDS_MAX: usize = 1024;

/// Every effect that is announced and not granted, and pools to call likewise.
pub(super) fn check(
    plan: &CheckedPlan,
    module: &Module,
    config: &FilterConfig,
) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let name = quoted(&config.name);
    if plan.effects != Effects::empty() && !module.can_resume() {
        let message = format!(
            "filter {name} announces effects, and its module does not export `resume`, to which their results would go"
        );
        problems.push(
            problem(config.at.clone(), "invalid-plan", message)
                .help("this is a mistake in the filter; tell its author"),
        );
    }
    if plan.effects.contains(Effects::KEY_VALUE) && !config.capabilities.key_value {
        let message = format!("filter {name} uses the store, which is not granted");
        let at = ConfigPath(format!("{}/capabilities", config.at.0));
        let help =
            "if it may, write `capabilities: [key-value]` into the filter, beside its `module`";
        problems.push(problem(at, "missing-capability", message).help(help));
    }
    let missing: Vec<_> = plan
        .pools
        .iter()
        .filter(|pool| pool.called)
        .filter(|pool| {
            let granted = &config.capabilities.http_call;
            !granted.iter().any(|name| **name == *pool.name)
        })
        .collect();
    let granted = config.capabilities.http_call.iter().map(|name| &**name);
    let wanted: Vec<&str> = granted
        .chain(missing.iter().map(|pool| &*pool.name))
        .collect();
    let grant = tame(&wanted.join(", "), WORDS_MAX);
    for pool in missing {
        let message = format!(
            "filter {name} calls pool {}, which is not granted",
            quoted(&tame(&pool.name, WORDS_MAX))
        );
        let at = setting(&config.at, &tame(&pool.path, WORDS_MAX));
        let help = format!(
            "if it may, write `capabilities: [{{http-call: [{grant}]}}]` into the filter, beside its `module`"
        );
        problems.push(problem(at, "missing-capability", message).help(help));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}
