//! The configuration: YAML in, checked values or diagnostics out. The one room that knows YAML.
//!
//! The path of a text: [`source`] reads and merges, [`parse`] makes a tree that knows its lines, [`interpolate`]
//! fills in variables, [`validate`] holds it against the schema of [`raw`], [`resolve`] makes the checked [`model`].
//! Every step collects all it finds wrong. What validation refuses is left out of what is resolved, so that both kinds
//! of mistakes are reported together.

mod diagnostic;
mod environment;
mod interpolate;
mod model;
mod node;
mod parse;
mod paths;
mod pem;
mod quoted;
mod raw;
mod reference;
pub mod render;
mod resolve;
mod schema;
mod source;
mod store;
mod syntax;
#[cfg(test)]
mod tests;
mod units;
mod validate;

use std::path::{Path, PathBuf};

use diagnostic::any_error;
pub use diagnostic::{Diagnostic, Problem, Severity, quoted};
pub use environment::Environment;
pub use model::*;
pub use node::{Kind, Location, Node};
pub use pem::Pem;
pub use reference::reference;
pub use schema::{ModuleSchema, schema};
pub use source::{Input, Sources};
pub use store::{RedisConfig, StoreConfig};

use serde_json::Value as Json;

use raw::RawConfig;

/// A configuration without an error.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub sources: Sources,
    pub warnings: Vec<Diagnostic>,
    /// Files and directories this was made of: when one changes, loading again may give something else. Modules and
    /// certificates are not among them; `config` names those.
    pub watched: Vec<PathBuf>,
    shown: String,
}

impl Loaded {
    /// The configuration in effect as YAML, every default filled in; what came from `${file:…}` is not shown.
    pub fn show(&self) -> &str {
        &self.shown
    }
}

/// A configuration with at least one error.
#[derive(Debug)]
pub struct Rejected {
    /// Warnings and errors, errors last.
    pub diagnostics: Vec<Diagnostic>,
    pub sources: Sources,
    /// As of [`Loaded`], so that a watcher sees the mistake being mended.
    pub watched: Vec<PathBuf>,
    /// What could be made sense of, so that filters and certificates can be checked too. Never to be served.
    pub partial: Option<Config>,
}

/// Loads a configuration. Without inputs, the default places are searched.
///
/// Blocks on files; called on the control thread.
pub fn load(inputs: &[Input], env: &Environment<'_>) -> Result<Loaded, Box<Rejected>> {
    let (mut found, mut watched) = (Vec::new(), Vec::new());
    let mut all = Vec::with_capacity(inputs.len());
    for input in inputs.iter().cloned() {
        match input {
            Input::Search => all.extend(search(&env.cwd, &mut found)),
            known => all.push(known),
        }
    }
    if inputs.is_empty() {
        all = search(&env.cwd, &mut found);
    }
    let sources = source::read(&all, &env.cwd, env.vars, &mut watched, &mut found);
    let mut made = None;
    if !any_error(&found) {
        found.extend(validate::validate(
            &schema::core(),
            sources.root(),
            None,
            &ConfigPath::default(),
            validate::Nulls::Absent,
        ));
        let mut json = as_json(&sources, false);
        for wrong in &found {
            prune(&mut json, &wrong.path, wrong.code);
        }
        if let Some(raw) = deserialize(json, &sources, &mut found) {
            made = Some(resolve::resolve(&raw, &sources, env, &mut found));
        }
    }
    diagnostic::sort(&mut found);
    match made {
        Some(config) if !any_error(&found) => {
            let shown = deserialize(as_json(&sources, true), &sources, &mut Vec::new());
            let shown = shown.and_then(|raw| show(raw).ok()).unwrap_or_else(|| {
                "# cannot be shown: a value other than text comes from a file\n".to_owned()
            });
            Ok(Loaded {
                config,
                sources,
                warnings: found,
                watched,
                shown,
            })
        }
        partial => Err(Box::new(Rejected {
            diagnostics: found,
            sources,
            watched,
            partial,
        })),
    }
}

