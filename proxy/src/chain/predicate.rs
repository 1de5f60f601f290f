//! The match predicate of a plan, evaluated by the host so that an exchange that does not match costs no call.

mod describe;

use std::net::IpAddr;

use ipnet::IpNet;
use memchr::memmem::Finder;

use super::glob::{Glob, Steps};
use crate::head::{Fields, RequestHead, is_token};
use crate::wasm::Test;

/// Nodes of one predicate.
const NODES_MAX: usize = 1024;
/// Operators inside operators; bounds the stack that evaluation takes.
const DEPTH_MAX: usize = 64;
/// Values of one test, and bytes of one value.
const VALUES_MAX: usize = 4096;
const VALUE_BYTES_MAX: usize = 8 * 1024;
/// What one evaluation may take: some milliseconds. A sane predicate takes a thousandth; one that is made to be slow, or
/// that a client's path makes slow, would hold up everything else of the worker.
const STEPS_MAX: u32 = 2_000_000;
/// Steps that a look into a field line is counted for, besides the bytes it goes through.
const LOOK_STEPS: usize = 16;

/// What a predicate is asked about. Without a head (streams) every test of one is false.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub head: Option<&'a RequestHead>,
    pub client: IpAddr,
}

/// A compiled predicate; none matches everything.
#[derive(Debug, Clone, Default)]
pub struct Predicate(Option<Node>);

/// An evaluation was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSlow;

/// Why postfix nodes are no predicate: a mistake of the filter, not of its settings, but for networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredicateError {
    #[error("{0} nodes, more than {NODES_MAX}")]
    TooManyNodes(usize),
    #[error("operators nest deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("node {at} takes {wants} values but there are {has}")]
    Underflow { at: usize, wants: usize, has: usize },
    #[error("{0} values are left at the end instead of one")]
    Leftover(usize),
    #[error("node {0} has too many or too long values")]
    TooLarge(usize),
    #[error("{0:?} is not a field name")]
    FieldName(String),
    #[error("{0:?} is not a network: write 10.0.0.0/8 or 2001:db8::/32")]
    Network(String),
}

