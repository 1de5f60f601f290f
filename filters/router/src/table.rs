//! Ten thousand rules, looked up by hashing host and path.

use std::collections::HashMap;

use sluicegate_sdk::{Glob, Request, Text};

use crate::condition::Condition;

/// Longer hosts are no DNS names (RFC 1035 §2.3.4): they match wildcard-free rules without host only.
const HOST_MAX: usize = 255;

/// The rules, indexed. A rule is a number; what it does is kept elsewhere.
#[derive(Debug, Default)]
pub struct Table {
    exact: HashMap<Box<[u8]>, Paths>,
    /// Hosts `*.example.org`, by what stands behind the `*`.
    suffixes: HashMap<Box<[u8]>, Paths>,
    /// Other globs, those with the most literal bytes first.
    globs: Vec<(Glob, String, Paths)>,
    anywhere: Paths,
}

/// The rules of one host.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<[u8]>, Vec<Entry>>,
    prefixes: HashMap<Box<[u8]>, Vec<Entry>>,
    /// The lengths of the prefixes, longest first: only these are hashed.
    lengths: Vec<usize>,
    globs: Vec<(Glob, String, Vec<Entry>)>,
    any: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    rule: usize,
    conditions: Vec<Condition>,
}

/// Whether a rule, by its number, has something to do with the request at hand.
pub type Applies<'a> = &'a dyn Fn(usize) -> bool;

/// How a rule wants the path.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Glob(&'a str),
    Any,
}

impl Table {
    /// Adds a rule; of equally specific ones the one added first wins.
    pub fn add(
        &mut self,
        rule: usize,
        host: Option<&str>,
        path: Path<'_>,
        conditions: Vec<Condition>,
    ) {
        let entry = Entry { rule, conditions };
        let Some(host) = host else {
            return self.anywhere.add(path, entry);
        };
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let literal = |text: &str| !text.contains(['*', '?', '\\']);
        let paths = match host.strip_prefix('*') {
            _ if literal(host) => self.exact.entry(host.as_bytes().into()).or_default(),
            Some(suffix) if suffix.starts_with('.') && literal(suffix) => {
                self.suffixes.entry(suffix.as_bytes().into()).or_default()
            }
            _ => glob_entry(&mut self.globs, host),
        };
        paths.add(path, entry);
    }

    /// The most specific rule for `request` that has something to do with it.
    pub fn find(&self, request: &Request<'_>, applies: Applies<'_>) -> Option<usize> {
        let mut buffer = [0; HOST_MAX];
        let host = lower(request.host(), &mut buffer);
        if let Some(host) = host {
            let exact = self.exact.get(host);
            if let Some(rule) = exact.and_then(|paths| paths.find(request, applies)) {
                return Some(rule);
            }
            if let Some(rule) = self.find_wildcard(host, request, applies) {
                return Some(rule);
            }
        }
        self.anywhere.find(request, applies)
    }

    /// Wildcards in the order of their literal bytes, most first; suffixes before other globs of the same length.
    fn find_wildcard(
        &self,
        host: &[u8],
        request: &Request<'_>,
        applies: Applies<'_>,
    ) -> Option<usize> {
        let mut globs = self.globs.iter().peekable();
        let mut globs_above = |len: usize| {
            while let Some((glob, _, paths)) = globs.next_if(|(g, ..)| g.literal_len() > len) {
                if glob.matches(host)
                    && let Some(rule) = paths.find(request, applies)
                {
                    return Some(rule);
                }
            }
            None
        };
        if !self.suffixes.is_empty() {
            for (at, _) in host.iter().enumerate().filter(|(_, b)| **b == b'.') {
                let Some(paths) = self.suffixes.get(&host[at..]) else {
                    continue;
                };
                if let Some(rule) =
                    globs_above(host.len() - at).or_else(|| paths.find(request, applies))
                {
                    return Some(rule);
                }
            }
        }
        for (glob, _, paths) in globs {
            if glob.matches(host)
                && let Some(rule) = paths.find(request, applies)
            {
                return Some(rule);
            }
        }
        None
    }
}

impl Paths {
    fn add(&mut self, path: Path<'_>, entry: Entry) {
        let entries = match path {
            Path::Exact(path) => self.exact.entry(path.as_bytes().into()).or_default(),
            Path::Prefix(prefix) => {
                if let Err(at) = self.lengths.binary_search_by(|len| prefix.len().cmp(len)) {
                    self.lengths.insert(at, prefix.len());
                }
                self.prefixes.entry(prefix.as_bytes().into()).or_default()
            }
            Path::Glob(glob) => glob_entry(&mut self.globs, glob),
            Path::Any => &mut self.any,
        };
        // Stays sorted by the number of conditions; what was there first stays first.
        let at = entries.partition_point(|e| e.conditions.len() >= entry.conditions.len());
        entries.insert(at, entry);
    }

    fn find(&self, request: &Request<'_>, applies: Applies<'_>) -> Option<usize> {
        let path = request.path().as_bytes();
        let exact = self
            .exact
            .get(path)
            .and_then(|e| first(e, request, applies));
        exact
            .or_else(|| self.find_prefix(path, request, applies))
            .or_else(|| {
                let mut matching = self.globs.iter().filter(|(glob, ..)| glob.matches(path));
                matching.find_map(|(_, _, entries)| first(entries, request, applies))
            })
            .or_else(|| first(&self.any, request, applies))
    }

    fn find_prefix(
        &self,
        path: &[u8],
        request: &Request<'_>,
        applies: Applies<'_>,
    ) -> Option<usize> {
        let fitting = self.lengths.partition_point(|len| *len > path.len());
        self.lengths[fitting..]
            .iter()
            .filter(|len| at_boundary(path, **len))
            .filter_map(|len| self.prefixes.get(&path[..*len]))
            .find_map(|entries| first(entries, request, applies))
    }
}

/// Whether `path[..len]` ends where a segment does.
fn at_boundary(path: &[u8], len: usize) -> bool {
    len == path.len() || path[len] == b'/' || len.checked_sub(1).is_some_and(|at| path[at] == b'/')
}

fn first(entries: &[Entry], request: &Request<'_>, applies: Applies<'_>) -> Option<usize> {
    entries
        .iter()
        .find(|entry| entry.conditions.iter().all(|c| c.holds(request)) && applies(entry.rule))
        .map(|entry| entry.rule)
}

/// What is kept for this glob, in a list ordered by literal bytes, most first.
fn glob_entry<'a, T: Default>(list: &'a mut Vec<(Glob, String, T)>, text: &str) -> &'a mut T {
    let at = match list.iter().position(|(_, known, _)| known == text) {
        Some(at) => at,
        None => {
            let glob = Glob::new(text);
            let at = list.partition_point(|(g, ..)| g.literal_len() >= glob.literal_len());
            list.insert(at, (glob, text.to_owned(), T::default()));
            at
        }
    };
    &mut list[at].2
}

/// The host in lower case, without the dot of an absolute name.
fn lower<'b>(host: Text<'_>, buffer: &'b mut [u8; HOST_MAX]) -> Option<&'b [u8]> {
    let host = host.as_bytes();
    let host = host.strip_suffix(b".").unwrap_or(host);
    let buffer = buffer.get_mut(..host.len())?;
    buffer.copy_from_slice(host);
    buffer.make_ascii_lowercase();
    Some(buffer)
}