/// `./sluicegate.yaml`, else `/etc/sluicegate/sluicegate.yaml` with `/etc/sluicegate/conf.d/*.yaml`.
fn search(cwd: &Path, found: &mut Vec<Diagnostic>) -> Vec<Input> {
    const FILE: &str = "sluicegate.yaml";
    let system = Path::new("/etc/sluicegate");
    if cwd.join(FILE).is_file() {
        return vec![Input::Path(FILE.into())];
    }
    let parts: Vec<Input> = [system.join(FILE), system.join("conf.d")]
        .into_iter()
        .filter(|path| path.is_file() || is_stocked(path))
        .map(Input::Path)
        .collect();
    if parts.is_empty() {
        let tried = [
            cwd.join(FILE),
            system.join(FILE),
            system.join("conf.d/*.yaml"),
        ];
        let tried: Vec<String> = tried
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let help = format!(
            "tried {}\npass a file or a directory with -c",
            tried.join("\n      ")
        );
        found.push(Diagnostic::error("no-config", "there is no configuration").help(help));
    }
    parts
}

/// A directory with something in it to read: an empty `conf.d` is no mistake.
fn is_stocked(path: &Path) -> bool {
    let yaml = |path: &Path| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    std::fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|entry| yaml(&entry.path())))
}

/// The shapes as YAML, without the defaults of keys that mean nothing where they stand.
fn show(mut raw: RawConfig) -> Result<String, serde_yaml::Error> {
    for check in raw
        .pools
        .values_mut()
        .filter_map(|pool| pool.check.as_mut())
    {
        *check = raw::RawCheck::Full(check.in_full());
    }
    let mut yaml = serde_yaml::to_value(&raw)?;
    for (i, _) in raw
        .listeners
        .iter()
        .enumerate()
        .filter(|(_, listener)| listener.is_tcp())
    {
        let mut remove = |section: Option<&str>, keys: &[&str]| {
            let mut place = yaml.get_mut("listeners").and_then(|list| list.get_mut(i));
            if let Some(section) = section {
                place = place.and_then(|listener| listener.get_mut(section));
            }
            if let Some(serde_yaml::Value::Mapping(entries)) = place {
                keys.iter().for_each(|key| drop(entries.shift_remove(*key)));
            }
        };
        remove(None, &raw::HTTP_ONLY);
        remove(Some("timeouts"), &raw::HTTP_ONLY_TIMEOUTS);
        remove(Some("limits"), &raw::HTTP_ONLY_LIMITS);
    }
    serde_yaml::to_string(&yaml)
}

fn as_json(sources: &Sources, redact: bool) -> Json {
    let mut json = sources.root().to_json(redact);
    drop_nulls(&mut json);
    json
}

/// Takes a value out that validation refused, so that the rest can be looked at in the same go. What is missing then
/// is not reported again: resolution keeps quiet about places that are to blame already.
fn prune(json: &mut Json, path: &ConfigPath, code: &str) {
    if code == "missing-key" {
        return;
    }
    let Some((parent, token)) = path.0.rsplit_once('/') else {
        *json = Json::Object(serde_json::Map::new());
        return;
    };
    let token = token.replace("~1", "/").replace("~0", "~");
    match json.pointer_mut(parent) {
        Some(Json::Object(entries)) => {
            entries.remove(&token);
        }
        Some(Json::Array(items)) => {
            // The places of the others stay what they are.
            let maps = parent.ends_with("/listeners") || parent.ends_with("/certificates");
            let blank = if maps {
                Json::Object(serde_json::Map::new())
            } else {
                Json::from("")
            };
            if let Some(item) = token.parse().ok().and_then(|i: usize| items.get_mut(i)) {
                *item = blank;
            }
        }
        _ => {}
    }
}

/// The validated tree as shapes. It fits; should schema and shapes ever disagree, the disagreement is reported like
/// any mistake.
fn deserialize(json: Json, sources: &Sources, found: &mut Vec<Diagnostic>) -> Option<RawConfig> {
    match serde_path_to_error::deserialize(json) {
        Ok(raw) => Some(raw),
        // What is left of a wrong tree need not fit.
        Err(_) if any_error(found) => None,
        Err(error) => {
            let mut path = ConfigPath::default();
            for segment in error.path() {
                path = path.join(segment);
            }
            found.push(sources.diagnose(Problem {
                at: path,
                code: "bad-value",
                message: error.inner().to_string(),
                help: None,
            }));
            None
        }
    }
}

/// An empty value is an absent one, except inside settings, which are the module's to read.
fn drop_nulls(json: &mut Json) {
    match json {
        Json::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            let filter = entries.contains_key("module");
            entries
                .iter_mut()
                .filter(|(name, _)| !(filter && *name == "settings"))
                .for_each(|(_, value)| drop_nulls(value));
        }
        Json::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
