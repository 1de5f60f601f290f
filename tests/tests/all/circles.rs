//! No files of the proxy form a circle: each can be read with those it uses, and without those that use it.
//!
//! A file uses what it names in `use` and in paths; what a module re-exports is charged to the file that has it. A module
//! may re-export its parts, and declares them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::layers::{code_without_comments, root};

type Names = Vec<String>;

#[test]
fn no_files_form_a_circle() {
    let circles = circles(&Modules::read(&root().join("proxy/src")).edges());
    let listed: Vec<String> = circles.iter().map(|names| names.join(" → ")).collect();
    assert!(listed.is_empty(), "{}", listed.join("\n"));
}

#[test]
fn a_circle_is_seen() {
    let modules = Modules::of(&[
        ("a", "use crate::b::c::{self, Thing};"),
        ("b", "mod c; pub use c::Thing; fn f() { c::g() }"),
        ("b::c", "fn g() { super::super::d::h(); }"),
        ("d", "use crate::b::Thing; use crate::e::E;"),
        (
            "e",
            "// crate::d\nlet s = \"crate::d\"; pub(in crate::a) fn x() {}",
        ),
    ]);
    let edges = modules.edges();
    assert_eq!(Vec::from_iter(&edges["a"]), ["b::c"]);
    assert_eq!(Vec::from_iter(&edges["d"]), ["b::c", "e"]);
    assert!(edges["e"].is_empty());
    assert_eq!(circles(&edges), [["b::c", "d"]]);
}

/// The code of each module, by its path in the crate.
struct Modules {
    code: BTreeMap<String, String>,
    /// What a module re-exports, by its name there.
    exports: BTreeMap<String, BTreeMap<String, Names>>,
}

impl Modules {
    fn read(src: &Path) -> Self {
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        let mut folders = vec![src.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a source folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let inside = path.strip_prefix(src).expect("inside").with_extension("");
                    let parts: Vec<_> = inside.iter().map(|p| p.to_string_lossy()).collect();
                    let name = parts.join("::");
                    files.push((name.trim_end_matches("::mod").to_owned(), path));
                }
            }
        }
        assert!(
            files.len() > 100,
            "the sources are not where this test looks"
        );
        let texts: Vec<(String, String)> = files
            .into_iter()
            .map(|(name, path)| (name, std::fs::read_to_string(path).expect("a source file")))
            .collect();
        let borrowed: Vec<_> = texts.iter().map(|(n, t)| (&**n, &**t)).collect();
        Self::of(&borrowed)
    }

    fn of(texts: &[(&str, &str)]) -> Self {
        let code = texts.iter().map(|(name, text)| {
            let code = code_without_comments(text);
            // A unit test may reach anywhere.
            let end = code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len());
            (name.to_string(), code[..end].to_owned())
        });
        let mut modules = Self {
            code: code.collect(),
            exports: BTreeMap::new(),
        };
        for (name, code) in &modules.code {
            let mut exports = BTreeMap::new();
            for (is_public, tree) in imports(code) {
                for path in tree.iter().filter(|_| is_public) {
                    if let (Some(full), Some(last)) = (modules.absolute(path, name), path.last()) {
                        exports.insert(last.clone(), full);
                    }
                }
            }
            modules.exports.insert(name.clone(), exports);
        }
        modules
    }

    /// Whom each module uses.
    fn edges(&self) -> BTreeMap<String, BTreeSet<String>> {
        let used = |name: &String, code: &String| {
            let imported = imports(code)
                .into_iter()
                .filter(|(is_public, _)| !is_public);
            let mut paths: Vec<Names> = imported.flat_map(|(_, tree)| tree).collect();
            paths.extend(inline_paths(code));
            let owners = paths
                .iter()
                .filter_map(|path| self.owner(&self.absolute(path, name)?, 0));
            owners.filter(|owner| owner != name).collect()
        };
        let all = self.code.iter();
        all.map(|(name, code)| (name.clone(), used(name, code)))
            .collect()
    }

    /// The path from the crate's root; none for what is of another crate.
    fn absolute(&self, path: &[String], module: &str) -> Option<Names> {
        let here: Names = match module {
            "lib" | "main" => Vec::new(),
            _ => module.split("::").map(str::to_owned).collect(),
        };
        match path.first()?.as_str() {
            "crate" | "sluicegate" => Some(path[1..].to_vec()),
            "self" => Some([&here[..], &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let above = here.get(..here.len().checked_sub(ups)?)?;
                Some([above, &path[ups..]].concat())
            }
            part => {
                let child = [&here[..], &[part.to_owned()]].concat().join("::");
                let is_child = self.code.contains_key(&child);
                is_child.then(|| [&here[..], path].concat())
            }
        }
    }

    /// The module that has what `path` names.
    fn owner(&self, path: &[String], depth: usize) -> Option<String> {
        (1..=path.len()).rev().find_map(|n| {
            let name = path[..n].join("::");
            let exports = self.exports.get(&name)?;
            match path.get(n).and_then(|item| exports.get(item)) {
                Some(target) if depth < 8 && target[..] != path[..=n] => {
                    self.owner(&[target, &path[n + 1..]].concat(), depth + 1)
                }
                _ => Some(name),
            }
        })
    }
}

