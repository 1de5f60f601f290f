//! Holds a tree against a JSON Schema and says where and how it differs, in the words of the person who wrote it.
//!
//! Serves the configuration's own schema and the schemas that modules carry for their settings. The latter are
//! foreign: keywords that are not known here are passed over, references may run in circles, and the work is bounded;
//! what stays unsaid is said by the filter's `configure`.

mod habits;
mod phrase;

use serde_json::Value as Json;

use super::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, closest, quoted, ticked};
use super::model::ConfigPath;
use super::node::{Entry, Key, Kind, Node, NodeValue};
use super::pem::is_private;
use phrase::{Kinds, found, kinds};

pub(super) use phrase::describe;

/// Schema nodes looked at in one validation. A file at its size limit needs less, unless alternatives multiply.
const STEPS_MAX: u32 = 4_000_000;
/// References and combinators inside each other, for schemas that run in circles.
const DEPTH_MAX: u32 = 512;

/// What an empty value (`key:`) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// As if the key were not there, so that a block whose lines are all commented out is no mistake.
    Absent,
    /// A value of its own.
    Values,
}

/// Everything in which `node`, found at `path` under `key`, differs from `schema`.
pub fn validate(
    schema: &Json,
    node: &Node,
    key: Option<&Key>,
    path: &ConfigPath,
    nulls: Nulls,
) -> Vec<Diagnostic> {
    let mut walk = Walk {
        root: schema,
        nulls,
        steps: 0,
        path: path.clone(),
        found: Vec::new(),
    };
    walk.value(schema, node, key, 0);
    walk.found
}

/// The schema takes a map, and no null.
pub fn wants_map(schema: &Json) -> bool {
    let kinds = kinds(schema);
    kinds.contains(Kind::Map) && !kinds.contains(Kind::Null)
}

