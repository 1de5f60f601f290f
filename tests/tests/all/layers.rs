//! The rooms of the proxy depend on each other in one direction, and some things are known to one room alone.

use std::path::{Path, PathBuf};

/// Rooms by layer, lowest first; a room uses only rooms of lower layers (and itself). Layer 0's rooms are the ground
/// that may use each other: the shared nouns lie there.
const LAYERS: [&[&str]; 9] = [
    &["config", "telemetry", "io", "connection", "head", "error"],
    &["wasm", "discovery", "tls", "store", "builtin"],
    &["chain", "upstream"],
    &["generation"],
    &["protocol"],
    &["listen", "admin", "explain"],
    &["app"],
    &["cli"],
    &["main"],
];

/// Words that only the named room may have in its code.
const KNOWN_TO_ONE: [(&str, &str); 6] = [
    ("wasmtime", "wasm"),
    ("MultiplexedConnection", "store"),
    ("serde_yaml", "config"),
    ("saphyr_parser", "config"),
    ("ServerConfig::builder", "tls"),
    ("ClientConfig::builder", "tls"),
];

#[test]
fn a_room_uses_only_rooms_below_it() {
    let mut broken = Vec::new();
    for (file, room, code) in sources() {
        // The crate's front door lists every room, and the binary calls the top one by the crate's name.
        if room == "lib" {
            continue;
        }
        let Some(layer) = layer_of(&room) else {
            broken.push(format!("{}: `{room}` has no layer", file.display()));
            continue;
        };
        for (line, used) in uses(&code) {
            match layer_of(&used) {
                _ if used == room => {}
                Some(other) if other < layer => {}
                Some(0) if layer == 0 => {}
                Some(other) => broken.push(format!(
                    "{}:{line}: `{room}` (layer {layer}) uses `{used}` (layer {other})",
                    file.display()
                )),
                // A macro or item at the crate's root.
                None => {}
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn some_things_are_known_to_one_room_alone() {
    let mut broken = Vec::new();
    for (file, room, code) in sources() {
        for (word, owner) in KNOWN_TO_ONE {
            if room == owner {
                continue;
            }
            for (line, _) in code
                .lines()
                .enumerate()
                .filter(|(_, text)| has_word(text, word))
            {
                let line = line + 1;
                broken.push(format!(
                    "{}:{line}: only `{owner}` may name {word}",
                    file.display()
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The tables for readers say what is held here.
#[test]
fn the_documents_have_the_same_layers() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("a document");
    for (path, prefix) in [("proxy/src/lib.rs", "//! | "), ("ARCHITECTURE.md", "| ")] {
        let text = read(path);
        let mut said: Vec<Vec<String>> = vec![Vec::new(); LAYERS.len()];
        for line in text.lines().filter_map(|line| line.strip_prefix(prefix)) {
            let mut columns = line.split(" | ");
            let layer = columns.next().and_then(|n| n.parse::<usize>().ok());
            let (Some(layer), Some(rooms)) = (layer, columns.next()) else {
                continue;
            };
            let names = rooms.split('`').skip(1).step_by(2).map(str::to_owned);
            said[layer].extend(names);
        }
        for (layer, rooms) in LAYERS
            .iter()
            .enumerate()
            .filter(|(_, rooms)| **rooms != ["main"])
        {
            let mut said = said[layer].clone();
            said.sort();
            let mut rooms = rooms.to_vec();
            rooms.sort();
            assert_eq!(said, rooms, "layer {layer} in {path}");
        }
    }
}

/// What listeners speak is a matter of one folder each.
#[test]
fn protocols_never_meet() {
    let folder = root().join("proxy/src/protocol");
    let entries = std::fs::read_dir(&folder).expect("the protocols");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let members: Vec<String> = paths
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    assert!(
        members.len() > 1,
        "the protocols are not where this test looks"
    );
    for (file, _, code) in sources() {
        let Ok(inside) = file.strip_prefix(&folder) else {
            continue;
        };
        if inside.iter().count() == 1 {
            continue;
        }
        let own = inside.iter().next().expect("a name").to_string_lossy();
        for other in members.iter().filter(|other| **other != own) {
            let met = code.contains(&format!("protocol::{other}::"));
            assert!(!met, "{}: uses {other}", file.display());
        }
    }
}

#[test]
fn the_proxy_and_the_sdk_never_meet() {
    let manifest = |path: &str| {
        let path = root().join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    };
    let depends = |text: &str, on: &str| {
        text.lines().any(|line| {
            let key = line.split(['.', '=', ' ']).next().unwrap_or_default();
            key == on
        })
    };
    let proxy = manifest("proxy/Cargo.toml");
    for sdk in ["sluicegate-sdk", "sluicegate-sdk-macros"] {
        assert!(!depends(&proxy, sdk), "proxy depends on {sdk}");
    }
    for path in ["sdk/Cargo.toml", "sdk/macros/Cargo.toml"] {
        assert!(
            !depends(&manifest(path), "sluicegate"),
            "{path} depends on the proxy"
        );
    }
    for filter in std::fs::read_dir(root().join("filters")).expect("filters") {
        let path = filter.expect("an entry").path().join("Cargo.toml");
        if let Ok(text) = std::fs::read_to_string(&path) {
            assert!(
                !depends(&text, "sluicegate"),
                "{} depends on the proxy",
                path.display()
            );
        }
    }
}

#[test]
fn the_reader_of_uses_sees_what_rust_sees() {
    let check = |code: &str, expected: &[&str]| {
        let found: Vec<String> = uses(&code_without_comments(code))
            .into_iter()
            .map(|(_, room)| room)
            .collect();
        assert_eq!(found, expected, "{code}");
    };
    check("use crate::wasm::Host;", &["wasm"]);
    check(
        "let x = crate::http::serve(crate::io::Copy);",
        &["http", "io"],
    );
    check(
        "use crate::{app, config::{Config, Pool}, tls as t};",
        &["app", "config", "tls"],
    );
    check(
        "use crate::{\n    chain::Chain,\n    error,\n};",
        &["chain", "error"],
    );
    check(
        "// crate::app\n/* crate::app */ let s = 1; // crate::app",
        &[],
    );
    check("pub(in crate::config) fn f() {}", &["config"]);
    check("mycrate::app::run()", &[]);
    check("let url = \"http://x\"; crate::app::f();", &["app"]);
}

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// Every source file of the proxy, with its room and its code without comments and unit tests: a test may reach up.
fn sources() -> Vec<(PathBuf, String, String)> {
    let src = root().join("proxy/src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a source folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(&src).expect("inside");
                let room = inside.iter().next().expect("a name").to_string_lossy();
                let room = room.trim_end_matches(".rs").to_owned();
                let text = std::fs::read_to_string(&path).expect("a source file");
                let code = code_without_comments(&text);
                let end = code.find("#[cfg(test)]\nmod tests {");
                found.push((path, room, code[..end.unwrap_or(code.len())].to_owned()));
            }
        }
    }
    assert!(
        found.len() > 10,
        "the sources are not where this test looks"
    );
    found
}

pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").to_owned()
}

/// The rooms that `code` reaches by `crate::…` or `sluicegate::…`, with their line numbers from 1.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code
        .match_indices("crate::")
        .chain(code.match_indices("sluicegate::"))
    {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at..];
        let rest = &rest[rest.find("::").map_or(0, |i| i + 2)..];
        match rest.strip_prefix('{') {
            None => found.push((line, word(rest))),
            Some(list) => found.extend(list_heads(list).into_iter().map(|name| (line, name))),
        }
    }
    found.sort();
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// The first name of each member of a `{…}` list whose brace was just opened.
fn list_heads(list: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(word(list[start..i].trim_start()));
                start = i + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|&c| c.is_alphanumeric() || c == '_')
        .collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        !text[..at].ends_with(inside) && !text[at + word.len()..].starts_with(inside)
    })
}

/// `text` with comments and the inside of string literals blanked, lines kept.
pub fn code_without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |i| i + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |i| i + 2)
        } else if c == '"' {
            string_len(rest)
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.extend(rest[..len].chars().filter(|&c| c == '\n'));
        out.push(' ');
        rest = &rest[len..];
    }
    out
}

/// The length of the string literal `text` begins with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}