/// Every `use`, with whether it is public, and the paths it names.
fn imports(code: &str) -> Vec<(bool, Vec<Names>)> {
    let starts = code.match_indices("use ").filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || c == ';' || c == '}')
    });
    let statement = |(at, _): (usize, &str)| {
        let tree = code[at + 4..].split(';').next().unwrap_or_default();
        let mut found = Vec::new();
        flatten(&[], tree, &mut found);
        let before = code[..at].trim_end();
        let is_public = before.ends_with("pub") || {
            let open = before.rfind("pub(").unwrap_or(0);
            before.ends_with(')') && !before[open..].contains(['{', ';', '\n'])
        };
        (is_public, found)
    };
    starts.map(statement).collect()
}

/// The paths of a tree such as `a::{b, c::{self, d}}`.
fn flatten(prefix: &[String], tree: &str, found: &mut Vec<Names>) {
    for part in split_outside(tree) {
        let (head, inner) = match part.split_once('{') {
            Some((head, rest)) => (head, rest.rsplit_once('}').map(|(inner, _)| inner)),
            None => (part.split(" as ").next().unwrap_or_default(), None),
        };
        let names = head.split("::").map(str::trim);
        let names: Names = names.filter(|n| !n.is_empty()).map(str::to_owned).collect();
        let mut path = [prefix, &names].concat();
        match inner {
            Some(inner) => flatten(&path, inner, found),
            None => {
                if !prefix.is_empty() && path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                if !path.is_empty() {
                    found.push(path);
                }
            }
        }
    }
}

/// The parts of a list between commas that lie in no braces.
fn split_outside(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts
}

/// Paths of at least two parts outside of `use` and of visibilities.
fn inline_paths(code: &str) -> Vec<Names> {
    let (mut found, mut word, mut path) = (Vec::new(), String::new(), Names::new());
    let mut statements = code;
    let mut plain = String::with_capacity(code.len());
    // What imports and visibilities say is not looked at.
    while let Some(at) = statements
        .find("use ")
        .into_iter()
        .chain(statements.find("pub("))
        .min()
    {
        let is_word = statements[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        plain.push_str(&statements[..at]);
        let end = match (is_word, statements[at..].starts_with("use ")) {
            (true, _) => 3,
            (false, true) => statements[at..].find(';').unwrap_or(3),
            (false, false) => statements[at..].find(')').unwrap_or(3),
        };
        statements = &statements[at + end..];
    }
    plain.push_str(statements);
    let mut chars = plain.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        let joins = c == ':' && chars.peek() == Some(&':') && !word.is_empty();
        if !word.is_empty() {
            path.push(std::mem::take(&mut word));
        }
        if joins {
            chars.next();
        } else if !path.is_empty() {
            let whole = std::mem::take(&mut path);
            if whole.len() > 1 {
                found.push(whole);
            }
        }
    }
    found
}

/// Groups of modules of which each leads to every other (Tarjan's algorithm).
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    #[derive(Default)]
    struct Walk<'a> {
        number: BTreeMap<&'a str, (usize, usize)>,
        stack: Vec<&'a str>,
        found: Vec<Vec<String>>,
    }
    fn visit<'a>(
        node: &'a str,
        edges: &'a BTreeMap<String, BTreeSet<String>>,
        walk: &mut Walk<'a>,
    ) -> usize {
        let index = walk.number.len();
        walk.number.insert(node, (index, index));
        walk.stack.push(node);
        let mut low = index;
        for next in edges.get(node).into_iter().flatten() {
            match walk.number.get(&**next) {
                None => low = low.min(visit(next, edges, walk)),
                Some((other, _)) if walk.stack.contains(&&**next) => low = low.min(*other),
                Some(_) => {}
            }
        }
        if low == index {
            let at = walk.stack.iter().position(|n| *n == node).unwrap_or(0);
            let mut group: Vec<String> = walk.stack.drain(at..).map(str::to_owned).collect();
            group.sort();
            if group.len() > 1 {
                walk.found.push(group);
            }
        }
        low
    }
    let mut walk = Walk::default();
    for node in edges.keys() {
        if !walk.number.contains_key(&**node) {
            visit(node, edges, &mut walk);
        }
    }
    walk.found
}
