//! `${NAME}` and `${file:PATH}` in scalar values, after parsing, so that no value can change the structure.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, quoted};
use super::model::ConfigPath;
use super::node::{Key, Location, Node, NodeValue, Scalar};
use super::paths::clean;
use crate::error::why;

/// Bytes of a file named by `${file:…}`.
const SECRET_MAX: usize = 64 << 10;
/// Bytes between the braces; what is longer is text. Keeps the search for one linear.
const REFERENCE_MAX: usize = 4 << 10;
/// Bytes all interpolated values together may have.
const INTERPOLATED_MAX: usize = 16 << 20;

/// Replaces what is to be replaced in one file's tree.
pub(super) struct Interpolation<'a> {
    pub vars: &'a dyn Fn(&str) -> Option<String>,
    /// What relative paths are relative to.
    pub dir: &'a Path,
    pub found: &'a mut Vec<Diagnostic>,
    /// Files that were read, so that a watcher knows them.
    pub files: &'a mut Vec<PathBuf>,
    read: HashMap<PathBuf, Result<String, String>>,
    bytes: usize,
}

impl<'a> Interpolation<'a> {
    pub fn new(
        vars: &'a dyn Fn(&str) -> Option<String>,
        dir: &'a Path,
        found: &'a mut Vec<Diagnostic>,
        files: &'a mut Vec<PathBuf>,
    ) -> Self {
        Interpolation {
            vars,
            dir,
            found,
            files,
            read: HashMap::new(),
            bytes: 0,
        }
    }

    pub fn apply(&mut self, root: &mut Node) {
        self.node(root, None, &ConfigPath::default());
    }

