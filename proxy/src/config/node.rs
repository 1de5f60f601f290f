//! The tree a YAML text becomes: every key and value keeps the place it was written at.

use std::sync::Arc;

use serde_json::Value as Json;

use super::model::ConfigPath;
use super::pem::is_private;

/// Where something was written. Lines and columns count from 1, columns in characters; the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Location {
    /// Index into the files of [`super::Sources`].
    pub file: u32,
    pub line: u32,
    pub column: u32,
    pub end_line: u32,
    pub end_column: u32,
}

/// A value. Aliases share their target, so a tree may be smaller than what it spells out; the parser bounds both.
#[derive(Debug, Clone)]
pub struct Node {
    pub at: Location,
    pub value: NodeValue,
}

#[derive(Debug, Clone)]
pub enum NodeValue {
    Scalar(Scalar),
    List(Vec<Arc<Node>>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Key,
    pub value: Arc<Node>,
}

#[derive(Debug, Clone)]
pub struct Key {
    pub text: Arc<str>,
    pub at: Location,
}

#[derive(Debug, Clone)]
pub struct Scalar {
    pub text: String,
    /// Unquoted: YAML decides by its look whether it is a number, a truth value or text.
    pub plain: bool,
    /// Holds the content of a file named by `${file:…}`; never shown.
    pub secret: bool,
}

/// What a value is, in JSON's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Integer,
    Number,
    String,
    List,
    Map,
}

impl Kind {
    /// The kind with its article, for messages.
    pub fn phrase(self) -> &'static str {
        match self {
            Kind::Null => "nothing",
            Kind::Bool => "true or false",
            Kind::Integer => "an integer",
            Kind::Number => "a number",
            Kind::String => "a string",
            Kind::List => "a list",
            Kind::Map => "a map",
        }
    }
}