#[derive(Debug, Clone)]
enum Node {
    Method(Box<[Box<[u8]>]>),
    Path(Box<[u8]>),
    PathPrefix(Box<[u8]>),
    PathGlob(Glob),
    Host(Glob),
    HeaderPresent(Box<[u8]>),
    HeaderEquals(Box<[u8]>, Box<[u8]>),
    HeaderPrefix(Box<[u8]>, Box<[u8]>),
    HeaderContains(Box<[u8]>, Box<[Finder<'static>]>),
    Client(Box<[IpNet]>),
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
}

impl Predicate {
    /// Compiles postfix nodes; see `test` in filter.wit.
    pub fn compile(tests: &[Test]) -> Result<Self, PredicateError> {
        if tests.is_empty() {
            return Ok(Self(None));
        }
        if tests.len() > NODES_MAX {
            return Err(PredicateError::TooManyNodes(tests.len()));
        }
        // Each entry is a truth value to be, with how deep it nests.
        let mut stack: Vec<(Node, usize)> = Vec::new();
        for (at, test) in tests.iter().enumerate() {
            let entry = match test {
                Test::All(count) => {
                    let (nodes, depth) = operands(&mut stack, at, *count as usize)?;
                    (Node::All(nodes), depth + 1)
                }
                Test::Any(count) => {
                    let (nodes, depth) = operands(&mut stack, at, *count as usize)?;
                    (Node::Any(nodes), depth + 1)
                }
                Test::Negate => {
                    let (node, depth) = stack.pop().ok_or(PredicateError::Underflow {
                        at,
                        wants: 1,
                        has: 0,
                    })?;
                    (Node::Not(Box::new(node)), depth + 1)
                }
                leaf => (self::leaf(at, leaf)?, 1),
            };
            if entry.1 > DEPTH_MAX {
                return Err(PredicateError::TooDeep);
            }
            stack.push(entry);
        }
        match (stack.pop(), stack.len()) {
            (Some((node, _)), 0) => Ok(Self(Some(node))),
            (_, left) => Err(PredicateError::Leftover(left + 1)),
        }
    }

    #[inline]
    pub fn matches(&self, subject: &Subject<'_>) -> Result<bool, TooSlow> {
        match &self.0 {
            None => Ok(true),
            Some(node) => node.holds(subject, &mut Steps(STEPS_MAX)).ok_or(TooSlow),
        }
    }
}

impl Node {
    /// None when the steps ran out.
    fn holds(&self, subject: &Subject<'_>, steps: &mut Steps) -> Option<bool> {
        match self {
            Node::All(nodes) => {
                for node in nodes {
                    if !node.holds(subject, steps)? {
                        return Some(false);
                    }
                }
                return Some(true);
            }
            Node::Any(nodes) => {
                for node in nodes {
                    if node.holds(subject, steps)? {
                        return Some(true);
                    }
                }
                return Some(false);
            }
            Node::Not(node) => return node.holds(subject, steps).map(|holds| !holds),
            Node::Client(networks) => {
                steps.take(networks.len())?;
                return Some(networks.iter().any(|net| net.contains(&subject.client)));
            }
            _ => {}
        }
        let Some(head) = subject.head else {
            return Some(false);
        };
        match self {
            Node::Method(methods) => {
                steps.take(methods.len())?;
                Some(methods.iter().any(|m| **m == *head.method()))
            }
            Node::Path(path) => Some(head.path() == &**path),
            Node::PathPrefix(prefix) => Some(is_below(head.path(), prefix)),
            Node::PathGlob(glob) => glob.matches(head.path(), steps),
            Node::Host(glob) => glob.matches(without_port(head.authority()), steps),
            Node::HeaderPresent(name) => lines(&head.fields, name, steps, |_, _| Some(true)),
            Node::HeaderEquals(name, value) => {
                lines(&head.fields, name, steps, |v, _| Some(v == &**value))
            }
            Node::HeaderPrefix(name, value) => {
                lines(&head.fields, name, steps, |v, _| Some(v.starts_with(value)))
            }
            Node::HeaderContains(name, needles) => lines(&head.fields, name, steps, |v, steps| {
                for needle in needles {
                    steps.take(LOOK_STEPS + v.len())?;
                    if needle.find(v).is_some() {
                        return Some(true);
                    }
                }
                Some(false)
            }),
            Node::All(_) | Node::Any(_) | Node::Not(_) | Node::Client(_) => Some(false),
        }
    }
}

/// Whether `test` holds for some line of `name`.
fn lines(
    fields: &Fields,
    name: &[u8],
    steps: &mut Steps,
    test: impl Fn(&[u8], &mut Steps) -> Option<bool>,
) -> Option<bool> {
    for (found, value) in fields.iter() {
        steps.take(LOOK_STEPS)?;
        if found == name && test(value, steps)? {
            return Some(true);
        }
    }
    Some(false)
}

/// The last `count` values, in order, and how deep they nest.
fn operands(
    stack: &mut Vec<(Node, usize)>,
    at: usize,
    count: usize,
) -> Result<(Box<[Node]>, usize), PredicateError> {
    let first = stack
        .len()
        .checked_sub(count)
        .ok_or(PredicateError::Underflow {
            at,
            wants: count,
            has: stack.len(),
        })?;
    let depth = stack[first..].iter().map(|(_, d)| *d).max().unwrap_or(0);
    let nodes = stack.drain(first..).map(|(node, _)| node).collect();
    Ok((nodes, depth))
}

fn leaf(at: usize, test: &Test) -> Result<Node, PredicateError> {
    let text = |value: &str| -> Result<Box<[u8]>, PredicateError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(PredicateError::TooLarge(at));
        }
        Ok(value.as_bytes().into())
    };
    let few = |values: &[String]| -> Result<(), PredicateError> {
        let fits = values.len() <= VALUES_MAX && values.iter().all(|v| v.len() <= VALUE_BYTES_MAX);
        if fits {
            Ok(())
        } else {
            Err(PredicateError::TooLarge(at))
        }
    };
    let glob = |pattern: &str, ignore_case| -> Result<Glob, PredicateError> {
        text(pattern)?;
        Ok(Glob::new(pattern, ignore_case))
    };
    Ok(match test {
        Test::Method(methods) => {
            few(methods)?;
            Node::Method(methods.iter().map(|m| m.as_bytes().into()).collect())
        }
        Test::Path(path) => Node::Path(text(path)?),
        Test::PathPrefix(prefix) => Node::PathPrefix(text(prefix)?),
        Test::PathGlob(pattern) => Node::PathGlob(glob(pattern, false)?),
        Test::Host(pattern) => Node::Host(glob(pattern, true)?),
        Test::HeaderPresent(name) => Node::HeaderPresent(field_name(name)?),
        Test::HeaderEquals((name, value)) => Node::HeaderEquals(field_name(name)?, text(value)?),
        Test::HeaderPrefix((name, value)) => Node::HeaderPrefix(field_name(name)?, text(value)?),
        Test::HeaderContains((name, values)) => {
            few(values)?;
            let finders = values
                .iter()
                .map(|value| Finder::new(value.as_bytes()).into_owned())
                .collect();
            Node::HeaderContains(field_name(name)?, finders)
        }
        Test::Client(networks) => {
            few(networks)?;
            let networks: Result<_, _> = networks.iter().map(|text| network(text)).collect();
            Node::Client(networks?)
        }
        // Operators are the caller's; an empty conjunction is what they would be without operands.
        Test::All(_) | Test::Any(_) | Test::Negate => Node::All(Box::default()),
    })
}

