//! A predicate in words, for people who ask why a filter was not called.

use std::fmt::{self, Display, Formatter};

use super::{Node, Predicate};

impl Display for Predicate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("always"),
            Some(node) => node.fmt(f),
        }
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Node::Method(methods) => {
                let methods = methods.iter().map(|m| text(m)).collect();
                write!(f, "method is {}", or(methods))
            }
            Node::Path(path) => write!(f, "path is {}", text(path)),
            Node::PathPrefix(prefix) => write!(f, "path is {} or below it", text(prefix)),
            Node::PathGlob(glob) => write!(f, "path is like {}", text(&glob.pattern())),
            Node::Host(glob) => write!(f, "host is like {}", text(&glob.pattern())),
            Node::HeaderPresent(name) => write!(f, "there is a header {}", bare(name)),
            Node::HeaderEquals(name, value) => {
                write!(f, "header {} is {}", bare(name), text(value))
            }
            Node::HeaderPrefix(name, value) => {
                write!(f, "header {} begins with {}", bare(name), text(value))
            }
            Node::HeaderContains(name, needles) => {
                let needles = needles.iter().map(|n| text(n.needle())).collect();
                write!(f, "header {} contains {}", bare(name), or(needles))
            }
            Node::Client(networks) => {
                let networks = networks.iter().map(|net| net.to_string()).collect();
                write!(f, "client is in {}", or(networks))
            }
            Node::All(nodes) => join(f, nodes, " and ", "always"),
            Node::Any(nodes) => join(f, nodes, " or ", "never"),
            Node::Not(node) => write!(f, "not ({node})"),
        }
    }
}

fn join(f: &mut Formatter<'_>, nodes: &[Node], word: &str, none: &str) -> fmt::Result {
    if nodes.is_empty() {
        return f.write_str(none);
    }
    for (i, node) in nodes.iter().enumerate() {
        if i > 0 {
            f.write_str(word)?;
        }
        let nested = matches!(node, Node::All(inner) | Node::Any(inner) if inner.len() > 1);
        if nested && nodes.len() > 1 {
            write!(f, "({node})")?;
        } else {
            node.fmt(f)?;
        }
    }
    Ok(())
}

fn or(values: Vec<String>) -> String {
    match values.is_empty() {
        true => "nothing".to_owned(),
        false => values.join(" or "),
    }
}

fn bare(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// In quotes, without control characters.
fn text(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for c in String::from_utf8_lossy(bytes).chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::Test;

    #[test]
    fn in_words() {
        let s = str::to_owned;
        let check = |tests: &[Test], expected: &str| {
            let predicate = Predicate::compile(tests).expect("a predicate");
            assert_eq!(predicate.to_string(), expected);
        };
        check(&[], "always");
        check(
            &[
                Test::PathPrefix(s("/admin")),
                Test::HeaderContains((s("User-Agent"), vec![s("bot"), s("\u{1b}x")])),
                Test::Method(vec![s("GET")]),
                Test::Any(2),
                Test::Client(vec![s("10.0.0.0/8")]),
                Test::Negate,
                Test::All(3),
            ],
            "path is \"/admin\" or below it and (header user-agent contains \"bot\" or \"\\u{1b}x\" \
             or method is \"GET\") and not (client is in 10.0.0.0/8)",
        );
        check(&[Test::PathGlob(s("/a*\\*?"))], "path is like \"/a*\\*?\"");
        check(
            &[Test::Host(s("*.Example.org"))],
            "host is like \"*.example.org\"",
        );
        check(&[Test::Any(0)], "never");
    }
}
