//! The settings as they are written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sluicegate_sdk::schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use sluicegate_sdk::serde::{Deserialize, Deserializer};
use sluicegate_sdk::settings::{Duration, OneOrMany, text_or_map};

/// Settings of `builtin:router`.
#[sluicegate_sdk::settings]
pub struct Settings {
    /// The most specific rule that matches wins: exact host over wildcard over none, then exact path over the longest
    /// prefix over a glob, then the number of further conditions, then the order here.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What happens to a request that no rule matches; without it, it goes to the listener's pool.
    pub default: Option<Action>,
}

/// A rule: what it matches and what it does. One that says only what it matches leaves those requests to the listener's
/// pool.
#[sluicegate_sdk::settings]
pub struct Rule {
    /// Which requests; all of them when left out.
    #[serde(default)]
    pub r#match: Match,
    /// The pool to send them to; the listener's when left out.
    pub pool: Option<String>,
    /// Several pools that share the requests by weight.
    #[serde(default)]
    pub pools: Vec<Share>,
    /// Changes the path on the way to the pool.
    pub rewrite: Option<Rewrite>,
    /// The host that the upstream sees.
    pub host: Option<String>,
    /// Answers with a redirect instead.
    pub redirect: Option<Redirect>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Tries after the first, at most.
    pub retries: Option<u32>,
}

/// What to do when no rule matches.
#[sluicegate_sdk::settings]
pub struct Action {
    /// The pool to send the request to.
    pub pool: Option<String>,
    /// Several pools that share the requests by weight.
    #[serde(default)]
    pub pools: Vec<Share>,
    /// Changes the path on the way to the pool.
    pub rewrite: Option<Rewrite>,
    /// The host that the upstream sees.
    pub host: Option<String>,
    /// Answers with a redirect instead.
    pub redirect: Option<Redirect>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Tries after the first, at most.
    pub retries: Option<u32>,
}

/// Conditions; all of them must hold.
#[sluicegate_sdk::settings]
#[derive(Default)]
pub struct Match {
    /// Host without port, ignoring case; a glob such as `*.example.org` is a wildcard.
    pub host: Option<String>,
    /// The path equals this.
    pub path: Option<String>,
    /// The path starts with this at a segment boundary: `/api` matches `/api` and `/api/x`, not `/apix`.
    pub path_prefix: Option<String>,
    /// The path matches this glob: `*` any run of characters, `?` one, `\` quotes the next.
    pub path_glob: Option<String>,
    /// One method, or several.
    pub method: Option<OneOrMany>,
    /// Headers by name: some line passes the test.
    #[serde(default)]
    pub headers: BTreeMap<String, ValueTest>,
    /// Parameters of the query by name, decoded: some parameter of the name passes the test.
    #[serde(default)]
    pub query: BTreeMap<String, ValueTest>,
}

/// A test of a header or parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueTest {
    Equals(String),
    Long(LongTest),
}

/// A test other than plain equality.
#[sluicegate_sdk::settings]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LongTest {
    /// Is there, or with `false` is not there.
    Present(bool),
    /// Equals this.
    Equals(String),
    /// Starts with this.
    Prefix(String),
    /// Contains this.
    Contains(String),
    /// Matches this glob.
    Glob(String),
}

/// A pool and its share.
#[sluicegate_sdk::settings]
pub struct Share {
    /// The pool.
    pub name: String,
    /// Its share of the requests among all weights; 0 sends it none.
    #[serde(default = "one")]
    pub weight: u32,
}

/// A change of the path; the query stays.
#[sluicegate_sdk::settings]
pub enum Rewrite {
    /// This path instead.
    Path(String),
    /// This instead of the part that `path-prefix` matched.
    Prefix(String),
}

/// A redirect: to `location`, or to the request's own URL with parts replaced. A request that is there already is not
/// redirected again: the rule does not match it.
#[sluicegate_sdk::settings]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    pub status: u16,
    /// The whole URL.
    pub location: Option<String>,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host without port.
    pub host: Option<String>,
    /// Port; when left out the request's, or the scheme's own if `scheme` or `host` is given.
    pub port: Option<u16>,
    /// This path instead.
    pub path: Option<String>,
    /// This instead of the part that `path-prefix` matched.
    pub prefix: Option<String>,
}

/// How long things may take.
#[sluicegate_sdk::settings]
#[derive(Default)]
pub struct Timeouts {
    /// One try.
    pub r#try: Option<Duration>,
    /// The exchange with all its tries.
    pub total: Option<Duration>,
}

impl From<Rule> for (Match, Action) {
    fn from(rule: Rule) -> Self {
        let action = Action {
            pool: rule.pool,
            pools: rule.pools,
            rewrite: rule.rewrite,
            host: rule.host,
            redirect: rule.redirect,
            timeouts: rule.timeouts,
            retries: rule.retries,
        };
        (rule.r#match, action)
    }
}

impl<'de> Deserialize<'de> for ValueTest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_map(
            deserializer,
            "a value or a map with `present`, `equals`, `prefix`, `contains` or `glob`",
            |text| Ok(Self::Equals(text.to_owned())),
            Self::Long,
        )
    }
}

impl JsonSchema for ValueTest {
    fn schema_name() -> Cow<'static, str> {
        "ValueTest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<LongTest>();
        json_schema!({
            "anyOf": [
                {"type": "string", "description": "Equals this."},
                long,
            ],
        })
    }
}

fn one() -> u32 {
    1
}

fn found() -> u16 {
    302
}
