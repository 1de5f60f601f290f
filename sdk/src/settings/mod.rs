//! Settings: from JSON to the filter's type, with the path of whatever is wrong.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::plan::{Diagnostic, Pointer};

mod types;

pub use types::{Duration, OneOrMany};

/// How many unknown keys are reported at most.
const UNKNOWN_MAX: usize = 32;

/// Reads settings. Absent settings (`null`) count as an empty map, unless the type takes `null`.
///
/// Every unknown key is reported; of other mistakes the first.
pub(crate) fn parse<S: DeserializeOwned>(text: &str) -> Result<S, Vec<Diagnostic>> {
    // Most settings are right, and ten thousand rules should not be held in memory twice. What is wrong with others,
    // the tree below tells.
    if let Ok(settings) = serde_json::from_str(text) {
        return Ok(settings);
    }
    let mut value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            return Err(vec![Diagnostic::new(
                "",
                format!("the settings are not JSON: {error}"),
            )]);
        }
    };
    if value.is_null() {
        if let Ok(settings) = S::deserialize(Value::Null) {
            return Ok(settings);
        }
        value = Value::Object(serde_json::Map::new());
    }
    let mut problems = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(settings) if problems.is_empty() => return Ok(settings),
            Ok::<S, _>(_) => return Err(problems),
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let mut path = pointer(error.path());
        let unknown = quoted(&message).filter(|_| message.starts_with("unknown field"));
        if let Some(key) = unknown {
            // The path may or may not end at the key itself, depending on who noticed.
            let whole = path.key(key);
            if value.pointer(whole.as_str()).is_some() {
                path = whole;
            }
        }
        let removed = unknown.is_some() && remove(&mut value, path.as_str());
        problems.push(explain(path, &message));
        if !removed || problems.len() >= UNKNOWN_MAX {
            return Err(problems);
        }
    }
}

/// Deserialises what may be written short, as text, or long, as a map.
///
/// Call it from a hand-written `Deserialize`; unlike `#[serde(untagged)]` it keeps the path of a mistake inside the map.
/// `expecting` completes "invalid type: …, expected …".
pub fn text_or_map<'de, D, T, M>(
    deserializer: D,
    expecting: &'static str,
    text: impl FnOnce(&str) -> Result<T, String>,
    map: impl FnOnce(M) -> T,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    M: Deserialize<'de>,
{
    struct Either<F, G, T, M> {
        expecting: &'static str,
        text: F,
        map: G,
        result: PhantomData<(T, M)>,
    }

    impl<'de, F, G, T, M> Visitor<'de> for Either<F, G, T, M>
    where
        F: FnOnce(&str) -> Result<T, String>,
        G: FnOnce(M) -> T,
        M: Deserialize<'de>,
    {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expecting)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.text)(text).map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            M::deserialize(MapAccessDeserializer::new(map)).map(self.map)
        }
    }

    deserializer.deserialize_any(Either {
        expecting,
        text,
        map,
        result: PhantomData,
    })
}

/// The candidate closest to `name`, when it is close enough to be what was meant.
///
/// ```
/// use sluicegate_sdk::settings::nearest;
///
/// assert_eq!(nearest("clent.address", ["client.address", "peer.address"]), Some("client.address"));
/// assert_eq!(nearest("banana", ["client.address"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn explain(path: Pointer, message: &str) -> Diagnostic {
    if let Some(name) = message.strip_prefix("missing field `") {
        let name = name.split('`').next().unwrap_or_default();
        return Diagnostic::new(path, format!("the required key `{name}` is missing"));
    }
    let Some((given, expected)) = message.split_once(", expected ") else {
        return Diagnostic::new(path, message);
    };
    let name = given.split('`').nth(1).unwrap_or_default();
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    // Keys stand in backticks, values in double quotes, as in the proxy's own messages.
    let (message, quote) = if given.starts_with("unknown field") {
        (format!("unknown key `{name}`"), '`')
    } else if given.starts_with("unknown variant") {
        (
            format!("\"{name}\" is not one of the values this takes"),
            '"',
        )
    } else {
        let given = given
            .trim_start_matches("invalid type: ")
            .trim_start_matches("invalid value: ");
        return Diagnostic::new(path, format!("expected {expected}, not {given}"));
    };
    let diagnostic = Diagnostic::new(path, message);
    let shown = |name: &str| format!("{quote}{name}{quote}");
    match nearest(name, known.iter().copied()) {
        Some(candidate) => diagnostic.help(format!("did you mean {}?", shown(candidate))),
        None if known.is_empty() => diagnostic,
        None => {
            let known: Vec<String> = known.into_iter().map(shown).collect();
            diagnostic.help(format!("known are {}", known.join(", ")))
        }
    }
}

