//! Settings in, plan out: what a filter tells the host before the first exchange.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::predicate::{Match, Test};
use crate::verdict::{CalledPool, Pool};

/// A phase of an exchange or a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Request,
    Response,
    Log,
    Connect,
    ClientHello,
    FirstBytes,
    RequestBody,
    ResponseBody,
    RequestTrailers,
    ResponseTrailers,
    ClientData,
    ServerData,
    Tick,
}

/// A set of phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases(u16);

impl Phases {
    pub const NONE: Self = Self(0);

    #[must_use]
    pub const fn with(self, phase: Phase) -> Self {
        Self(self.0 | 1 << phase as u8)
    }

    #[must_use]
    pub const fn without(self, phase: Phase) -> Self {
        Self(self.0 & !(1 << phase as u8))
    }

    pub const fn contains(self, phase: Phase) -> bool {
        self.0 & 1 << phase as u8 != 0
    }

    /// The bits in the order of the contract's flags.
    pub const fn bits(self) -> u16 {
        self.0
    }
}

const AUTHORS: &str = "this is a mistake in the filter; tell its author";

/// Which fields a phase is shown. Fewer is faster: each field shown is copied into the filter's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    None,
    /// Only these names, in lower case.
    Some(Vec<String>),
    All,
}

impl Interest {
    /// Only these names.
    pub fn some<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Self {
        let mut lower: Vec<String> = names
            .into_iter()
            .map(|name| name.as_ref().to_ascii_lowercase())
            .collect();
        lower.sort();
        lower.dedup();
        if lower.is_empty() {
            return Self::None;
        }
        Self::Some(lower)
    }
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// JSON pointer to the setting, relative to the settings.
    pub path: String,
    pub message: String,
    /// What to write instead, if that can be said.
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn new(path: impl Into<Pointer>, message: impl Into<String>) -> Self {
        Self {
            path: path.into().0,
            message: message.into(),
            help: None,
        }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Why a filter refuses its settings. `?` turns one [`Diagnostic`] into it; [`Setup::problem`] collects several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self(diagnostics)
    }
}

/// A JSON pointer (RFC 6901) into the settings. A `&str` that starts with `/` is one as it stands.
///
/// ```
/// use sluicegate_sdk::Pointer;
///
/// let rule = Pointer::root().key("rules").index(3);
/// assert_eq!(rule.key("a/b").as_str(), "/rules/3/a~1b");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pointer(String);

impl Pointer {
    /// The settings as a whole.
    pub fn root() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.0.clone();
        path.push('/');
        for c in key.chars() {
            match c {
                '~' => path.push_str("~0"),
                '/' => path.push_str("~1"),
                c => path.push(c),
            }
        }
        Self(path)
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.0.clone();
        // Writing to a String cannot fail.
        let _ = write!(path, "/{index}");
        Self(path)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Pointer {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl From<String> for Pointer {
    fn from(path: String) -> Self {
        Self(path)
    }
}

impl From<&Pointer> for Pointer {
    fn from(path: &Pointer) -> Self {
        path.clone()
    }
}

/// A pool the filter may route to, with the setting that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    pub name: String,
    pub path: String,
    /// The filter calls it itself.
    pub called: bool,
}

/// A fact that phases are shown beside the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fact {
    Method,
    Scheme,
    Authority,
    Path,
    Query,
    ClientAddress,
    PeerAddress,
    LocalAddress,
    Listener,
    RequestId,
    Sni,
    Alpn,
    TlsVersion,
    ClientSubject,
    Endpoint,
    Pool,
    Protocol,
    Reason,
    FirstBytes,
    OfferedAlpn,
}

/// A set of facts. Fewer is faster: each is copied into the filter's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts(u32);

impl Facts {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self((1 << 20) - 1);

    #[must_use]
    pub const fn with(self, fact: Fact) -> Self {
        Self(self.0 | 1 << fact as u32)
    }

    pub const fn contains(self, fact: Fact) -> bool {
        self.0 & 1 << fact as u32 != 0
    }

    /// The bits in the order of the contract's flags.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromIterator<Fact> for Facts {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        facts.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What becomes of a body that is larger than the filter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OverCap {
    /// A fault: the filter's failure policy applies.
    Fail,
    /// The body passes without the filter.
    Bypass,
    /// A request is answered with 413, a response becomes a 502.
    Refuse,
}

/// How a body is given to its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyMode {
    /// Not at all.
    Skip,
    /// Its first bytes in one call, so many at most, up to 1 MiB; the rest passes. The head waits for the answer.
    First(u32),
    /// All of it in one call, at most `max` bytes, up to 64 MiB. The head waits for the answer.
    Whole { max: u32, over: OverCap },
    /// Piece by piece as it passes, to be looked at.
    Watch,
    /// Piece by piece as it passes, each to be replaced. The length is not known beforehand any more.
    Transform,
}

/// What the host will do for this filter. [`Setup`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub phases: Phases,
    /// Postfix; no nodes means every exchange.
    pub matches: Vec<Test>,
    pub request_fields: Interest,
    pub response_fields: Interest,
    pub pools: Vec<PoolUse>,
    pub first_bytes: u32,
    pub facts: Facts,
    pub request_body: BodyMode,
    pub response_body: BodyMode,
    /// Effects it may ask for, each granted by the configuration.
    pub effects: Effects,
    /// 0 when there are no ticks.
    pub tick_ms: u32,
}

/// Effects that have to be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    pub http_call: bool,
    pub key_value: bool,
}

