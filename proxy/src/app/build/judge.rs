//! Mistakes that only show when a module and the configuration are seen together.

use crate::config::{self, ConfigPath, Diagnostic, FilterConfig, Problem, Sources, quoted};
use crate::generation::Member;
use crate::protocol::{self, Protocol};
use crate::wasm::{Module, Phase};
use std::sync::Arc;

/// A filter that none of its listener's phases would ever call is a mistake: it would silently do nothing.
pub(super) fn misplaced(
    member: &Member,
    index: usize,
    config: &config::Config,
    sources: &Sources,
) -> Vec<Diagnostic> {
    let fits = |protocol: &dyn Protocol| match member {
        Member::Filter(used) => {
            let mut phases = Phase::ALL.into_iter().filter(|&p| protocol.has_phase(p));
            phases.any(|phase| used.filter.module().phase(phase).is_some())
        }
        Member::Middleware(_) => protocol.takes_middleware(),
    };
    let name = match member {
        Member::Filter(used) => used.filter.name(),
        Member::Middleware(middleware) => middleware.name(),
    };
    let others = protocol::ALL.iter().filter(|p| fits(**p));
    let others: Vec<String> = others
        .map(|p| format!("`protocol: {}`", p.name()))
        .collect();
    let help = format!("use it on a listener with {}", others.join(" or "));
    let mut found = Vec::new();
    for listener in &config.listeners {
        let protocol = protocol::of(listener);
        if fits(protocol) {
            continue;
        }
        let own = protocol.name();
        for (place, &used) in listener.filters.iter().enumerate() {
            if used == index {
                found.push(sources.diagnose(Problem {
                    at: ConfigPath(format!("{}/filters/{place}", listener.at.0)),
                    code: "wrong-protocol",
                    message: format!(
                        "filter {} does nothing on a listener with `protocol: {own}`: it has no phase that is called there",
                        quoted(name)
                    ),
                    help: Some(help.clone()),
                }));
            }
        }
    }
    found
}

/// What the module's own schema has against the settings, if anything.
pub(super) fn wrong_settings(
    module: &Arc<Module>,
    config: &FilterConfig,
    sources: &Sources,
) -> Option<Vec<Diagnostic>> {
    let broken = |why: String| {
        let message = format!("filter {:?}: {why}", &*config.name);
        let problem = Problem {
            at: config.at.clone(),
            code: "filter",
            message,
            help: Some("this is a mistake in the filter; tell its author".into()),
        };
        Some(vec![sources.diagnose(problem)])
    };
    let schema = match module.schema() {
        Ok(schema) => schema?,
        Err(fault) => return broken(format!("its settings schema cannot be read: {fault}")),
    };
    let schema = match serde_json::from_str(&schema) {
        Ok(schema) => schema,
        Err(error) => return broken(format!("its settings schema is no JSON: {error}")),
    };
    let settings = ConfigPath(format!("{}/settings", config.at.0));
    let wrong = sources.validate(&settings, &schema);
    (!wrong.is_empty()).then_some(wrong)
}
