//! The files a configuration is made of, and the one tree they add up to.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Problem, Severity, quoted};
use super::interpolate::Interpolation;
use super::model::ConfigPath;
use super::node::{Entry, Key, Location, Node, NodeValue};
use super::parse::{TEXT_MAX, parse};
use super::paths::{clean, clean_in};
use super::pem::is_private;
use super::validate::{self, validate};
use crate::error::why;

/// Where configuration text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The default places: the first that is there.
    Search,
    /// A file, or a directory whose `*.yaml` files are read in lexical order.
    Path(PathBuf),
    /// Text that is not in a file: standard input, a test. Relative paths in it start at the working directory.
    Text { name: String, text: String },
}

/// The texts and their merged tree: turns paths of settings into places in files.
#[derive(Debug, Clone)]
pub struct Sources {
    files: Vec<Source>,
    root: Node,
}

#[derive(Debug, Clone)]
pub(super) struct Source {
    /// As the user named it, for messages.
    pub name: String,
    /// What relative paths in it are relative to.
    pub dir: PathBuf,
    pub text: Arc<str>,
}

/// Files of one directory.
const FILES_MAX: usize = 1024;

/// Top-level maps whose entries may be spread over files, and the list that is concatenated.
const MERGED_MAPS: [&str; 2] = ["pools", "filters"];
const MERGED_LIST: &str = "listeners";

impl Sources {
    /// Whether a line has a private key, or a part of one.
    pub(super) fn has_key(&self, file: u32, line: u32) -> bool {
        let source = usize::try_from(file).ok().and_then(|i| self.files.get(i));
        let lines = source.map_or("", |source| &*source.text).lines();
        let mut inside = false;
        for (number, text) in (1u32..).zip(lines).take(line as usize) {
            let begins = is_private(text) && text.contains("-----BEGIN ");
            let ends = text.contains("-----END ");
            if number == line {
                return inside || begins || is_private(text);
            }
            inside = (inside || begins) && !ends;
        }
        false
    }

    /// Where the setting at `path` is, or the nearest setting above it that exists.
    pub fn locate(&self, path: &ConfigPath) -> Option<Location> {
        let (node, key, _) = self.root.follow(path);
        (node.at.line > 0 && !self.files.is_empty()).then(|| node.focus(key))
    }

    /// The value at `path`, when there is one.
    pub fn node(&self, path: &ConfigPath) -> Option<&Node> {
        match self.root.follow(path) {
            (node, _, true) => Some(node),
            _ => None,
        }
    }

    /// Puts a finding of another room at its place.
    pub fn diagnose(&self, problem: Problem) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code: problem.code,
            message: problem.message,
            at: self.locate(&problem.at),
            path: problem.at,
            labels: Vec::new(),
            help: problem.help,
        }
    }

    /// Validates the settings at `path` against a module's own schema; what the schema cannot say is `configure`'s
    /// to find.
    pub fn validate(&self, path: &ConfigPath, schema: &Json) -> Vec<Diagnostic> {
        let (node, key, whole) = self.root.follow(path);
        if whole && !node.is_null() {
            return validate(schema, node, key, path, validate::Nulls::Values);
        }
        // What is left out, or has nothing behind its colon, is a map in which everything is left out.
        let absent = Node {
            at: node.focus(key),
            value: match validate::wants_map(schema) {
                true => NodeValue::Map(Vec::new()),
                false => NodeValue::Scalar(super::node::Scalar::null()),
            },
        };
        validate(schema, &absent, None, path, validate::Nulls::Values)
    }

    /// The name of a location's file, as the user gave it.
    pub fn file_name(&self, file: u32) -> &str {
        self.files
            .get(file as usize)
            .map_or("?", |source| source.name.as_str())
    }

    /// A line of a file without its line break, counted from 1.
    pub(super) fn line(&self, file: u32, line: u32) -> &str {
        let Some(source) = self.files.get(file as usize) else {
            return "";
        };
        source
            .text
            .split('\n')
            .nth((line as usize).saturating_sub(1))
            .unwrap_or("")
    }

    /// The directory that relative paths written at `path` start from.
    pub fn dir(&self, path: &ConfigPath) -> &Path {
        let (node, _, _) = self.root.follow(path);
        self.files
            .get(node.at.file as usize)
            .map_or(Path::new(""), |source| source.dir.as_path())
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }
}

