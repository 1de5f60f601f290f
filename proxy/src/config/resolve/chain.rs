//! What a listener refers to: its pool and its filters.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::resolver::Resolver;
use crate::config::diagnostic::{Diagnostic, quoted};
use crate::config::model::{ConfigPath, FilterConfig, ModulesConfig, PoolConfig};
use crate::config::raw::{RawFilter, RawFilterUse, RawListener};

/// Filters of one listener; a chain that is longer is a mistake of a generator.
const CHAIN_MAX: usize = 64;

/// What listeners refer to.
pub(super) struct Scope {
    pools: HashMap<Arc<str>, usize>,
    named: HashMap<Arc<str>, usize>,
    /// The named filters; anonymous ones are added.
    pub filters: Vec<Arc<FilterConfig>>,
    /// For the named ones.
    pub used: Vec<bool>,
    /// Names of anonymous filters, and how often each was asked for.
    anonymous: HashMap<String, usize>,
}

impl Scope {
    pub fn new(pools: &[Arc<PoolConfig>], filters: Vec<Arc<FilterConfig>>) -> Scope {
        let places = |names: &mut dyn Iterator<Item = Arc<str>>| {
            names.enumerate().map(|(i, name)| (name, i)).collect()
        };
        Scope {
            pools: places(&mut pools.iter().map(|pool| pool.name.clone())),
            named: places(&mut filters.iter().map(|filter| filter.name.clone())),
            used: vec![false; filters.len()],
            filters,
            anonymous: HashMap::new(),
        }
    }

    /// `LISTENER/MODULE`, numbered when that is taken.
    fn anonymous(&mut self, listener: &str, filter: &RawFilter) -> Arc<str> {
        let module = match filter.module.strip_prefix("builtin:") {
            Some(name) => name.to_owned(),
            None => Path::new(&filter.module)
                .file_stem()
                .map_or("module".into(), |stem| stem.to_string_lossy().into()),
        };
        let base = format!("{listener}/{module}");
        let mut name = base.clone();
        loop {
            let asked = self.anonymous.entry(base.clone()).or_insert(0);
            *asked += 1;
            if *asked > 1 {
                name = format!("{base}-{asked}");
            }
            let taken = name != base && self.anonymous.contains_key(&name);
            if !taken && !self.named.contains_key(name.as_str()) {
                self.anonymous.entry(name.clone()).or_insert(1);
                return name.into();
            }
        }
    }
}

impl Resolver<'_> {
    pub(super) fn pool_index(
        &mut self,
        raw: &RawListener,
        name: &str,
        at: &ConfigPath,
        scope: &Scope,
    ) -> Option<usize> {
        let index = scope.pools.get(name).copied();
        if index.is_none() && !self.has(&ConfigPath::default().join("pools").join(name)) {
            let message = format!(
                "listener {} names pool {}, which is not defined",
                quoted(&raw.name),
                quoted(name)
            );
            self.undefined(
                "unknown-pool",
                message,
                at,
                name,
                scope.pools.keys().map(|name| &**name),
                "pools",
            );
        }
        index
    }

    pub(super) fn chain(
        &mut self,
        raw: &RawListener,
        at: &ConfigPath,
        scope: &mut Scope,
        modules: &ModulesConfig,
    ) -> Vec<usize> {
        let at = at.join("filters");
        if raw.filters.len() > CHAIN_MAX {
            self.error(
                &at,
                "out-of-range",
                format!("a listener has at most {CHAIN_MAX} filters"),
            );
            return Vec::new();
        }
        let mut out = Vec::with_capacity(raw.filters.len());
        for (i, one) in raw.filters.iter().enumerate() {
            let at = at.join(i);
            match one {
                RawFilterUse::Named(name) => match scope.named.get(name.as_str()) {
                    Some(index) => {
                        scope.used[*index] = true;
                        if out.contains(index) {
                            let message = format!("filter {} is in this chain twice", quoted(name));
                            self.push(Diagnostic::warning("duplicate-filter", message), &at);
                        }
                        out.push(*index);
                    }
                    None if self.has(&ConfigPath::default().join("filters").join(name)) => {}
                    None => self.unknown_filter(raw, name, &at, scope),
                },
                RawFilterUse::Inline(filter) => {
                    let name = scope.anonymous(&raw.name, filter);
                    let filter = self.filter(name, filter, at, modules);
                    scope.filters.push(Arc::new(filter));
                    out.push(scope.filters.len() - 1);
                }
            }
        }
        out
    }

    fn unknown_filter(&mut self, raw: &RawListener, name: &str, at: &ConfigPath, scope: &Scope) {
        let message = format!(
            "listener {} names filter {}, which is not defined",
            quoted(&raw.name),
            quoted(name)
        );
        if name.starts_with("builtin:") || name.ends_with(".wasm") {
            let help = format!("a module in place is a map: `{{module: {name}}}`");
            self.push(Diagnostic::error("unknown-filter", message).help(help), at);
            return;
        }
        self.undefined(
            "unknown-filter",
            message,
            at,
            name,
            scope.named.keys().map(|name| &**name),
            "filters",
        );
    }
}
