//! Conditions beyond host and path.

use sluicegate_sdk::{Glob, Request};

use crate::settings::{LongTest, ValueTest};

/// One condition.
#[derive(Debug)]
pub enum Condition {
    Method(Vec<String>),
    Header(String, Test),
    Query(String, Test),
}

/// A test of a value.
#[derive(Debug)]
pub enum Test {
    Present,
    Absent,
    Equals(String),
    Prefix(String),
    Contains(String),
    Glob(Glob),
}

impl Condition {
    pub fn holds(&self, request: &Request<'_>) -> bool {
        match self {
            Self::Method(methods) => methods.iter().any(|method| request.method() == **method),
            Self::Header(name, test) => test.holds(request.fields_named(name)),
            Self::Query(name, test) => {
                let query = request.query().unwrap_or_default().as_bytes();
                test.holds(parameters(query, name.as_bytes()))
            }
        }
    }
}

impl Test {
    fn holds<V: AsRef<[u8]>>(&self, values: impl IntoIterator<Item = V>) -> bool {
        let mut values = values.into_iter();
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            test => values.any(|value| test.passes(value.as_ref())),
        }
    }

    fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Present | Self::Absent => true,
            Self::Equals(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Contains(text) => {
                text.is_empty() || value.windows(text.len()).any(|w| w == text.as_bytes())
            }
            Self::Glob(glob) => glob.matches(value),
        }
    }
}

impl From<ValueTest> for Test {
    fn from(test: ValueTest) -> Self {
        match test {
            ValueTest::Equals(text) | ValueTest::Long(LongTest::Equals(text)) => Self::Equals(text),
            ValueTest::Long(LongTest::Present(true)) => Self::Present,
            ValueTest::Long(LongTest::Present(false)) => Self::Absent,
            ValueTest::Long(LongTest::Prefix(text)) => Self::Prefix(text),
            ValueTest::Long(LongTest::Contains(text)) => Self::Contains(text),
            ValueTest::Long(LongTest::Glob(glob)) => Self::Glob(Glob::new(&glob)),
        }
    }
}

/// The decoded values of the parameters of this name.
fn parameters(query: &[u8], name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    query
        .split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .filter_map(move |pair| {
            let (key, value) = match pair.iter().position(|b| *b == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, b"".as_slice()),
            };
            (key == name || decoded(key) == name).then(|| decoded(value))
        })
}

/// Form decoding (`+` and `%XX`); what is no escape stands for itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let hex = |i: usize| text.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(*byte),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        for (query, values) in [
            ("a=1", vec!["1"]),
            ("b=2&a=1&a=&a", vec!["1", "", ""]),
            ("%61=x%20y+z", vec!["x y z"]),
            ("a=%4", vec!["%4"]),
            ("a=%zz%", vec!["%zz%"]),
            ("&&", vec![]),
            ("", vec![]),
        ] {
            let found: Vec<Vec<u8>> = parameters(query.as_bytes(), b"a").collect();
            let found: Vec<&str> = found
                .iter()
                .map(|v| std::str::from_utf8(v).unwrap())
                .collect();
            assert_eq!(found, values, "{query}");
        }
    }
}