/// Reads, parses and interpolates all inputs and merges them. Everything that is wrong goes to `found`; `watched`
/// receives every file and directory the result depends on.
pub(super) fn read(
    inputs: &[Input],
    cwd: &Path,
    vars: &dyn Fn(&str) -> Option<String>,
    watched: &mut Vec<PathBuf>,
    found: &mut Vec<Diagnostic>,
) -> Sources {
    let mut files = Vec::new();
    for input in inputs {
        match input {
            // It has been replaced by what was found.
            Input::Search => {}
            Input::Text { name, text } => files.push(Source {
                name: name.clone(),
                dir: cwd.to_owned(),
                text: normalise(text).into(),
            }),
            Input::Path(path) => {
                let absolute = cwd.join(path);
                watched.push(clean(&absolute));
                let shown = clean_in(cwd, path);
                if absolute.is_dir() {
                    directory(&shown, &absolute, watched, &mut files, found);
                } else {
                    files.extend(file(&shown, &absolute, found));
                }
            }
        }
    }
    let mut merged = Merged::default();
    let single = files.len() == 1;
    for (i, source) in files.iter().enumerate() {
        let index = u32::try_from(i).unwrap_or(u32::MAX);
        if source.text.len() > TEXT_MAX {
            let message = format!(
                "{} is larger than {} MiB",
                quoted(&source.name),
                TEXT_MAX >> 20
            );
            found.push(Diagnostic::error("too-large", message));
            continue;
        }
        let before = found.len();
        let parsed = parse(index, &source.text, found);
        if let Some(wrong) = found.get_mut(before..).and_then(<[_]>::last_mut)
            && wrong.code == "syntax"
        {
            to_text(&mut wrong.at, &source.text);
        }
        let Some(mut root) = parsed else {
            if found.len() == before && single {
                found.push(empty(source));
            }
            continue;
        };
        Interpolation::new(vars, &source.dir, found, watched).apply(&mut root);
        if root.is_null() {
            if single {
                found.push(empty(source));
            }
            continue;
        }
        merged.add(root, found);
    }
    Sources {
        files,
        root: merged.finish(),
    }
}

/// Line feeds only and no byte order mark, so that everyone counts lines alike.
/// A mistake that the parser notices on an empty line lies where the text before ends.
fn to_text(at: &mut Option<Location>, text: &str) {
    let Some(at) = at else { return };
    let lines = text.split('\n').take(at.line as usize);
    let last = (1..).zip(lines).filter(|(_, line)| !line.trim().is_empty());
    if let Some((number, line)) = last.last()
        && number < at.line
    {
        let column = u32::try_from(line.trim_end().chars().count()).unwrap_or(u32::MAX);
        (at.line, at.end_line) = (number, number);
        (at.column, at.end_column) = (column.max(1), column.saturating_add(1));
    }
}

fn normalise(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains('\r') {
        text.replace("\r\n", "\n").replace('\r', "\n")
    } else {
        text.to_owned()
    }
}

fn empty(source: &Source) -> Diagnostic {
    Diagnostic::error("empty", format!("{} has no configuration in it", quoted(&source.name)))
        .help("a smallest one has a pool with endpoints, and a listener with `name`, `bind`, `protocol` and `pool`")
}

fn directory(
    shown: &Path,
    absolute: &Path,
    watched: &mut Vec<PathBuf>,
    files: &mut Vec<Source>,
    found: &mut Vec<Diagnostic>,
) {
    let entries = match std::fs::read_dir(absolute) {
        Ok(entries) => entries,
        Err(error) => {
            found.push(unreadable(shown, &why(&error)));
            return;
        }
    };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .filter(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|e| e == "yaml" || e == "yml")
        })
        .filter(|name| !name.to_string_lossy().starts_with('.'))
        .collect();
    names.sort();
    if names.len() > FILES_MAX {
        let message = format!(
            "directory {} has more than {FILES_MAX} files",
            quoted(&shown.display().to_string())
        );
        found.push(Diagnostic::error("too-large", message));
        return;
    }
    if names.is_empty() {
        let message = format!(
            "directory {} has no *.yaml file",
            quoted(&shown.display().to_string())
        );
        found.push(Diagnostic::error("no-config", message));
    }
    for name in names {
        watched.push(absolute.join(&name));
        let shown = match shown == Path::new(".") {
            true => PathBuf::from(&name),
            false => shown.join(&name),
        };
        files.extend(file(&shown, &absolute.join(&name), found));
    }
}