impl Node {
    pub fn map(&self) -> Option<&[Entry]> {
        match &self.value {
            NodeValue::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn list(&self) -> Option<&[Arc<Node>]> {
        match &self.value {
            NodeValue::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value under `key`, when this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.map()?.iter().find(|entry| &*entry.key.text == key)
    }

    pub fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    pub fn kind(&self) -> Kind {
        match &self.value {
            NodeValue::List(_) => Kind::List,
            NodeValue::Map(_) => Kind::Map,
            NodeValue::Scalar(scalar) => match scalar.resolve() {
                Json::Null => Kind::Null,
                Json::Bool(_) => Kind::Bool,
                Json::Number(number) if number.is_f64() => Kind::Number,
                Json::Number(_) => Kind::Integer,
                _ => Kind::String,
            },
        }
    }

    /// The value as JSON. With `redact`, secrets are replaced by a placeholder.
    pub fn to_json(&self, redact: bool) -> Json {
        match &self.value {
            NodeValue::Scalar(scalar) => match scalar.resolve() {
                Json::String(text) if redact && (scalar.secret || is_private(&text)) => {
                    Json::from("<redacted>")
                }
                value => value,
            },
            NodeValue::List(items) => items.iter().map(|item| item.to_json(redact)).collect(),
            NodeValue::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.text.to_string(), entry.value.to_json(redact)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// Where a caret for this value belongs: the value when it is a scalar, else the key that holds it, else the
    /// start of the value.
    pub fn focus(&self, key: Option<&Key>) -> Location {
        match (&self.value, key) {
            (NodeValue::Scalar(scalar), Some(key)) if scalar.text.is_empty() => key.at,
            (NodeValue::Scalar(_), _) => self.at,
            (_, Some(key)) => key.at,
            (NodeValue::Map(entries), None) => match entries.first() {
                Some(first) if first.key.at.line == self.at.line => first.key.at,
                _ => self.at,
            },
            (NodeValue::List(_), None) => self.at,
        }
    }

    /// Follows a JSON pointer as far as it leads. Answers the node, the key that holds it, and whether the whole
    /// pointer was followed.
    pub fn follow(&self, path: &ConfigPath) -> (&Node, Option<&Key>, bool) {
        let (mut node, mut key) = (self, None);
        for token in path.tokens() {
            match &node.value {
                NodeValue::Map(entries) => {
                    match entries.iter().find(|entry| *entry.key.text == token) {
                        Some(entry) => (node, key) = (&entry.value, Some(&entry.key)),
                        None => return (node, key, false),
                    }
                }
                NodeValue::List(items) => {
                    match token.parse::<usize>().ok().and_then(|i| items.get(i)) {
                        Some(item) => (node, key) = (item, None),
                        None => return (node, key, false),
                    }
                }
                NodeValue::Scalar(_) => return (node, key, false),
            }
        }
        (node, key, true)
    }
}

impl Scalar {
    pub fn null() -> Scalar {
        Scalar {
            text: String::new(),
            plain: true,
            secret: false,
        }
    }

    /// The YAML 1.2 core schema: what an unquoted scalar means by its look.
    pub fn resolve(&self) -> Json {
        if !self.plain {
            return Json::from(self.text.as_str());
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Json::Null,
            "true" | "True" | "TRUE" => Json::Bool(true),
            "false" | "False" | "FALSE" => Json::Bool(false),
            text => number(text).unwrap_or_else(|| Json::from(text)),
        }
    }
}

impl ConfigPath {
    /// The path of `token` (a key or an index) below this one.
    pub fn join(&self, token: impl std::fmt::Display) -> ConfigPath {
        let token = token.to_string();
        if token.contains(['~', '/']) {
            ConfigPath(format!(
                "{}/{}",
                self.0,
                token.replace('~', "~0").replace('/', "~1")
            ))
        } else {
            ConfigPath(format!("{}/{}", self.0, token))
        }
    }

    fn tokens(&self) -> impl Iterator<Item = String> + '_ {
        self.0
            .split('/')
            .skip(1)
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
    }
}

impl std::fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn number(text: &str) -> Option<Json> {
    let first = *text.as_bytes().first()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && digits.bytes().all(|b| b.is_ascii_alphanumeric())
        {
            return u64::from_str_radix(digits, radix).ok().map(Json::from);
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let plain = text.strip_prefix('+').unwrap_or(text);
        if let Ok(value) = plain.parse::<i64>() {
            return Some(Json::from(value));
        }
        if let Ok(value) = plain.parse::<u64>() {
            return Some(Json::from(value));
        }
    }
    if !is_float(unsigned) {
        return None;
    }
    let value = text.parse::<f64>().ok()?;
    serde_json::Number::from_f64(value).map(Json::Number)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(i) => (&text[..i], Some(&text[i + 1..])),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits =
        digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa_fits && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("off", json!("off")),
            ("12", json!(12)),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("0x1F", json!(31)),
            ("0o14", json!(12)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.2", json!(1.2)),
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            (".", json!(".")),
            ("-", json!("-")),
            ("1.2.3", json!("1.2.3")),
            ("10s", json!("10s")),
            ("12:30", json!("12:30")),
            ("1e999", json!("1e999")),
            (".inf", json!(".inf")),
            ("0xzz", json!("0xzz")),
        ];
        for (text, expected) in cases {
            let scalar = Scalar {
                text: text.into(),
                plain: true,
                secret: false,
            };
            assert_eq!(scalar.resolve(), expected, "{text}");
        }
        let quoted = Scalar {
            text: "12".into(),
            plain: false,
            secret: false,
        };
        assert_eq!(quoted.resolve(), json!("12"));
    }

    #[test]
    fn pointers_escape_and_unescape() {
        let path = ConfigPath::default().join("pools").join("a/b~c").join(3);
        assert_eq!(path.0, "/pools/a~1b~0c/3");
        assert_eq!(path.tokens().collect::<Vec<_>>(), ["pools", "a/b~c", "3"]);
    }
}
