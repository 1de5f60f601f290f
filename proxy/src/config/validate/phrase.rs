//! What a schema expects and what a value is: as sets of kinds, and in words.

use serde_json::Value as Json;

use crate::config::diagnostic::quoted;
use crate::config::node::{Kind, Node, NodeValue};
use crate::config::pem::is_private;

/// A set of [`Kind`]s.
#[derive(Clone, Copy)]
pub(super) struct Kinds(pub u8);

impl Kinds {
    pub const ANY: Kinds = Kinds(u8::MAX);

    pub fn contains(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    pub fn with(self, kind: Kind) -> Kinds {
        // Every integer is a number.
        let integer = if kind == Kind::Number {
            1 << Kind::Integer as u8
        } else {
            0
        };
        Kinds(self.0 | integer | 1 << kind as u8)
    }

    pub fn of(values: &[Json]) -> Kinds {
        values.iter().fold(Kinds(0), |all, value| {
            all.with(match value {
                Json::Null => Kind::Null,
                Json::Bool(_) => Kind::Bool,
                Json::Number(number) if number.is_f64() => Kind::Number,
                Json::Number(_) => Kind::Integer,
                Json::String(_) => Kind::String,
                Json::Array(_) => Kind::List,
                Json::Object(_) => Kind::Map,
            })
        })
    }
}

/// What a schema's own `type` accepts.
pub(super) fn kinds(schema: &Json) -> Kinds {
    let kind = |name: &str| match name {
        "null" => Some(Kind::Null),
        "boolean" => Some(Kind::Bool),
        "integer" => Some(Kind::Integer),
        "number" => Some(Kind::Number),
        "string" => Some(Kind::String),
        "array" => Some(Kind::List),
        "object" => Some(Kind::Map),
        _ => None,
    };
    let named = |value: &Json| value.as_str().and_then(kind);
    match schema.get("type") {
        Some(Json::Array(names)) => names.iter().filter_map(named).fold(Kinds(0), Kinds::with),
        Some(name) => named(name).map_or(Kinds::ANY, |kind| Kinds(0).with(kind)),
        None => Kinds::ANY,
    }
}

/// What a schema expects, in words.
pub(in crate::config) fn describe(root: &Json, schema: &Json) -> String {
    let mut parts = Vec::new();
    parts_of(root, schema, 0, &mut parts);
    let (mut literals, mut rest): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for (is_literal, text) in parts {
        let list = if is_literal { &mut literals } else { &mut rest };
        if !list.contains(&text) {
            list.push(text);
        }
    }
    literals.append(&mut rest);
    match literals.as_slice() {
        [] => "something else".to_owned(),
        [one] => one.clone(),
        [first, last] => format!("{first} or {last}"),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

fn parts_of(root: &Json, schema: &Json, depth: u32, parts: &mut Vec<(bool, String)>) {
    if depth > 8 || parts.len() > 32 {
        return;
    }
    let literal = |value: &Json| match value {
        Json::String(text) => (true, format!("`{text}`")),
        other => (true, format!("`{other}`")),
    };
    if let Some(only) = schema.get("const") {
        return parts.push(literal(only));
    }
    if let Some(values) = schema.get("enum").and_then(Json::as_array) {
        return parts.extend(values.iter().map(literal));
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(branches) = schema.get(word).and_then(Json::as_array) {
            return branches
                .iter()
                .for_each(|branch| parts_of(root, branch, depth + 1, parts));
        }
    }
    if let Some(target) = schema
        .get("$ref")
        .and_then(Json::as_str)
        .and_then(|r| root.pointer(r.strip_prefix('#')?))
    {
        return parts_of(root, target, depth + 1, parts);
    }
    if let Some(format) = schema.get("format").and_then(Json::as_str) {
        match format {
            "duration" => return parts.push((false, "a duration such as `10s`".into())),
            "size" => return parts.push((false, "a size such as `64KiB`".into())),
            _ => {}
        }
    }
    let all = kinds(schema);
    if schema.get("type").is_none() {
        return;
    }
    for kind in [
        Kind::Bool,
        Kind::Integer,
        Kind::Number,
        Kind::String,
        Kind::List,
        Kind::Map,
        Kind::Null,
    ] {
        if all.contains(kind) && !(kind == Kind::Integer && all.contains(Kind::Number)) {
            parts.push((false, kind.phrase().to_owned()));
        }
    }
}

/// What a value is, in words.
pub(super) fn found(node: &Node) -> String {
    match (node.kind(), &node.value) {
        (Kind::Null, _) => "empty".to_owned(),
        (Kind::Bool, NodeValue::Scalar(scalar)) => format!("the truth value `{}`", scalar.text),
        (Kind::Integer | Kind::Number, NodeValue::Scalar(scalar)) => {
            format!("the number {}", scalar.text)
        }
        (Kind::String, NodeValue::Scalar(scalar)) if scalar.secret => {
            "the content of that file".to_owned()
        }
        (Kind::String, NodeValue::Scalar(scalar)) if is_private(&scalar.text) => {
            "a private key".to_owned()
        }
        (Kind::String, NodeValue::Scalar(scalar)) => quoted(&scalar.text),
        (kind, _) => kind.phrase().to_owned(),
    }
}
