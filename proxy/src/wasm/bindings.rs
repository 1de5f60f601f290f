//! The records of `wit/filter.wit` as wasmtime lowers and lifts them. All generated code of the room is here.
#![allow(unsafe_code)]
// SAFETY: the only unsafe code is what wasmtime's derives expand to: implementations of its unsafe traits whose layout
// the macros compute from the very types below. Whether a guest's types are these is checked when a function is
// looked up.

use serde::{Deserialize, Deserializer};
use wasmtime::component::{ComponentType, Lift, Lower, flags};

// ---------------------------------------------------------------- configuration

/// What a filter finds wrong with its settings.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[component(record)]
pub struct Diagnostic {
    /// JSON pointer relative to the settings.
    pub path: String,
    pub message: String,
    pub help: Option<String>,
}

// Phases a plan asks for.
flags! {
    Phases {
        #[component(name = "request")]
        const REQUEST;
        #[component(name = "response")]
        const RESPONSE;
        #[component(name = "log")]
        const LOG;
        #[component(name = "connect")]
        const CONNECT;
        #[component(name = "client-hello")]
        const CLIENT_HELLO;
        #[component(name = "first-bytes")]
        const FIRST_BYTES;
        #[component(name = "request-body")]
        const REQUEST_BODY;
        #[component(name = "response-body")]
        const RESPONSE_BODY;
        #[component(name = "request-trailers")]
        const REQUEST_TRAILERS;
        #[component(name = "response-trailers")]
        const RESPONSE_TRAILERS;
        #[component(name = "client-data")]
        const CLIENT_DATA;
        #[component(name = "server-data")]
        const SERVER_DATA;
        #[component(name = "tick")]
        const TICK;
    }
}

// Facts a plan asks for, in the order of their slots.
flags! {
    FactSet {
        #[component(name = "method")]
        const METHOD;
        #[component(name = "scheme")]
        const SCHEME;
        #[component(name = "authority")]
        const AUTHORITY;
        #[component(name = "path")]
        const PATH;
        #[component(name = "query")]
        const QUERY;
        #[component(name = "client-address")]
        const CLIENT_ADDRESS;
        #[component(name = "peer-address")]
        const PEER_ADDRESS;
        #[component(name = "local-address")]
        const LOCAL_ADDRESS;
        #[component(name = "listener")]
        const LISTENER;
        #[component(name = "request-id")]
        const REQUEST_ID;
        #[component(name = "sni")]
        const SNI;
        #[component(name = "alpn")]
        const ALPN;
        #[component(name = "tls-version")]
        const TLS_VERSION;
        #[component(name = "client-subject")]
        const CLIENT_SUBJECT;
        #[component(name = "endpoint")]
        const ENDPOINT;
        #[component(name = "pool")]
        const POOL;
        #[component(name = "protocol")]
        const PROTOCOL;
        #[component(name = "reason")]
        const REASON;
        #[component(name = "first-bytes")]
        const FIRST_BYTES;
        #[component(name = "offered-alpn")]
        const OFFERED_ALPN;
    }
}

// Effects a plan announces.
flags! {
    Effects {
        #[component(name = "http-call")]
        const HTTP_CALL;
        #[component(name = "key-value")]
        const KEY_VALUE;
    }
}

