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
    let needs_store = plan.effects.contains(Effects::KEY_VALUE) && !config.capabilities.key_value;
    let needs_ticks = plan.tick_ms > 0 && !config.capabilities.tick;
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
    let mut called: Vec<&str> = granted.collect();
    for pool in &missing {
        if !called.contains(&&*pool.name) {
            called.push(&pool.name);
        }
    }
    // What is to be written in the end, whichever of it is missing.
    let mut all: Vec<String> = config.capabilities.names().map(str::to_owned).collect();
    all.extend(needs_store.then(|| "key-value".to_owned()));
    all.extend(needs_ticks.then(|| "tick".to_owned()));
    if !called.is_empty() {
        let called = tame(&called.join(", "), WORDS_MAX);
        all.push(format!("{{http-call: [{called}]}}"));
    }
    let help = format!(
        "if it may, write `capabilities: [{}]` into the filter, beside its `module`",
        all.join(", ")
    );
    let whole = |what: &str| {
        let at = ConfigPath(format!("{}/capabilities", config.at.0));
        problem(
            at,
            "missing-capability",
            format!("filter {name} {what}, which is not granted"),
        )
        .help(help.clone())
    };
    problems.extend(needs_store.then(|| whole("uses the store")));
    problems.extend(needs_ticks.then(|| whole("wants ticks")));
    for pool in missing {
        let message = format!(
            "filter {name} calls pool {}, which is not granted",
            quoted(&tame(&pool.name, WORDS_MAX))
        );
        let at = setting(&config.at, &tame(&pool.path, WORDS_MAX));
        problems.push(problem(at, "missing-capability", message).help(help.clone()));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}