    fn node(&mut self, node: &mut Node, key: Option<&Key>, path: &ConfigPath) {
        let at = node.focus(key);
        match &mut node.value {
            NodeValue::Scalar(scalar) => self.scalar(scalar, path, at),
            NodeValue::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    if mentions(item) {
                        self.node(Arc::make_mut(item), None, &path.join(i));
                    }
                }
            }
            NodeValue::Map(entries) => {
                for entry in entries {
                    if mentions(&entry.value) {
                        let path = path.join(&entry.key.text);
                        self.node(Arc::make_mut(&mut entry.value), Some(&entry.key), &path);
                    }
                }
            }
        }
    }

    fn scalar(&mut self, scalar: &mut Scalar, path: &ConfigPath, at: Location) {
        if !scalar.text.contains("${") {
            return;
        }
        let text = std::mem::take(&mut scalar.text);
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        let mut secret = false;
        // Where the next closing brace is, counted from the end of the text; looked for once, not once a reference.
        let mut brace = usize::MAX;
        while let Some(i) = rest.find("${") {
            let (before, after) = (&rest[..i], &rest[i + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = after;
                continue;
            }
            out.push_str(before);
            if brace > after.len() {
                brace = after.find('}').map_or(0, |at| after.len() - at);
            }
            let end = after.len() - brace;
            if brace == 0 || end > REFERENCE_MAX {
                out.push_str("${");
                rest = after;
                continue;
            }
            let body = &after[..end];
            match self.value(body) {
                Reference::Foreign => {
                    out.push_str("${");
                    rest = after;
                    continue;
                }
                Reference::Value(value) => out.push_str(&value),
                Reference::Secret(value) => {
                    secret = true;
                    out.push_str(&value);
                }
                Reference::Wrong(diagnostic) => self.report(diagnostic.at(path, at)),
            }
            if out.len().saturating_add(self.bytes) > INTERPOLATED_MAX {
                let message = format!("interpolated values exceed {} MiB", INTERPOLATED_MAX >> 20);
                self.report(Diagnostic::error("too-large", message).at(path, at));
                return;
            }
            rest = &after[end + 1..];
        }
        out.push_str(rest);
        self.bytes = self.bytes.saturating_add(out.len());
        scalar.text = out;
        scalar.secret |= secret;
    }

    fn value(&mut self, body: &str) -> Reference {
        if let Some(file) = body.strip_prefix("file:") {
            let path = clean(&self.dir.join(file));
            if !self.read.contains_key(&path) {
                self.files.push(path.clone());
                self.read.insert(path.clone(), secret(&path));
            }
            return match &self.read[&path] {
                Ok(text) => Reference::Secret(text.clone()),
                Err(why) => {
                    let message = format!(
                        "cannot read {}, which is to stand here: {why}",
                        quoted(&path.display().to_string())
                    );
                    Reference::Wrong(Diagnostic::error("unreadable-file", message))
                }
            };
        }
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        if !is_variable(name) {
            return Reference::Foreign;
        }
        match ((self.vars)(name), default) {
            (Some(value), None) => Reference::Value(value),
            (Some(value), Some(_)) if !value.is_empty() => Reference::Value(value),
            (_, Some(default)) => Reference::Value(default.to_owned()),
            (None, None) => Reference::Wrong(
                Diagnostic::error("unset-variable", format!("environment variable {name} is not set"))
                    .help(format!("set it, give a default with `${{{name}:-…}}`, or write `$${{{name}}}` for the text itself")),
            ),
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < DIAGNOSTICS_MAX {
            self.found.push(diagnostic);
        }
    }
}

enum Reference {
    /// Not ours: filters have placeholders of the same look.
    Foreign,
    Value(String),
    Secret(String),
    Wrong(Diagnostic),
}

/// Whether the scalars below mention a `${`: what does not is left shared.
fn mentions(node: &Node) -> bool {
    match &node.value {
        NodeValue::Scalar(scalar) => scalar.text.contains("${"),
        // Looking further would visit the inner values once a level; the level's own visit is enough.
        NodeValue::List(items) => !items.is_empty(),
        NodeValue::Map(entries) => !entries.is_empty(),
    }
}

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_uppercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// The content without its trailing line break. Only regular files: a pipe could keep the loader waiting.
fn secret(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|e| why(&e))?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    let file = std::fs::File::open(path).map_err(|e| why(&e))?;
    let mut content = Vec::new();
    file.take(SECRET_MAX as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|e| why(&e))?;
    if content.len() > SECRET_MAX {
        return Err(format!("larger than {} KiB", SECRET_MAX >> 10));
    }
    let mut text = String::from_utf8(content).map_err(|_| "not UTF-8 text".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let vars = |name: &str| match name {
            "PORT" => Some("80".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let (mut found, mut files) = (Vec::new(), Vec::new());
        let mut node = Node {
            at: Location::default(),
            value: NodeValue::Scalar(Scalar {
                text: text.into(),
                plain: true,
                secret: false,
            }),
        };
        Interpolation::new(&vars, Path::new("/"), &mut found, &mut files).apply(&mut node);
        let NodeValue::Scalar(scalar) = node.value else {
            unreachable!()
        };
        match expected {
            Ok(expected) => assert_eq!((scalar.text.as_str(), found), (expected, vec![]), "{text}"),
            Err(code) => assert_eq!(
                found.iter().map(|d| d.code).collect::<Vec<_>>(),
                [code],
                "{text}"
            ),
        }
    }

    #[test]
    fn references() {
        check("a:${PORT}/b", Ok("a:80/b"));
        check("${PORT}${PORT}", Ok("8080"));
        check("${NONE:-x y}", Ok("x y"));
        check("${EMPTY:-x}", Ok("x"));
        check("[${EMPTY}]", Ok("[]"));
        check("${client.address}", Ok("${client.address}"));
        check("${client.${PORT}}", Ok("${client.80}"));
        check("$${PORT}", Ok("${PORT}"));
        check("$$${PORT}", Ok("$${PORT}"));
        check("${PORT", Ok("${PORT"));
        check("$PORT ${}", Ok("$PORT ${}"));
        check("${NONE}", Err("unset-variable"));
        check("${file:/nonexistent/secret}", Err("unreadable-file"));
        check("${file:/tmp}", Err("unreadable-file"));
    }
}