fn quoted(message: &str) -> Option<&str> {
    message.split('`').nth(1)
}

fn pointer(path: &serde_path_to_error::Path) -> Pointer {
    let mut pointer = Pointer::root();
    for segment in path {
        pointer = match segment {
            Segment::Seq { index } => pointer.index(*index),
            Segment::Map { key } => pointer.key(key),
            Segment::Enum { variant } => pointer.key(variant),
            Segment::Unknown => return pointer,
        };
    }
    pointer
}

/// Takes the value at `path` out of its map.
fn remove(value: &mut Value, path: &str) -> bool {
    let Some((parent, key)) = path.rsplit_once('/') else {
        return false;
    };
    let key = key.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&key).is_some(),
        _ => false,
    }
}

/// Edit distance with swaps of neighbours (restricted Damerau–Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > 128 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = a[i - 1] == b[j - 1];
            let mut cost = (above[j - 1] + usize::from(!same))
                .min(above[j] + 1)
                .min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before[j - 2] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[crate::settings]
    #[derive(Debug, PartialEq, Eq)]
    struct Example {
        #[serde(default)]
        max_age: u32,
        #[serde(default)]
        rules: Vec<Rule>,
        #[serde(default)]
        by_name: BTreeMap<String, Rule>,
    }

    #[crate::settings]
    #[derive(Debug, PartialEq, Eq)]
    struct Rule {
        pool: String,
        mode: Option<Mode>,
    }

    #[crate::settings]
    #[derive(Debug, PartialEq, Eq)]
    enum Mode {
        Plain,
        Long { of_it: u8 },
    }

    #[track_caller]
    fn check(text: &str, problems: &[(&str, &str, Option<&str>)]) {
        let found = parse::<Example>(text).expect_err("the settings are wrong");
        assert_eq!(found.len(), problems.len(), "{found:#?}");
        for (found, (path, message, help)) in found.iter().zip(problems) {
            assert_eq!(found.path, *path, "{found:#?}");
            assert!(found.message.contains(message), "{found:#?}");
            assert_eq!(found.help.as_deref(), *help, "{found:#?}");
        }
    }

    #[test]
    fn absent_settings_are_empty_ones() {
        assert_eq!(parse::<Example>("null").unwrap().max_age, 0);
        assert_eq!(parse::<()>("null"), Ok(()));
        assert_eq!(parse::<Option<Rule>>("null"), Ok(None));
        let problems = parse::<Rule>("null").unwrap_err();
        assert!(
            problems[0]
                .message
                .contains("the required key `pool` is missing")
        );
    }

    #[test]
    fn mistakes_are_reported_where_they_are() {
        check("{", &[("", "not JSON", None)]);
        check(r#"{"max-age": "x"}"#, &[("/max-age", "expected ", None)]);
        check(r#"{"max-age": -1}"#, &[("/max-age", "expected ", None)]);
        check(
            r#"{"rules": [{"pool": "a"}, {"pool": 7}]}"#,
            &[("/rules/1/pool", "expected ", None)],
        );
        check(
            r#"{"rules": [{}]}"#,
            &[("/rules/0", "the required key `pool` is missing", None)],
        );
        check(
            r#"{"by-name": {"a/b": {"pool": "x", "mode": "plian"}}}"#,
            &[(
                "/by-name/a~1b/mode",
                "not one of the values",
                Some("did you mean \"plain\"?"),
            )],
        );
        check(
            r#"{"rules": [{"pool": "x", "mode": {"long": {"of-it": 999}}}]}"#,
            &[("/rules/0/mode/long/of-it", "expected ", None)],
        );
    }

    #[test]
    fn every_unknown_key_is_reported() {
        check(
            r#"{"max_age": 1, "zzz": 1, "rules": [{"pol": "x", "pool": "y"}]}"#,
            &[
                (
                    "/max_age",
                    "unknown key `max_age`",
                    Some("did you mean `max-age`?"),
                ),
                (
                    "/rules/0/pol",
                    "unknown key `pol`",
                    Some("did you mean `pool`?"),
                ),
                (
                    "/zzz",
                    "unknown key `zzz`",
                    Some("known are `max-age`, `rules`, `by-name`"),
                ),
            ],
        );
    }
}
