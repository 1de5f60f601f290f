//! One request or connection through a generation, told step by step: what each filter makes of it, and where it would
//! go. Nothing is sent and no socket is opened; what decides is the code that serves.
//!
//! Each filter is a chain of its own here, so that heads can be compared before and after it. Health is not known: no
//! endpoint was checked, and every one counts as up.
//!
//! Must not know: sockets, where the configuration came from.

mod arrival;
mod choose;
mod compare;
mod effects;
mod request;
mod route;
mod session;
mod text;
mod walk;

pub use choose::{Choice, Scheme, Url, choose};
pub use request::explain_request;
pub use session::explain_session;

use std::net::SocketAddr;

use serde::Serialize;

/// What is asked about, besides the listener that takes it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub url: Url,
    /// Field lines as they are sent, in order.
    pub fields: Vec<(String, String)>,
    /// Who opens the connection.
    pub client: SocketAddr,
    /// The server name of the TLS handshake; for HTTP the URL's host stands in.
    pub sni: Option<String>,
    /// What a client of a `tcp` listener sends first.
    pub first_bytes: Option<Vec<u8>>,
}

/// What would happen. Serialised, it is the output for programs: names and values are stable.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub listener: ListenerTold,
    /// The connection's other end, `address:port`.
    pub peer: String,
    /// The client's address after the rules on trusted proxies.
    pub client: String,
    /// In the order in which they happen.
    pub steps: Vec<Step>,
    /// None when something ended it before a pool was looked for.
    pub route: Option<RouteTold>,
    pub outcome: Outcome,
    /// Filters that will see the response, in their order, and those told of the end.
    pub later: Later,
    /// What is assumed because nothing is asked of the network or of a running server.
    pub assumed: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ListenerTold {
    pub name: String,
    /// The address that takes the connection.
    pub address: String,
    /// `http` or `tcp`.
    pub protocol: &'static str,
    pub tls: bool,
}

/// Something that was done, by a filter or by the proxy itself.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// `receive` and `forward` are the proxy's; `request`, `response`, `connect`, `client-hello` and `first-bytes` are
    /// phases of filters.
    pub phase: &'static str,
    /// None: the proxy itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why it was not called, or what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    NotCalled,
    Next,
    Reply,
    Drop,
    Reset,
    /// It waits for effects, which are not performed here: what it would say then is not known.
    Suspend,
    /// It failed, and the exchange with it.
    Fault,
    /// It failed, and `on-error: bypass` goes on without it.
    FaultBypassed,
}

/// A difference between before and after a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub change: Kind,
    /// `field`, `method`, `scheme`, `target`, `authority`, `status`, or a part of the route: `pool`, `sticky-key`, `endpoint`,
    /// `try-timeout`, `total-timeout`, `retries`.
    pub what: &'static str,
    /// Of a field, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A field may have several lines.
    pub old: Vec<String>,
    pub new: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Add,
    Set,
    Remove,
}

/// Where it goes.
#[derive(Debug, Clone, Serialize)]
pub struct RouteTold {
    pub pool: String,
    /// The filter that chose the pool; none: the listener's `pool`.
    pub chosen_by: Option<String>,
    /// `address:port`; none when it cannot be told.
    pub endpoint: Option<String>,
    pub rule: Rule,
    /// The rule in words, with who asked for it.
    pub because: String,
    /// How many endpoints get new traffic.
    pub of: usize,
}

/// What decides which endpoint it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A filter named it.
    Hint,
    /// A filter's key.
    StickyKey,
    /// `balance: hash` without a key.
    ClientHash,
    OnlyEndpoint,
    RoundRobin,
    Random,
    LeastRequest,
    /// Endpoints by name, which are not looked up here.
    Unresolved,
    /// No endpoint may be used.
    NoEndpoint,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// The request goes to the endpoint like this.
    Forward { request: Message },
    /// The connection is relayed to the endpoint.
    Relay,
    /// The client gets this; `by` is a filter, none is the proxy itself.
    Reply {
        by: Option<String>,
        reason: &'static str,
        response: Message,
    },
    /// The connection is closed without a byte.
    Drop {
        by: Option<String>,
        reason: &'static str,
    },
    /// The connection is reset.
    Reset {
        by: Option<String>,
        reason: &'static str,
    },
    /// A filter waits for these effects; what comes of it depends on them.
    Suspend { by: String, effects: Vec<String> },
}

/// A message as it goes over the wire.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Message {
    pub start: String,
    pub fields: Vec<(String, String)>,
    /// Of a reply, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Later {
    /// Filters that want the body of the request, if it has one.
    pub request_body: Vec<String>,
    pub response: Vec<String>,
    /// Those that want the body of the response.
    pub response_body: Vec<String>,
    pub log: Vec<String>,
}
