//! `filters:` and where modules are found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::resolver::Resolver;
use crate::config::diagnostic::{Diagnostic, closest, quoted};
use crate::config::model::{
    Capabilities, ConfigPath, FilterConfig, Isolation, ModuleSource, ModulesConfig, OnError,
};
use crate::config::paths::clean;
use crate::config::raw::{RawCapability, RawFilter, RawIsolation, RawModules, RawOnError, RawSize};
use crate::config::store::{self, STORE_BYTES_MAX, STORE_BYTES_MIN, StoreConfig, StoreProblem};

/// Searched after the configuration's own directory and `modules.paths`.
const MODULE_DIRS: [&str; 2] = ["/usr/lib/sluicegate/filters", "/var/lib/sluicegate/filters"];

impl Resolver<'_> {
    pub(super) fn modules(&mut self, raw: &RawModules, at: &ConfigPath) -> ModulesConfig {
        let paths_at = at.join("paths");
        let paths = raw
            .paths
            .iter()
            .enumerate()
            .map(|(i, path)| self.path(path, &paths_at.join(i)))
            .collect();
        let cache = match raw.cache.as_deref() {
            Some("off") => None,
            Some(path) => Some(self.path(path, &at.join("cache"))),
            None => {
                let absolute = |name: &str| {
                    (self.env.vars)(name)
                        .map(PathBuf::from)
                        .filter(|path| path.is_absolute())
                };
                let base = absolute("XDG_CACHE_HOME")
                    .or_else(|| absolute("HOME").map(|home| home.join(".cache")));
                base.map(|base| base.join("sluicegate"))
            }
        };
        ModulesConfig { paths, cache }
    }

    /// The named filters.
    pub(super) fn filters(
        &mut self,
        raw: &BTreeMap<String, RawFilter>,
        modules: &ModulesConfig,
    ) -> Vec<Arc<FilterConfig>> {
        let section = ConfigPath::default().join("filters");
        let mut filters = Vec::with_capacity(raw.len());
        for name in self.order(&section) {
            let Some(filter) = raw.get(&name) else {
                continue;
            };
            let at = section.join(&name);
            self.name("filter", &name, &at);
            filters.push(Arc::new(self.filter(
                name.as_str().into(),
                filter,
                at,
                modules,
            )));
        }
        filters
    }

    pub(super) fn filter(
        &mut self,
        name: Arc<str>,
        raw: &RawFilter,
        at: ConfigPath,
        modules: &ModulesConfig,
    ) -> FilterConfig {
        FilterConfig {
            name,
            module: self.module(&raw.module, &at.join("module"), modules),
            sha256: raw
                .sha256
                .as_deref()
                .and_then(|text| self.sha256(text, &at.join("sha256"))),
            settings: raw.settings.clone(),
            limits: self.filter_limits(&raw.limits, &at.join("limits")),
            capabilities: self.capabilities(&raw.capabilities, &at.join("capabilities")),
            store: self.store(&raw.store, &raw.limits.store, &at),
            on_error: match raw.on_error {
                RawOnError::Fail => OnError::Fail,
                RawOnError::Bypass => OnError::Bypass,
            },
            isolation: match raw.isolation {
                RawIsolation::Worker => Isolation::Worker,
                RawIsolation::Request => Isolation::Request,
            },
            handler: (raw.handler.as_ref())
                .map(|handler| self.handler_limits(Some(handler), &at.join("handler"))),
            at,
        }
    }

    fn capabilities(&mut self, raw: &[RawCapability], at: &ConfigPath) -> Capabilities {
        let has = |wanted: fn(&RawCapability) -> bool| raw.iter().any(wanted);
        let mut capabilities = Capabilities {
            log: has(|c| matches!(c, RawCapability::Log)),
            metrics: has(|c| matches!(c, RawCapability::Metrics)),
            clock: has(|c| matches!(c, RawCapability::Clock)),
            random: has(|c| matches!(c, RawCapability::Random)),
            tick: has(|c| matches!(c, RawCapability::Tick)),
            key_value: has(|c| matches!(c, RawCapability::KeyValue)),
            http_call: Vec::new(),
        };
        let pools = ConfigPath::default().join("pools");
        for (i, capability) in raw.iter().enumerate() {
            let RawCapability::HttpCall(names) = capability else {
                continue;
            };
            for (j, name) in names.0.iter().enumerate() {
                if !self.has(&pools.join(name)) && !self.is_full() {
                    let path = at.join(i).join("http-call").join(j);
                    let message = format!("pool {} is not defined", quoted(name));
                    let known = self.order(&pools);
                    let known = known.iter().map(String::as_str);
                    self.undefined("unknown-pool", message, &path, name, known, "pools");
                }
                capabilities.http_call.push(name.as_str().into());
            }
        }
        capabilities
    }

    fn store(&mut self, text: &str, limit: &RawSize, at: &ConfigPath) -> StoreConfig {
        let limit_at = at.join("limits").join("store");
        let bytes = self.size(limit, &limit_at, STORE_BYTES_MIN, STORE_BYTES_MAX);
        let help = "a store is \"memory\" or \"redis://[user:password@]host[:port][/db]\"";
        // The text may have a password: it is not repeated.
        let (message, help) = match store::parse(text, bytes) {
            Ok(config) => return config,
            Err(StoreProblem::Unknown) => ("there is no such store".to_owned(), help.to_owned()),
            Err(StoreProblem::Scheme(scheme)) => {
                let message = format!("there is no store for {}", quoted(&scheme));
                (message, help.to_owned())
            }
            Err(StoreProblem::Url(why)) => {
                let message = "this is not the URL of a Redis".to_owned();
                (message, format!("{why}\n{help}"))
            }
        };
        let problem = Diagnostic::error("bad-store", message).help(help);
        self.push(problem, &at.join("store"));
        StoreConfig::Memory { bytes }
    }

    pub(super) fn module(
        &mut self,
        text: &str,
        at: &ConfigPath,
        modules: &ModulesConfig,
    ) -> ModuleSource {
        if let Some(name) = text.strip_prefix("builtin:") {
            if !self.env.builtins.iter().any(|builtin| builtin == name) {
                let message = format!("there is no builtin module {}", quoted(name));
                let known = self.env.builtins.iter().map(String::as_str);
                let help = match closest(name, known) {
                    Some(near) => format!("did you mean \"builtin:{near}\"?"),
                    None if self.env.builtins.is_empty() => "this build has none".to_owned(),
                    None => format!("builtin modules are {}", self.env.builtins.join(", ")),
                };
                self.push(Diagnostic::error("unknown-module", message).help(help), at);
            }
            return ModuleSource::Builtin(name.to_owned());
        }
        if let Some((scheme, _)) = text.split_once("://") {
            let message = format!("modules cannot be fetched by {}", quoted(scheme));
            let help = "fetch it beforehand and give the path of the file";
            self.push(Diagnostic::error("unknown-module", message).help(help), at);
            return ModuleSource::File(PathBuf::from(text));
        }
        let tried = self.candidates(text, at, modules);
        if let Some(path) = tried.iter().find(|path| path.is_file()) {
            return ModuleSource::File(path.clone());
        }
        let lines: Vec<String> = tried
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let mut help = format!("tried {}", lines.join("\n      "));
        let wanted = text.strip_suffix(".wasm").unwrap_or(text);
        if self.env.builtins.iter().any(|builtin| builtin == wanted) {
            help = format!("did you mean \"builtin:{wanted}\"?\n{help}");
        }
        let message = format!("module {} is not found", quoted(text));
        self.push(Diagnostic::error("file-not-found", message).help(help), at);
        ModuleSource::File(PathBuf::from(text))
    }

    fn candidates(&self, text: &str, at: &ConfigPath, modules: &ModulesConfig) -> Vec<PathBuf> {
        if Path::new(text).is_absolute() {
            return vec![clean(Path::new(text))];
        }
        let own = self.sources.dir(at).to_owned();
        let dirs = std::iter::once(own)
            .chain(modules.paths.iter().cloned())
            .chain(MODULE_DIRS.iter().map(PathBuf::from));
        dirs.map(|dir| clean(&dir.join(text))).collect()
    }
}
