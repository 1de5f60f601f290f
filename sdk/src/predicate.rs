//! Which exchanges a filter is called for.

use std::ops;

/// One node of the predicate in postfix order, as the contract has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    Method(Vec<String>),
    Path(String),
    PathPrefix(String),
    PathGlob(String),
    Host(String),
    HeaderPresent(String),
    HeaderEquals(String, String),
    HeaderPrefix(String, String),
    HeaderContains(String, Vec<String>),
    Client(Vec<String>),
    All(u32),
    Any(u32),
    Negate,
}

/// Which exchanges the filter is called for. The host evaluates it, so that an exchange that does not match costs no
/// call at all.
///
/// ```
/// use sluicegate_sdk::Match;
///
/// let writes = Match::method(["POST", "PUT"]).and(Match::path_prefix("/api"));
/// let strangers = !Match::client(["10.0.0.0/8"]);
/// let both = writes.and(strangers.or(Match::header("x-audit")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Test(Test),
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
}

impl Match {
    /// Any of these methods, case-sensitive.
    pub fn method<M: Into<String>>(methods: impl IntoIterator<Item = M>) -> Self {
        Self::test(Test::Method(methods.into_iter().map(Into::into).collect()))
    }

    /// The path without its query, byte by byte.
    pub fn path(path: impl Into<String>) -> Self {
        Self::test(Test::Path(path.into()))
    }

    /// The path starts with this at a segment boundary.
    pub fn path_prefix(prefix: impl Into<String>) -> Self {
        Self::test(Test::PathPrefix(prefix.into()))
    }

    /// The path matches this [glob](crate::Glob).
    pub fn path_glob(glob: impl Into<String>) -> Self {
        Self::test(Test::PathGlob(glob.into()))
    }

    /// The host without its port matches this [glob](crate::Glob), ignoring case.
    pub fn host(glob: impl Into<String>) -> Self {
        Self::test(Test::Host(glob.into()))
    }

    /// A field of this name is present.
    pub fn header(name: &str) -> Self {
        Self::test(Test::HeaderPresent(name.to_ascii_lowercase()))
    }

    /// Some line of the field equals `value`.
    pub fn header_equals(name: &str, value: impl Into<String>) -> Self {
        Self::test(Test::HeaderEquals(name.to_ascii_lowercase(), value.into()))
    }

    /// Some line of the field starts with `value`.
    pub fn header_prefix(name: &str, value: impl Into<String>) -> Self {
        Self::test(Test::HeaderPrefix(name.to_ascii_lowercase(), value.into()))
    }

    /// Some line of the field contains one of the values.
    pub fn header_contains<V: Into<String>>(
        name: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        Self::test(Test::HeaderContains(
            name.to_ascii_lowercase(),
            values.into_iter().map(Into::into).collect(),
        ))
    }

    /// The client address lies in one of these networks, written as CIDR.
    pub fn client<N: Into<String>>(networks: impl IntoIterator<Item = N>) -> Self {
        Self::test(Test::Client(networks.into_iter().map(Into::into).collect()))
    }

    /// Every one of these; true when there is none.
    pub fn all(matches: impl IntoIterator<Item = Match>) -> Self {
        Self(Node::All(matches.into_iter().map(|m| m.0).collect()))
    }

    /// At least one of these; false when there is none.
    pub fn any(matches: impl IntoIterator<Item = Match>) -> Self {
        Self(Node::Any(matches.into_iter().map(|m| m.0).collect()))
    }

    #[must_use]
    pub fn and(self, other: Match) -> Self {
        Self(match self.0 {
            Node::All(mut nodes) => {
                nodes.push(other.0);
                Node::All(nodes)
            }
            node => Node::All(vec![node, other.0]),
        })
    }

    #[must_use]
    pub fn or(self, other: Match) -> Self {
        Self(match self.0 {
            Node::Any(mut nodes) => {
                nodes.push(other.0);
                Node::Any(nodes)
            }
            node => Node::Any(vec![node, other.0]),
        })
    }

    /// The nodes in postfix order.
    pub fn nodes(&self) -> Vec<Test> {
        let mut out = Vec::new();
        postfix(&self.0, &mut out);
        out
    }

    fn test(test: Test) -> Self {
        Self(Node::Test(test))
    }
}

impl ops::Not for Match {
    type Output = Self;

    fn not(self) -> Self {
        Self(match self.0 {
            Node::Not(node) => *node,
            node => Node::Not(Box::new(node)),
        })
    }
}

fn postfix(node: &Node, out: &mut Vec<Test>) {
    match node {
        Node::Test(test) => out.push(test.clone()),
        Node::All(nodes) => {
            nodes.iter().for_each(|n| postfix(n, out));
            out.push(Test::All(nodes.len() as u32));
        }
        Node::Any(nodes) => {
            nodes.iter().for_each(|n| postfix(n, out));
            out.push(Test::Any(nodes.len() as u32));
        }
        Node::Not(node) => {
            postfix(node, out);
            out.push(Test::Negate);
        }
    }
}
