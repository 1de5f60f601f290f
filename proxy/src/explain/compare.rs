//! What differs between two heads or two routes.

use crate::chain::Route;
use crate::generation::Generation;
use crate::head::{Fields, RequestHead, ResponseHead};
use crate::protocol::http::client_origin::Origin;

use super::{Change, Kind};

pub(super) fn requests(before: &RequestHead, after: &RequestHead) -> Vec<Change> {
    let mut changes = Vec::new();
    single(&mut changes, "target", before.target(), after.target());
    single(
        &mut changes,
        "authority",
        before.authority(),
        after.authority(),
    );
    fields(&mut changes, &before.fields, &after.fields);
    changes
}

/// What a trusted proxy said of the scheme; the host is the head's authority.
pub(super) fn origins(before: Origin, after: Origin) -> Vec<Change> {
    let mut changes = Vec::new();
    let (before, after) = (before.scheme(), after.scheme());
    single(&mut changes, "scheme", before.as_bytes(), after.as_bytes());
    changes
}

pub(super) fn responses(before: &ResponseHead, after: &ResponseHead) -> Vec<Change> {
    let mut changes = Vec::new();
    let status = |head: &ResponseHead| head.status.to_string().into_bytes();
    single(&mut changes, "status", &status(before), &status(after));
    fields(&mut changes, &before.fields, &after.fields);
    changes
}

/// `generation` knows what the pools are called.
pub(super) fn routes(before: &Route, after: &Route, generation: &Generation) -> Vec<Change> {
    let pool = |route: &Route| {
        let pool = generation.pools.get(route.pool?)?;
        Some(pool.config.name.to_string())
    };
    let key = |route: &Route| route.sticky_key.as_deref().map(key_text);
    let endpoint = |route: &Route| route.endpoint.as_deref().map(str::to_owned);
    let ms = |time: Option<std::time::Duration>| time.map(|t| format!("{} ms", t.as_millis()));
    let retries = |route: &Route| route.retries.map(|n| n.to_string());
    [
        ("pool", pool(before), pool(after)),
        ("sticky-key", key(before), key(after)),
        ("endpoint", endpoint(before), endpoint(after)),
        ("try-timeout", ms(before.try_timeout), ms(after.try_timeout)),
        (
            "total-timeout",
            ms(before.total_timeout),
            ms(after.total_timeout),
        ),
        ("retries", retries(before), retries(after)),
    ]
    .into_iter()
    .filter(|(_, old, new)| old != new)
    .map(|(what, old, new)| {
        change(
            what,
            None,
            old.into_iter().collect(),
            new.into_iter().collect(),
        )
    })
    .collect()
}

/// A sticky key as people can read it: as text, or in hexadecimal when it is none.
pub(super) fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => {
            let digits = key.iter().map(|byte| format!("{byte:02x}"));
            format!("0x{}", digits.collect::<String>())
        }
    }
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn single(changes: &mut Vec<Change>, what: &'static str, old: &[u8], new: &[u8]) {
    if old != new {
        changes.push(change(what, None, vec![lossy(old)], vec![lossy(new)]));
    }
}

fn fields(changes: &mut Vec<Change>, before: &Fields, after: &Fields) {
    let mut names: Vec<&[u8]> = Vec::new();
    for (name, _) in before.iter().chain(after.iter()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let old: Vec<&[u8]> = before.get_all(name).collect();
        let new: Vec<&[u8]> = after.get_all(name).collect();
        if old != new {
            let texts = |lines: Vec<&[u8]>| lines.into_iter().map(lossy).collect();
            changes.push(change("field", Some(lossy(name)), texts(old), texts(new)));
        }
    }
}

fn change(what: &'static str, name: Option<String>, old: Vec<String>, new: Vec<String>) -> Change {
    let kind = match (old.is_empty(), new.is_empty()) {
        (true, _) => Kind::Add,
        (false, true) => Kind::Remove,
        (false, false) => Kind::Set,
    };
    Change {
        change: kind,
        what,
        name,
        old,
        new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_field_belong_together() {
        let fields_of = |lines: &[(&str, &str)]| {
            let mut fields = Fields::default();
            for (name, value) in lines {
                fields.append(name.as_bytes(), value.as_bytes());
            }
            fields
        };
        let mut changes = Vec::new();
        fields(
            &mut changes,
            &fields_of(&[("a", "1"), ("b", "2"), ("c", "3")]),
            &fields_of(&[("a", "1"), ("c", "4"), ("d", "5"), ("a", "6")]),
        );
        let told: Vec<_> = changes
            .iter()
            .map(|c| (c.change, c.name.as_deref().unwrap_or(""), c.new.join(",")))
            .collect();
        assert_eq!(
            told,
            [
                (Kind::Set, "a", "1,6".to_owned()),
                (Kind::Remove, "b", String::new()),
                (Kind::Set, "c", "4".to_owned()),
                (Kind::Add, "d", "5".to_owned()),
            ]
        );
    }

    #[test]
    fn keys_are_readable() {
        assert_eq!(key_text(b"alice"), "alice");
        assert_eq!(key_text(&[0, 255]), "0x00ff");
    }
}