/// What becomes of a body that is larger than the filter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[component(enum)]
#[repr(u8)]
pub enum OverCap {
    #[component(name = "fail")]
    Fail,
    #[component(name = "bypass")]
    Bypass,
    #[component(name = "refuse")]
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[component(record)]
pub struct WholeBody {
    pub max: u32,
    pub over: OverCap,
}

/// How a body is given to its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[component(variant)]
pub enum BodyMode {
    #[component(name = "skip")]
    Skip,
    #[component(name = "first")]
    First(u32),
    #[component(name = "whole")]
    Whole(WholeBody),
    #[component(name = "watch")]
    Watch,
    #[component(name = "transform")]
    Transform,
}

impl BodyMode {
    /// The head of the message waits for what the body's phase answers.
    pub fn holds_head(self) -> bool {
        matches!(self, BodyMode::First(_) | BodyMode::Whole(_))
    }
}

/// One node of a predicate, in postfix order; see filter.wit.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[component(variant)]
pub enum Test {
    #[component(name = "method")]
    Method(Vec<String>),
    #[component(name = "path")]
    Path(String),
    #[component(name = "path-prefix")]
    PathPrefix(String),
    #[component(name = "path-glob")]
    PathGlob(String),
    #[component(name = "host")]
    Host(String),
    #[component(name = "header-present")]
    HeaderPresent(String),
    #[component(name = "header-equals")]
    HeaderEquals((String, String)),
    #[component(name = "header-prefix")]
    HeaderPrefix((String, String)),
    #[component(name = "header-contains")]
    HeaderContains((String, Vec<String>)),
    #[component(name = "client")]
    Client(Vec<String>),
    #[component(name = "all")]
    All(u32),
    #[component(name = "any")]
    Any(u32),
    #[component(name = "negate")]
    Negate,
}

#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[component(variant)]
pub enum Interest {
    #[component(name = "none")]
    None,
    #[component(name = "some")]
    Some(Vec<String>),
    #[component(name = "all")]
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[component(record)]
pub struct PoolUse {
    pub name: String,
    pub path: String,
    /// The filter calls it itself.
    pub called: bool,
}

/// What a filter answers to its settings, as it answered: nothing in it is checked.
#[derive(Debug, Clone, PartialEq, ComponentType, Lift, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[component(record)]
pub struct Plan {
    pub phases: Phases,
    #[component(name = "match")]
    #[serde(rename = "match")]
    pub matching: Vec<Test>,
    #[component(name = "request-fields")]
    pub request_fields: Interest,
    #[component(name = "response-fields")]
    pub response_fields: Interest,
    pub pools: Vec<PoolUse>,
    #[component(name = "first-bytes")]
    pub first_bytes: u32,
    pub facts: FactSet,
    #[component(name = "request-body")]
    pub request_body: BodyMode,
    #[component(name = "response-body")]
    pub response_body: BodyMode,
    pub effects: Effects,
    #[component(name = "tick-ms")]
    pub tick_ms: u32,
}

/// Reads flags as the list of their names.
macro_rules! named {
    ($flags:ident { $($name:literal => $flag:ident,)* }) => {
        impl<'de> Deserialize<'de> for $flags {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut flags = $flags::empty();
                for name in Vec::<&str>::deserialize(deserializer)? {
                    flags |= match name {
                        $($name => $flags::$flag,)*
                        other => {
                            return Err(serde::de::Error::unknown_variant(other, &[$($name),*]));
                        }
                    };
                }
                Ok(flags)
            }
        }
    };
}

named!(Phases {
    "request" => REQUEST,
    "response" => RESPONSE,
    "log" => LOG,
    "connect" => CONNECT,
    "client-hello" => CLIENT_HELLO,
    "first-bytes" => FIRST_BYTES,
    "request-body" => REQUEST_BODY,
    "response-body" => RESPONSE_BODY,
    "request-trailers" => REQUEST_TRAILERS,
    "response-trailers" => RESPONSE_TRAILERS,
    "client-data" => CLIENT_DATA,
    "server-data" => SERVER_DATA,
    "tick" => TICK,
});

named!(FactSet {
    "method" => METHOD,
    "scheme" => SCHEME,
    "authority" => AUTHORITY,
    "path" => PATH,
    "query" => QUERY,
    "client-address" => CLIENT_ADDRESS,
    "peer-address" => PEER_ADDRESS,
    "local-address" => LOCAL_ADDRESS,
    "listener" => LISTENER,
    "request-id" => REQUEST_ID,
    "sni" => SNI,
    "alpn" => ALPN,
    "tls-version" => TLS_VERSION,
    "client-subject" => CLIENT_SUBJECT,
    "endpoint" => ENDPOINT,
    "pool" => POOL,
    "protocol" => PROTOCOL,
    "reason" => REASON,
    "first-bytes" => FIRST_BYTES,
    "offered-alpn" => OFFERED_ALPN,
});

named!(Effects {
    "http-call" => HTTP_CALL,
    "key-value" => KEY_VALUE,
});

// ---------------------------------------------------------------- log

#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
// Made by lifting alone, by its number.
#[allow(dead_code)]
pub(super) enum LogLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

// ---------------------------------------------------------------- metrics

#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
// Made by lifting alone, by its number.
#[allow(dead_code)]
pub(super) enum MetricKindName {
    #[component(name = "counter")]
    Counter,
    #[component(name = "gauge")]
    Gauge,
    #[component(name = "histogram")]
    Histogram,
}

// ---------------------------------------------------------------- readable phases

#[derive(Debug, Clone, ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
}

