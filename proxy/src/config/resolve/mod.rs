//! From shapes to checked values. Every function here answers something even when it found a mistake, so that all
//! mistakes of a file are found in one go; the caller drops the result when there was an error.

mod chain;
mod filters;
mod handlers;
mod limits;
mod listeners;
mod pools;
mod process;
mod resolver;

use super::diagnostic::{Diagnostic, any_error};
use super::environment::Environment;
use super::model::{Config, ConfigPath};
use super::raw::RawConfig;
use super::source::Sources;
use resolver::Resolver;

pub(super) fn resolve(
    raw: &RawConfig,
    sources: &Sources,
    env: &Environment<'_>,
    found: &mut Vec<Diagnostic>,
) -> Config {
    let blamed = found
        .iter()
        .map(|d| d.path.clone())
        .filter(|path| !path.0.is_empty())
        .collect();
    let mut resolver = Resolver {
        sources,
        env,
        found,
        blamed,
    };
    let root = ConfigPath::default();
    let modules = resolver.modules(&raw.modules, &root.join("modules"));
    let pools = resolver.pools(&raw.pools, &modules);
    let filters = resolver.filters(&raw.filters, &modules);
    let mut scope = chain::Scope::new(&pools, filters);
    let listeners = resolver.listeners(&raw.listeners, &mut scope, &modules);
    let used = scope.used;
    let filters = scope.filters;
    let config = Config {
        workers: resolver.workers(&raw.workers),
        pools,
        filters,
        listeners,
        admin: resolver.admin(&raw.admin, &root.join("admin")),
        telemetry: resolver.telemetry(&raw.telemetry, &root.join("telemetry")),
        drain: resolver.drain(&raw.drain, &root.join("drain")),
        modules,
    };
    // What a mistake left out may be just what would have been used.
    if !any_error(resolver.found) {
        resolver.unused(&config, &used);
    }
    config
}