struct Walk<'a> {
    root: &'a Json,
    nulls: Nulls,
    steps: u32,
    path: ConfigPath,
    found: Vec<Diagnostic>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, schema: &'a Json, node: &Node, key: Option<&Key>, depth: u32) {
        self.steps += 1;
        if self.steps > STEPS_MAX || depth > DEPTH_MAX || self.found.len() >= DIAGNOSTICS_MAX {
            return;
        }
        let Some(keywords) = schema.as_object() else {
            if schema == &Json::Bool(false) {
                self.report("not-allowed", "nothing may stand here".into(), node, key);
            }
            return;
        };
        if let Some(target) = self.target(schema) {
            self.value(target, node, key, depth + 1);
        }
        if keywords.contains_key("type") && !kinds(schema).contains(node.kind()) {
            self.wrong_type(&describe(self.root, schema), node, key);
            return;
        }
        if keywords.contains_key("const") || keywords.contains_key("enum") {
            self.literal(schema, node, key);
        }
        for word in ["oneOf", "anyOf"] {
            if let Some(branches) = keywords.get(word).and_then(Json::as_array) {
                self.alternatives(schema, branches, node, key, depth + 1);
            }
        }
        if let Some(parts) = keywords.get("allOf").and_then(Json::as_array) {
            for part in parts {
                self.value(part, node, key, depth + 1);
            }
        }
        match &node.value {
            NodeValue::Map(entries) => self.map(schema, entries, node, key, depth),
            NodeValue::List(items) => {
                self.bounds(
                    schema,
                    "minItems",
                    "maxItems",
                    items.len() as f64,
                    "entries",
                    node,
                    key,
                );
                if let Some(each) = keywords.get("items") {
                    for (i, item) in items.iter().enumerate() {
                        self.below(i, |walk| walk.value(each, item, None, depth + 1));
                    }
                }
            }
            NodeValue::Scalar(scalar) => match scalar.resolve() {
                Json::String(text) => {
                    let chars = text.chars().count() as f64;
                    self.bounds(
                        schema,
                        "minLength",
                        "maxLength",
                        chars,
                        "characters",
                        node,
                        key,
                    );
                }
                Json::Number(number) => {
                    let number = number.as_f64().unwrap_or(f64::NAN);
                    self.bounds(schema, "minimum", "maximum", number, "", node, key);
                }
                _ => {}
            },
        }
    }

    fn map(
        &mut self,
        schema: &'a Json,
        entries: &[Entry],
        node: &Node,
        key: Option<&Key>,
        depth: u32,
    ) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let extra = schema.get("additionalProperties");
        let patterns = schema.get("patternProperties").is_some();
        let count = entries.len() as f64;
        self.bounds(
            schema,
            "minProperties",
            "maxProperties",
            count,
            "entries",
            node,
            key,
        );
        for entry in entries {
            if self.nulls == Nulls::Absent
                && entry.value.is_null()
                && extra.is_none_or(Json::is_boolean)
            {
                // Its name must be right all the same.
                let known = properties.is_none_or(|p| p.contains_key(&*entry.key.text));
                if known || extra != Some(&Json::Bool(false)) {
                    continue;
                }
            }
            let value = match (properties.and_then(|p| p.get(&*entry.key.text)), extra) {
                (Some(property), _) => property,
                (None, Some(Json::Bool(false))) if !patterns => {
                    let known = properties
                        .into_iter()
                        .flat_map(|p| p.keys().map(String::as_str));
                    self.unknown(entry, known.collect());
                    continue;
                }
                (None, Some(extra)) if extra.is_object() => extra,
                _ => continue,
            };
            self.below(&entry.key.text, |walk| {
                walk.value(value, &entry.value, Some(&entry.key), depth + 1)
            });
        }
        for name in schema
            .get("required")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
        {
            let there = entries.iter().find(|entry| &*entry.key.text == name);
            if there.is_none_or(|entry| self.nulls == Nulls::Absent && entry.value.is_null()) {
                let message = format!("{} lacks the required key `{name}`", self.name());
                let key = there.map(|entry| &entry.key).or(key);
                let at = node.focus(key);
                let path = self.path.join(name);
                self.found
                    .push(Diagnostic::error("missing-key", message).at(&path, at));
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, known: Vec<&str>) {
        let message = format!("unknown key {} in {}", ticked(&entry.key.text), self.name());
        let path = self.path.join(&entry.key.text);
        let near = closest(&entry.key.text, known.iter().copied());
        let help = match (habits::key(&self.path, &entry.key.text), near) {
            (Some(habit), _) => habit.to_owned(),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) if known.is_empty() => "no keys are known here".to_owned(),
            (None, None) => {
                let known: Vec<String> = known.iter().map(|key| ticked(key)).collect();
                format!("known keys are {}", known.join(", "))
            }
        };
        self.found.push(
            Diagnostic::error("unknown-key", message)
                .at(&path, entry.key.at)
                .help(help),
        );
    }

    /// One of several schemas is to fit. What is reported is what keeps the likeliest one from fitting.
    fn alternatives(
        &mut self,
        whole: &'a Json,
        branches: &'a [Json],
        node: &Node,
        key: Option<&Key>,
        depth: u32,
    ) {
        let kind = node.kind();
        let fitting: Vec<&Json> = branches
            .iter()
            .filter(|b| self.kinds(b, 0).contains(kind))
            .collect();
        if fitting.is_empty() {
            self.wrong_type(&describe(self.root, whole), node, key);
            return;
        }
        if fitting.iter().all(|branch| self.literals(branch).is_some()) {
            let matches = |branch: &&Json| {
                self.literals(branch)
                    .is_some_and(|l| l.contains(&&node_json(node)))
            };
            if !fitting.iter().any(matches) {
                self.bad_value(whole, node, key);
            }
            return;
        }
        if let [only] = fitting[..] {
            self.value(only, node, key, depth);
            return;
        }
        if let Some(entries) = node.map()
            && self.unknown_everywhere(&fitting, entries)
        {
            return;
        }
        let before = std::mem::take(&mut self.found);
        let mut best: Option<Vec<Diagnostic>> = None;
        for branch in fitting {
            self.value(branch, node, key, depth);
            let found = std::mem::take(&mut self.found);
            if best
                .as_ref()
                .is_none_or(|best| weight(&found) < weight(best))
            {
                best = Some(found);
            }
            if best.as_ref().is_some_and(Vec::is_empty) {
                break;
            }
        }
        self.found = before;
        self.found.extend(best.unwrap_or_default());
    }

    /// Reports the keys that no alternative knows; better said once against all than against one.
    fn unknown_everywhere(&mut self, branches: &[&'a Json], entries: &[Entry]) -> bool {
        let mut known = Vec::new();
        for branch in branches {
            let branch = self.resolved(branch);
            let Some(properties) = branch.get("properties").and_then(Json::as_object) else {
                return false;
            };
            if branch.get("additionalProperties") != Some(&Json::Bool(false)) {
                return false;
            }
            known.extend(properties.keys().map(String::as_str));
        }
        known.sort_unstable();
        known.dedup();
        let mut any = false;
        for entry in entries
            .iter()
            .filter(|entry| !known.contains(&&*entry.key.text))
        {
            self.unknown(entry, known.clone());
            any = true;
        }
        any
    }

    fn literal(&mut self, schema: &'a Json, node: &Node, key: Option<&Key>) {
        let value = node_json(node);
        let fits = match (
            schema.get("const"),
            schema.get("enum").and_then(Json::as_array),
        ) {
            (Some(only), _) => *only == value,
            (None, Some(values)) => values.contains(&value),
            (None, None) => true,
        };
        if !fits {
            self.bad_value(schema, node, key);
        }
    }

    fn bad_value(&mut self, schema: &'a Json, node: &Node, key: Option<&Key>) {
        let expected = describe(self.root, schema);
        let message = format!("{} is {expected}, not {}", self.name(), found(node));
        let mut diagnostic =
            Diagnostic::error("bad-value", message).at(&self.path, node.focus(key));
        let mut words = Vec::new();
        self.words(schema, 0, &mut words);
        if let NodeValue::Scalar(scalar) = &node.value {
            if let Some(habit) = habits::value(&self.path, &scalar.text) {
                diagnostic = diagnostic.help(habit);
            } else if let Some(near) = closest(&scalar.text, words) {
                diagnostic = diagnostic.help(format!("did you mean {}?", quoted(near)));
            }
        }
        self.found.push(diagnostic);
    }

    fn wrong_type(&mut self, expected: &str, node: &Node, key: Option<&Key>) {
        let message = format!("{} is {expected}, not {}", self.name(), found(node));
        let mut diagnostic =
            Diagnostic::error("wrong-type", message).at(&self.path, node.focus(key));
        if let NodeValue::Scalar(scalar) = &node.value
            && !scalar.text.is_empty()
            && !scalar.secret
            && !is_private(&scalar.text)
        {
            let text = &scalar.text;
            let help = if self.path.0.ends_with("/bind") && node.kind() == Kind::Integer {
                Some(format!(
                    "write \":{text}\" for all addresses of this machine, or one of them with it: \"192.0.2.1:{text}\""
                ))
            } else if expected.contains("a string") {
                Some(format!("quote it to make it a string: {}", quoted(text)))
            } else if expected.contains("a list") && node.kind() == Kind::String {
                Some(format!("a list of one is {}", ticked(&format!("[{text}]"))))
            } else if expected.contains("a duration") && node.kind() == Kind::Integer {
                Some(format!(
                    "write the unit: `{text}s` for seconds, `{text}ms` for milliseconds"
                ))
            } else {
                None
            };
            diagnostic.help = help;
        }
        self.found.push(diagnostic);
    }

    #[expect(clippy::too_many_arguments)]
    fn bounds(
        &mut self,
        schema: &Json,
        least: &str,
        most: &str,
        actual: f64,
        unit: &str,
        node: &Node,
        key: Option<&Key>,
    ) {
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let say = |name: String, how: &str, limit: f64| match unit {
            "" => format!("{name} is {how} {limit}, not {actual}"),
            "entries" if actual == 0.0 && limit == 1.0 => {
                format!("{name} is empty, but needs at least one entry")
            }
            unit => format!("{name} has {actual} {unit}, but needs {how} {limit}"),
        };
        if let Some(least) = bound(least).filter(|least| actual < *least) {
            self.report(
                "out-of-range",
                say(self.name(), "at least", least),
                node,
                key,
            );
        }
        if let Some(most) = bound(most).filter(|most| actual > *most) {
            self.report("out-of-range", say(self.name(), "at most", most), node, key);
        }
    }

    fn report(&mut self, code: &'static str, message: String, node: &Node, key: Option<&Key>) {
        self.found
            .push(Diagnostic::error(code, message).at(&self.path, node.focus(key)));
    }

    fn below(&mut self, token: impl std::fmt::Display, step: impl FnOnce(&mut Self)) {
        let length = self.path.0.len();
        self.path = self.path.join(token);
        step(self);
        self.path.0.truncate(length);
    }

    /// What the current value is called in messages: its key, or its place in a list.
    fn name(&self) -> String {
        let mut tokens = self.path.0.rsplit('/');
        match tokens.next() {
            None | Some("") => "the configuration".to_owned(),
            Some(index) if index.bytes().all(|b| b.is_ascii_digit()) => {
                format!(
                    "an entry of `{}`",
                    unescape(tokens.next().unwrap_or_default())
                )
            }
            Some(name) => format!("`{}`", unescape(name)),
        }
    }

    fn target(&self, schema: &'a Json) -> Option<&'a Json> {
        self.root
            .pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
    }

    fn resolved(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        for _ in 0..16 {
            match self.target(schema) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    /// The kinds a schema can accept, looking through references and alternatives.
    fn kinds(&self, schema: &'a Json, depth: u32) -> Kinds {
        let schema = self.resolved(schema);
        if depth > 16 || schema.get("type").is_some() {
            return kinds(schema);
        }
        if let Some(only) = schema.get("const") {
            return Kinds::of(std::slice::from_ref(only));
        }
        if let Some(values) = schema.get("enum").and_then(Json::as_array) {
            return Kinds::of(values);
        }
        for word in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(word).and_then(Json::as_array) {
                return branches
                    .iter()
                    .fold(Kinds(0), |all, b| Kinds(all.0 | self.kinds(b, depth + 1).0));
            }
        }
        Kinds::ANY
    }

    /// The words among the values that a schema takes, for suggestions.
    fn words(&self, schema: &'a Json, depth: u32, words: &mut Vec<&'a str>) {
        let schema = self.resolved(schema);
        if depth > 8 || words.len() > 64 {
            return;
        }
        words.extend(schema.get("const").and_then(Json::as_str));
        let listed = schema.get("enum").and_then(Json::as_array);
        words.extend(listed.into_iter().flatten().filter_map(Json::as_str));
        for word in ["oneOf", "anyOf"] {
            let branches = schema.get(word).and_then(Json::as_array);
            for branch in branches.into_iter().flatten() {
                self.words(branch, depth + 1, words);
            }
        }
    }

    /// The values a schema lists, when it accepts listed values only.
    fn literals(&self, schema: &'a Json) -> Option<Vec<&'a Json>> {
        let schema = self.resolved(schema);
        if let Some(only) = schema.get("const") {
            return Some(vec![only]);
        }
        if let Some(values) = schema.get("enum").and_then(Json::as_array) {
            return Some(values.iter().collect());
        }
        let branches = schema
            .get("oneOf")
            .or_else(|| schema.get("anyOf"))?
            .as_array()?;
        let mut all = Vec::new();
        for branch in branches {
            // One level suffices: alternatives of alternatives are written flat.
            match (
                branch.get("const"),
                branch.get("enum").and_then(Json::as_array),
            ) {
                (Some(only), _) => all.push(only),
                (None, Some(values)) => all.extend(values),
                (None, None) => return None,
            }
        }
        Some(all)
    }
}

/// A scalar as JSON; lists and maps are never compared with listed values.
fn node_json(node: &Node) -> Json {
    match &node.value {
        NodeValue::Scalar(scalar) => scalar.resolve(),
        NodeValue::List(_) => Json::Array(Vec::new()),
        NodeValue::Map(_) => Json::Object(serde_json::Map::new()),
    }
}

/// How unlike an alternative is: a wrong discriminator or shape says more than a wrong value inside.
fn weight(found: &[Diagnostic]) -> usize {
    found
        .iter()
        .map(|d| match d.code {
            "bad-value" | "missing-key" | "unknown-key" => 3,
            _ => 1,
        })
        .sum()
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}
