//! The configuration: YAML in, checked values or diagnostics out. The one room that knows YAML.
//!
//! The path of a text: [`source`] reads and merges, [`parse`] makes a tree that knows its lines, [`interpolate`]
//! fills in variables, [`validate`] holds it against the schema of [`raw`], [`resolve`] makes the checked [`model`].
//! Every step collects all it finds wrong, and a step is taken only when the one before found no error.

mod source;
mod parse;
mod node;
mod interpolate;
mod validate;
mod raw;
mod units;
mod resolve;
mod model;
mod diagnostic;
pub mod render;
mod reference;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use diagnostic::{Diagnostic, Problem, Severity};
pub use model::*;
pub use node::{Kind, Location, Node};
pub use reference::reference;
pub use schema::{ModuleSchema, schema};
pub use source::{Input, Sources};

use raw::RawConfig;

/// What the world contributes to a configuration. Passed in, never looked up.
pub struct Environment<'a> {
    /// Environment variables.
    pub vars: &'a dyn Fn(&str) -> Option<String>,
    /// Names of the builtin modules, without `builtin:`.
    pub builtins: Vec<String>,
    /// Absolute; what relative inputs start from.
    pub cwd: PathBuf,
    /// What `workers: auto` means.
    pub processors: usize,
}

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
}

/// Loads a configuration. Without inputs, the default places are searched.
///
/// Blocks on files; called on the control thread.
pub fn load(inputs: &[Input], env: &Environment<'_>) -> Result<Loaded, Box<Rejected>> {
    let (mut found, mut watched) = (Vec::new(), Vec::new());
    let searched;
    let inputs = if inputs.is_empty() {
        searched = search(&env.cwd, &mut found);
        &searched
    } else {
        inputs
    };
    let sources = source::read(inputs, &env.cwd, env.vars, &mut watched, &mut found);
    let mut made = None;
    if !any_error(&found) {
        found.extend(validate::validate(
            &schema::core(),
            sources.root(),
            None,
            &ConfigPath::default(),
            validate::Nulls::Absent,
        ));
    }
    if !any_error(&found)
        && let Some(raw) = deserialize(&sources, false, &mut found)
    {
        made = Some(resolve::resolve(&raw, &sources, env, &mut found));
    }
    diagnostic::sort(&mut found);
    match made {
        Some(config) if !any_error(&found) => {
            let shown = deserialize(&sources, true, &mut Vec::new());
            let shown = shown.and_then(|raw| serde_yaml::to_string(&raw).ok()).unwrap_or_else(|| {
                "# cannot be shown: a value other than text comes from a file\n".to_owned()
            });
            Ok(Loaded { config, sources, warnings: found, watched, shown })
        }
        _ => Err(Box::new(Rejected { diagnostics: found, sources, watched })),
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
        let tried = [cwd.join(FILE), system.join(FILE), system.join("conf.d/*.yaml")];
        let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
        let help = format!("tried {}\npass a file or a directory with -c", tried.join("\n      "));
        found.push(Diagnostic::error("no-config", "there is no configuration").help(help));
    }
    parts
}

/// A directory with something in it to read: an empty `conf.d` is no mistake.
fn is_stocked(path: &Path) -> bool {
    let yaml = |path: &Path| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    std::fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|entry| yaml(&entry.path())))
}

/// The validated tree as shapes. It fits; should schema and shapes ever disagree, the disagreement is reported like
/// any mistake.
fn deserialize(sources: &Sources, redact: bool, found: &mut Vec<Diagnostic>) -> Option<RawConfig> {
    let mut json = sources.root().to_json(redact);
    drop_nulls(&mut json);
    match serde_path_to_error::deserialize(json) {
        Ok(raw) => Some(raw),
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
fn drop_nulls(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            let filter = entries.contains_key("module");
            entries.iter_mut().filter(|(name, _)| !(filter && *name == "settings")).for_each(|(_, value)| drop_nulls(value));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn any_error(found: &[Diagnostic]) -> bool {
    found.iter().any(|d| d.severity == Severity::Error)
}