/// Given to [`Filter::configure`](crate::Filter::configure) to narrow what the host does for the filter. Left alone,
/// the filter is called in every phase it implements, for every exchange, and is shown every field.
#[derive(Debug)]
pub struct Setup {
    plan: Plan,
    /// The plan's pools by name: rules by the thousand name a few.
    pools: HashMap<String, u32>,
    problems: Vec<Diagnostic>,
    /// What the filter implements.
    phases: Phases,
    /// Phases of which was said how they are called.
    said: Phases,
}

impl Setup {
    pub(crate) fn new(phases: Phases) -> Self {
        Self {
            plan: Plan {
                phases,
                matches: Vec::new(),
                request_fields: Interest::All,
                response_fields: Interest::All,
                pools: Vec::new(),
                first_bytes: 0,
                facts: Facts::ALL,
                request_body: BodyMode::Skip,
                response_body: BodyMode::Skip,
                effects: Effects::default(),
                tick_ms: 0,
            },
            pools: HashMap::new(),
            problems: Vec::new(),
            phases,
            said: Phases::NONE,
        }
    }

    /// Do not call the filter in this phase with these settings.
    pub fn skip(&mut self, phase: Phase) {
        self.plan.phases = self.plan.phases.without(phase);
    }

    /// Call the filter only for exchanges that match.
    pub fn only_when(&mut self, matches: Match) {
        self.plan.matches = matches.nodes();
    }

    /// Show the request phase these fields.
    pub fn request_fields(&mut self, interest: Interest) {
        self.plan.request_fields = interest;
    }

    /// Show the response phase these fields.
    pub fn response_fields(&mut self, interest: Interest) {
        self.plan.response_fields = interest;
    }

    /// Declares a pool to route to. `path` points at the setting that names it, so that the load can say where an
    /// unknown pool was written; of several settings that name the same pool that is the first.
    pub fn pool(&mut self, name: &str, path: impl Into<Pointer>) -> Pool {
        if let Some(&index) = self.pools.get(name) {
            return Pool(index);
        }
        let index = self.plan.pools.len() as u32;
        self.pools.insert(name.to_owned(), index);
        self.plan.pools.push(PoolUse {
            name: name.to_owned(),
            path: path.into().0,
            called: false,
        });
        Pool(index)
    }

    /// Declares a pool that the filter calls itself, by [`http::call`](crate::http::call), and announces that to the
    /// proxy: the YAML has to grant `{http-call: [NAME]}`. `path` points at the setting that names it.
    pub fn called_pool(&mut self, name: &str, path: impl Into<Pointer>) -> CalledPool {
        let Pool(index) = self.pool(name, path);
        if let Some(declared) = self.plan.pools.get_mut(index as usize) {
            declared.called = true;
        }
        self.plan.effects.http_call = true;
        CalledPool(index)
    }

    /// Announces that the filter uses the [`store`](crate::store): the YAML has to grant `key-value`.
    pub fn uses_store(&mut self) {
        self.plan.effects.key_value = true;
    }

    /// Show the phases these facts; the views answer nothing for the others.
    pub fn facts(&mut self, facts: impl IntoIterator<Item = Fact>) {
        self.plan.facts = facts.into_iter().collect();
    }

    /// Show [`request_body`](crate::Filter::request_body) the bodies of requests in this way.
    pub fn request_body(&mut self, mode: BodyMode) {
        self.plan.request_body = mode;
        self.said = self.said.with(Phase::RequestBody);
    }

    /// Show [`response_body`](crate::Filter::response_body) the bodies of responses in this way.
    pub fn response_body(&mut self, mode: BodyMode) {
        self.plan.response_body = mode;
        self.said = self.said.with(Phase::ResponseBody);
    }

    /// Streams: wait for so many first bytes, at most 16384.
    pub fn first_bytes(&mut self, bytes: u32) {
        self.plan.first_bytes = bytes.min(16384);
    }

    /// Call [`tick`](crate::Filter::tick) at once and then at this interval, on one worker of the proxy. 100 ms at least, and a shorter one
    /// is made so long; needs the capability `tick` in the YAML.
    pub fn every(&mut self, interval: std::time::Duration) {
        let ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        self.plan.tick_ms = ms.max(100);
        self.said = self.said.with(Phase::Tick);
    }

    /// Notes a mistake and goes on, so that all of them are reported at once. With any of them the settings are
    /// refused, whatever `configure` returns.
    pub fn problem(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// The plan, and what is wrong with it.
    pub(crate) fn finish(mut self) -> (Plan, Vec<Diagnostic>) {
        for (phase, method, setup) in [
            (Phase::RequestBody, "request_body", "request_body"),
            (Phase::ResponseBody, "response_body", "response_body"),
            (Phase::Tick, "tick", "every"),
        ] {
            let (has, said) = (self.phases.contains(phase), self.said.contains(phase));
            let wants = match phase {
                Phase::RequestBody => self.plan.request_body != BodyMode::Skip,
                Phase::ResponseBody => self.plan.response_body != BodyMode::Skip,
                _ => said,
            };
            if !has && wants {
                let message =
                    format!("`Setup::{setup}` was called, and the filter has no `{method}`");
                self.problems
                    .push(Diagnostic::new("", message).help(AUTHORS));
            } else if self.plan.phases.contains(phase) && !said {
                let message = format!(
                    "the filter has `{method}`, and `configure` calls neither `Setup::{setup}` nor `Setup::skip` for it"
                );
                self.problems
                    .push(Diagnostic::new("", message).help(AUTHORS));
            }
        }
        (self.plan, self.problems)
    }
}