fn file(shown: &Path, absolute: &Path, found: &mut Vec<Diagnostic>) -> Option<Source> {
    let read = || -> Result<String, String> {
        let file = std::fs::File::open(absolute).map_err(|e| why(&e))?;
        let mut content = Vec::new();
        file.take(TEXT_MAX as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|e| why(&e))?;
        if content.len() > TEXT_MAX {
            return Err(format!("larger than {} MiB", TEXT_MAX >> 20));
        }
        String::from_utf8(content).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            format!("not UTF-8 text: byte {at} (counted from 0) is not a character")
        })
    };
    match read() {
        Ok(text) => Some(Source {
            name: shown.display().to_string(),
            dir: absolute.parent().unwrap_or(Path::new("/")).to_owned(),
            text: normalise(&text).into(),
        }),
        Err(reason) => {
            let problem = unreadable(shown, &reason);
            found.push(match shown == absolute || absolute.exists() {
                true => problem,
                false => {
                    let tried = clean(absolute);
                    problem.help(format!("it was looked for as {}", tried.display()))
                }
            });
            None
        }
    }
}

fn unreadable(path: &Path, reason: &str) -> Diagnostic {
    Diagnostic::error(
        "unreadable-file",
        format!(
            "cannot read {}: {reason}",
            quoted(&path.display().to_string())
        ),
    )
}

/// The sum of the files' trees.
#[derive(Default)]
struct Merged {
    entries: Vec<Entry>,
    /// Where each top-level key is in `entries`.
    places: HashMap<Arc<str>, usize>,
    /// The entries of the maps that are merged.
    index: HashMap<(usize, Arc<str>), Location>,
    /// A root that is no map, kept so that validation can say so.
    odd: Option<Node>,
}

impl Merged {
    fn add(&mut self, root: Node, found: &mut Vec<Diagnostic>) {
        let NodeValue::Map(entries) = root.value else {
            self.odd.get_or_insert(root);
            return;
        };
        for entry in entries {
            match self.places.get(&entry.key.text).copied() {
                None => {
                    let place = self.entries.len();
                    self.places.insert(entry.key.text.clone(), place);
                    self.remember(place, &entry);
                    self.entries.push(entry);
                }
                Some(place) => self.combine(place, entry, found),
            }
        }
    }

    fn combine(&mut self, place: usize, entry: Entry, found: &mut Vec<Diagnostic>) {
        let name = entry.key.text.clone();
        let path = ConfigPath::default().join(&name);
        let known_key = self.entries[place].key.clone();
        let known = Arc::make_mut(&mut self.entries[place].value);
        if entry.value.is_null() {
            return;
        }
        if known.is_null() {
            self.remember(place, &entry);
            self.entries[place] = entry;
            return;
        }
        match (&mut known.value, &entry.value.value) {
            (NodeValue::Map(known), NodeValue::Map(more)) if MERGED_MAPS.contains(&&*name) => {
                for item in more {
                    match self.index.get(&(place, item.key.text.clone())) {
                        Some(first) => clash(&path.join(&item.key.text), &item.key, *first, found),
                        None => {
                            self.index
                                .insert((place, item.key.text.clone()), item.key.at);
                            known.push(item.clone());
                        }
                    }
                }
            }
            (NodeValue::List(known), NodeValue::List(more)) if &*name == MERGED_LIST => {
                known.extend(more.iter().cloned());
            }
            _ => clash(&path, &entry.key, known_key.at, found),
        }
    }

    fn remember(&mut self, place: usize, entry: &Entry) {
        if MERGED_MAPS.contains(&&*entry.key.text) {
            let items = entry.value.map().unwrap_or_default();
            self.index.extend(
                items
                    .iter()
                    .map(|item| ((place, item.key.text.clone()), item.key.at)),
            );
        }
    }

    fn finish(self) -> Node {
        if let Some(odd) = self.odd {
            return odd;
        }
        let at = self
            .entries
            .first()
            .map(|entry| entry.key.at)
            .unwrap_or_default();
        Node {
            at,
            value: NodeValue::Map(self.entries),
        }
    }
}

fn clash(path: &ConfigPath, key: &Key, first: Location, found: &mut Vec<Diagnostic>) {
    if found.len() < DIAGNOSTICS_MAX {
        let message = format!("{} is defined in two files", quoted(&key.text));
        found.push(
            Diagnostic::error("duplicate-key", message)
                .at(path, key.at)
                .label(first, "first defined here"),
        );
    }
}
