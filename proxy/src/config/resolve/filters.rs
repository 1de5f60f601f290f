//! `filters:` and where modules are found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Diagnostic, Resolver, clean, closest, quoted};
use crate::config::model::{
    Capabilities, ConfigPath, FilterConfig, FilterLimits, ModuleSource, ModulesConfig, OnError,
};
use crate::config::raw::{RawCapability, RawFilter, RawModules, RawOnError};

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
        let limits = at.join("limits");
        let millisecond = Duration::from_millis(1);
        FilterConfig {
            name,
            module: self.module(&raw.module, &at.join("module"), modules),
            settings: raw.settings.clone(),
            limits: FilterLimits {
                memory: self.size(
                    &raw.limits.memory,
                    &limits.join("memory"),
                    64 << 10,
                    4 << 30,
                ),
                deadline: self.duration(
                    &raw.limits.deadline,
                    &limits.join("deadline"),
                    millisecond,
                ),
                configure_deadline: self.duration(
                    &raw.limits.configure_deadline,
                    &limits.join("configure-deadline"),
                    millisecond,
                ),
                output: self.size(
                    &raw.limits.output,
                    &limits.join("output"),
                    1 << 10,
                    64 << 20,
                ),
                state: self.size(&raw.limits.state, &limits.join("state"), 1 << 10, 64 << 20),
            },
            capabilities: capabilities(&raw.capabilities),
            on_error: match raw.on_error {
                RawOnError::Fail => OnError::Fail,
                RawOnError::Bypass => OnError::Bypass,
            },
            at,
        }
    }

    fn module(&mut self, text: &str, at: &ConfigPath, modules: &ModulesConfig) -> ModuleSource {
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

fn capabilities(raw: &[RawCapability]) -> Capabilities {
    let mut granted = Capabilities::default();
    for capability in raw {
        match capability {
            RawCapability::Log => granted.log = true,
            RawCapability::Metrics => granted.metrics = true,
            RawCapability::Clock => granted.clock = true,
            RawCapability::Random => granted.random = true,
            RawCapability::Tick => granted.tick = true,
        }
    }
    granted
}