#[derive(Debug, Clone, ComponentType, Lower)]
#[component(record)]
pub(super) struct TlsFacts {
    pub(super) sni: Option<String>,
    pub(super) alpn: Option<String>,
    pub(super) version: String,
    #[component(name = "client-subject")]
    pub(super) client_subject: Option<String>,
}

#[derive(Debug, Clone, ComponentType, Lower)]
#[component(record)]
pub(super) struct ReadableFacts {
    pub(super) listener: String,
    #[component(name = "request-id")]
    pub(super) request_id: String,
    pub(super) scheme: String,
    pub(super) method: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    #[component(name = "client-address")]
    pub(super) client_address: String,
    #[component(name = "client-port")]
    pub(super) client_port: u16,
    #[component(name = "peer-address")]
    pub(super) peer_address: String,
    #[component(name = "peer-port")]
    pub(super) peer_port: u16,
    #[component(name = "local-address")]
    pub(super) local_address: String,
    #[component(name = "local-port")]
    pub(super) local_port: u16,
    pub(super) tls: Option<TlsFacts>,
    pub(super) state: u64,
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(variant)]
pub(super) enum FieldEdit {
    #[component(name = "set")]
    Set(Field),
    #[component(name = "append")]
    Append(Field),
    #[component(name = "add")]
    Add(Field),
    #[component(name = "remove")]
    Remove(String),
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Route {
    pub(super) pool: Option<u32>,
    #[component(name = "sticky-key")]
    pub(super) sticky_key: Option<Vec<u8>>,
    pub(super) endpoint: Option<String>,
    #[component(name = "try-timeout-ms")]
    pub(super) try_timeout_ms: Option<u32>,
    #[component(name = "total-timeout-ms")]
    pub(super) total_timeout_ms: Option<u32>,
    pub(super) retries: Option<u32>,
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct RequestEdits {
    pub(super) fields: Vec<FieldEdit>,
    pub(super) path: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) route: Option<Route>,
    pub(super) state: Option<u64>,
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct ResponseEdits {
    pub(super) status: Option<u16>,
    pub(super) fields: Vec<FieldEdit>,
    pub(super) state: Option<u64>,
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) fields: Vec<Field>,
    pub(super) body: Vec<u8>,
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(variant)]
pub(super) enum RequestVerdict {
    #[component(name = "next")]
    Next,
    #[component(name = "edit")]
    Edit(RequestEdits),
    #[component(name = "reply")]
    Reply(Reply),
    #[component(name = "drop")]
    Drop,
    #[component(name = "reset")]
    Reset,
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(variant)]
pub(super) enum ResponseVerdict {
    #[component(name = "next")]
    Next,
    #[component(name = "edit")]
    Edit(ResponseEdits),
    #[component(name = "reply")]
    Reply(Reply),
    #[component(name = "drop")]
    Drop,
    #[component(name = "reset")]
    Reset,
}