fn field_name(name: &str) -> Result<Box<[u8]>, PredicateError> {
    if !is_token(name.as_bytes()) {
        return Err(PredicateError::FieldName(name.to_owned()));
    }
    Ok(name.to_ascii_lowercase().into_bytes().into())
}

/// CIDR, or one address.
fn network(text: &str) -> Result<IpNet, PredicateError> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| PredicateError::Network(text.to_owned()))
}

/// `prefix` ends at a segment boundary of `path`.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| {
        rest.is_empty() || rest[0] == b'/' || prefix.last().is_none_or(|&b| b == b'/')
    })
}

/// The host of an authority; brackets of IPv6 stay.
fn without_port(authority: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', authority) {
        Some(at) if !authority[at..].contains(&b']') => &authority[..at],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Version;
    use proptest::prelude::*;

    fn head(method: &str, authority: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut lines = Fields::default();
        for (name, value) in fields {
            lines.append(name.as_bytes(), value.as_bytes());
        }
        RequestHead::new(
            Version::Http11,
            method.as_bytes(),
            authority.as_bytes(),
            target.as_bytes(),
            lines,
        )
    }

    fn s(text: &str) -> String {
        text.to_owned()
    }

    fn holds(tests: &[Test], head: &RequestHead) -> bool {
        let subject = Subject {
            head: Some(head),
            client: "10.1.2.3".parse().unwrap(),
        };
        Predicate::compile(tests)
            .unwrap()
            .matches(&subject)
            .unwrap()
    }

    #[test]
    fn an_evaluation_takes_a_bounded_time() {
        // Each is as slow as a plan can make it; the head is one that listeners take by default.
        let path = format!("/{}", "a".repeat(16 * 1024 - 1));
        let value = "a".repeat(60 * 1024);
        let h = head("GET", "x", &path, &[("x", &value)]);
        let slow_glob = || Test::PathGlob(format!("*{}b", "a".repeat(4000)));
        let many = |test: Test, count: usize| {
            let mut tests = vec![test; count];
            tests.push(Test::Any(count as u32));
            tests
        };
        let needles = vec![format!("{}b", "a".repeat(100)); 4096];
        for tests in [
            vec![slow_glob()],
            many(slow_glob(), 500),
            many(Test::HeaderContains((s("x"), needles)), 8),
        ] {
            let subject = Subject {
                head: Some(&h),
                client: "10.1.2.3".parse().unwrap(),
            };
            let predicate = Predicate::compile(&tests).unwrap();
            assert_eq!(predicate.matches(&subject), Err(TooSlow));
        }
        // What a filter may well ask for is far from it.
        let sane = many(Test::PathGlob(s("/api/*/users/*/x")), 200);
        assert!(!holds(&sane, &h));
    }

    #[test]
    fn every_test_says_yes_and_no() {
        let h = head(
            "GET",
            "WWW.example.com:8080",
            "/api/v1?q=1",
            &[("user-agent", "curl/8.1"), ("x", "one"), ("x", "two")],
        );
        let cases: Vec<(Test, bool)> = vec![
            (Test::Method(vec![s("POST"), s("GET")]), true),
            (Test::Method(vec![s("get")]), false),
            (Test::Path(s("/api/v1")), true),
            (Test::Path(s("/api/v1?q=1")), false),
            (Test::PathPrefix(s("/api")), true),
            (Test::PathPrefix(s("/api/")), true),
            (Test::PathPrefix(s("/ap")), false),
            (Test::PathPrefix(s("/")), true),
            (Test::PathPrefix(s("/api/v1")), true),
            (Test::PathGlob(s("/*/v?")), true),
            (Test::PathGlob(s("/*/w?")), false),
            (Test::Host(s("*.Example.com")), true),
            (Test::Host(s("example.com")), false),
            (Test::HeaderPresent(s("User-Agent")), true),
            (Test::HeaderPresent(s("cookie")), false),
            (Test::HeaderEquals((s("x"), s("two"))), true),
            (Test::HeaderEquals((s("x"), s("tw"))), false),
            (Test::HeaderPrefix((s("x"), s("tw"))), true),
            (
                Test::HeaderContains((s("user-agent"), vec![s("wget"), s("url/")])),
                true,
            ),
            (Test::HeaderContains((s("user-agent"), vec![])), false),
            (
                Test::Client(vec![s("192.168.0.0/16"), s("10.0.0.0/8")]),
                true,
            ),
            (Test::Client(vec![s("10.1.2.4")]), false),
        ];
        for (test, expected) in cases {
            assert_eq!(holds(std::slice::from_ref(&test), &h), expected, "{test:?}");
            assert_eq!(holds(&[test.clone(), Test::Negate], &h), !expected);
        }
        assert!(holds(&[], &h));
    }

    #[test]
    fn operators_take_their_operands() {
        let h = head("GET", "a", "/x", &[]);
        let yes = || Test::Path(s("/x"));
        let no = || Test::Path(s("/y"));
        assert!(holds(&[yes(), yes(), Test::All(2)], &h));
        assert!(!holds(&[yes(), no(), Test::All(2)], &h));
        assert!(holds(&[no(), yes(), Test::Any(2)], &h));
        assert!(holds(&[Test::All(0)], &h));
        assert!(!holds(&[Test::Any(0)], &h));
        assert!(holds(
            &[
                no(),
                yes(),
                no(),
                Test::Any(2),
                no(),
                Test::Negate,
                Test::All(2),
                Test::Any(2)
            ],
            &h
        ));
    }

    #[test]
    fn streams_have_no_head() {
        let subject = Subject {
            head: None,
            client: "::1".parse().unwrap(),
        };
        let path = Predicate::compile(&[Test::PathPrefix(s("/"))]).unwrap();
        assert_eq!(path.matches(&subject), Ok(false));
        let client = Predicate::compile(&[Test::Client(vec![s("::/0")])]).unwrap();
        assert_eq!(client.matches(&subject), Ok(true));
    }

    #[test]
    fn mistakes_are_named() {
        use PredicateError as E;
        let check = |tests: &[Test]| Predicate::compile(tests).unwrap_err();
        let yes = || Test::Path(s("/"));
        assert_eq!(check(&[yes(), yes()]), E::Leftover(2));
        assert_eq!(
            check(&[yes(), Test::All(2)]),
            E::Underflow {
                at: 1,
                wants: 2,
                has: 1
            }
        );
        assert_eq!(
            check(&[Test::Negate]),
            E::Underflow {
                at: 0,
                wants: 1,
                has: 0
            }
        );
        assert_eq!(
            check(&[Test::Any(u32::MAX)]),
            E::Underflow {
                at: 0,
                wants: u32::MAX as usize,
                has: 0
            }
        );
        assert_eq!(
            check(&[Test::Client(vec![s("10.0.0.0/33")])]),
            E::Network(s("10.0.0.0/33"))
        );
        assert_eq!(
            check(&[Test::HeaderPresent(s("a b"))]),
            E::FieldName(s("a b"))
        );
        assert_eq!(check(&vec![yes(); 1025]), E::TooManyNodes(1025));
        let mut deep = vec![yes()];
        deep.extend(std::iter::repeat_n(Test::Negate, 100));
        assert_eq!(check(&deep), E::TooDeep);
        assert_eq!(check(&[Test::Path("x".repeat(9000))]), E::TooLarge(0));
    }

    fn any_test() -> impl Strategy<Value = Test> {
        prop_oneof![
            "[a-z/*?]{0,6}".prop_map(Test::PathGlob),
            "[a-z/]{0,4}".prop_map(Test::PathPrefix),
            "[A-Za-z ]{0,4}".prop_map(Test::HeaderPresent),
            proptest::collection::vec("[0-9./]{0,10}", 0..2).prop_map(Test::Client),
            (0u32..4).prop_map(Test::All),
            (0u32..4).prop_map(Test::Any),
            Just(Test::Negate),
        ]
    }

    proptest! {
        #[test]
        fn arbitrary_nodes_never_panic(tests in proptest::collection::vec(any_test(), 0..12), path in "/[a-z/]{0,6}") {
            if let Ok(predicate) = Predicate::compile(&tests) {
                let head = head("GET", "h", &path, &[("a", "b")]);
                let _ = predicate.matches(&Subject { head: Some(&head), client: "10.0.0.1".parse().unwrap() });
            }
        }
    }
}
