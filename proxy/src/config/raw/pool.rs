//! `pools:`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DurationOrOff, OneOrMany, RawCertificate, RawDuration, RawHandler, RawSize, RawTlsVersion,
};

/// A named set of endpoints with one balancing algorithm, checks and limits.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(rename = "Pool", extend("required" = ["endpoints"]))]
pub(in crate::config) struct RawPool {
    /// The backends: `192.0.2.1:80`, `[2001:db8::1]:80`, `backend.internal:80` (every IPv4 address of the name is
    /// an endpoint, or every IPv6 address if it has no other), `wasm:./hello.wasm` (a wasi:http component that the proxy runs), or a map with `address` and
    /// `weight`.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<RawEndpoint>,
    /// How an endpoint is chosen.
    pub balance: RawBalance,
    /// Active probing. `tcp` and `http` are short for a check of that kind with its defaults. Without a check,
    /// endpoints go down by failures of the traffic alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<RawCheck>,
    /// Bounds of requests in `wasm:` endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<RawHandler>,
    /// What endpoints speak, when the listener speaks HTTP.
    pub protocol: RawPoolProtocol,
    /// Connections to the endpoints are TLS. `tls: {}` verifies their certificates by the system's authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RawPoolTls>,
    /// How long a connection to an endpoint may take, with its TLS handshake.
    pub connect_timeout: RawDuration,
    /// Upstream connections that are kept for reuse.
    pub keep_alive: RawKeepAlive,
    /// How it is noticed that an HTTP/2 connection to an endpoint has gone silent.
    pub http2: RawPoolHttp2,
    /// How long the host of an endpoint may leave data of an exchange unacknowledged before the connection counts as
    /// broken, or take none because it has no room for more (Linux's `TCP_USER_TIMEOUT`; `http` listeners only); or `off`.
    pub tcp_user_timeout: DurationOrOff,
    /// How large responses may be (`http` listeners only). What is larger is answered with 502.
    pub limits: RawPoolLimits,
    /// Exchanges and sessions at one time, per endpoint. Without it there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000), extend("x-unit" = "exchanges"))]
    pub max_connections: Option<u32>,
    /// Further tries on other endpoints after the first failed.
    #[schemars(range(min = 0, max = 16), extend("x-unit" = "tries"))]
    pub retries: u32,
    /// What happens when no endpoint is healthy.
    pub panic: RawPanic,
    /// How often host names are resolved again.
    pub resolve_interval: RawDuration,
    /// How long a host name keeps its addresses after the answer is that it does not exist or has none; an answer that does
    /// not come changes nothing. Without it, three times what the last answer said it holds for, and no less than 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve_grace: Option<RawDuration>,
    /// Name servers that are asked for the pool's host names, `192.0.2.53` or `192.0.2.53:5353`, after the hosts file.
    /// Without them, those of /etc/resolv.conf.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<String>,
    /// The Host field sent to endpoints: `preserve` keeps the client's, `endpoint` is the endpoint's name or address,
    /// anything else is sent as it stands.
    pub host: String,
}

impl Default for RawPool {
    fn default() -> Self {
        RawPool {
            endpoints: Vec::new(),
            balance: RawBalance::RoundRobin,
            check: None,
            handler: None,
            protocol: RawPoolProtocol::Http1,
            tls: None,
            connect_timeout: "5s".into(),
            keep_alive: RawKeepAlive::default(),
            http2: RawPoolHttp2::default(),
            tcp_user_timeout: DurationOrOff::Duration("30s".into()),
            limits: RawPoolLimits::default(),
            max_connections: None,
            retries: 2,
            panic: RawPanic::Fail,
            resolve_interval: "30s".into(),
            resolve_grace: None,
            name_servers: Vec::new(),
            host: "preserve".into(),
        }
    }
}

/// An address, or a map with `address` and `weight`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Endpoint")]
pub(in crate::config) enum RawEndpoint {
    Address(String),
    Weighted(RawWeighted),
}

/// An endpoint with its share of the traffic.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(rename = "WeightedEndpoint", extend("required" = ["address"]))]
pub(in crate::config) struct RawWeighted {
    /// `192.0.2.1:80`, `[2001:db8::1]:80`, `backend.internal:80` or `wasm:./hello.wasm`.
    pub address: String,
    /// Share of the traffic relative to the other endpoints; 0 gets no new traffic.
    #[schemars(range(min = 0, max = 256))]
    pub weight: u32,
}

impl Default for RawWeighted {
    fn default() -> Self {
        RawWeighted {
            address: String::new(),
            weight: 1,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawBalance {
    /// One after the other, in proportion to weight.
    RoundRobin,
    /// Any, in proportion to weight.
    Random,
    /// The one with the fewest running exchanges in proportion to weight.
    LeastRequest,
    /// By the sticky key that filters set, else by the client address; few keys move when endpoints change.
    Hash,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawPoolProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 over TLS, or by prior knowledge without (gRPC servers mostly speak this).
    Http2,
    /// HTTP/2 when the endpoint agrees to it by ALPN, else HTTP/1.1. Needs `tls`.
    Auto,
}

/// TLS towards the endpoints of a pool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(rename = "PoolTls")]
pub(in crate::config) struct RawPoolTls {
    /// The name that is asked for and that the certificate must have. Without it, the endpoint's name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// PEM file, or the text of one, with the authorities that are trusted. Without it, the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Whether certificates are verified at all. Without, whoever is in between can read and change everything.
    pub verify: bool,
    /// What the endpoint is shown when it asks for a client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<RawCertificate>,
    /// Oldest version spoken.
    pub min_version: RawTlsVersion,
}

impl Default for RawPoolTls {
    fn default() -> Self {
        RawPoolTls {
            server_name: None,
            ca: None,
            verify: true,
            certificate: None,
            min_version: RawTlsVersion::Text("1.2".into()),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawPanic {
    /// Exchanges are answered with 503, sessions are closed.
    Fail,
    /// The traffic is spread over all endpoints as if they were healthy.
    Spread,
}

/// Upstream connections kept for reuse.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawKeepAlive {
    /// Kept connections per worker and endpoint; 0 keeps none.
    #[schemars(range(min = 0, max = 65536), extend("x-unit" = "connections"))]
    pub max: u32,
    /// How long a kept connection may lie idle.
    pub timeout: RawDuration,
}

impl Default for RawKeepAlive {
    fn default() -> Self {
        RawKeepAlive {
            max: 256,
            timeout: "60s".into(),
        }
    }
}

/// PINGs on HTTP/2 connections to endpoints.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawPoolHttp2 {
    /// A PING is sent when an endpoint was asked something and nothing at all came from it for so long, or `off`. No more
    /// than two are sent before a response or data comes, and further ones only every 330s, so that servers for gRPC
    /// do not object.
    pub ping_interval: DurationOrOff,
    /// How long its answer may take. After that new requests use another connection or endpoint until something comes.
    pub ping_timeout: RawDuration,
}

impl Default for RawPoolHttp2 {
    fn default() -> Self {
        RawPoolHttp2 {
            ping_interval: DurationOrOff::Duration("1s".into()),
            ping_timeout: "1s".into(),
        }
    }
}

/// How large responses may be.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawPoolLimits {
    /// All field lines of a response, and of its trailers.
    pub header_bytes: RawSize,
    /// Field lines of a response, and of its trailers.
    #[schemars(range(min = 1, max = 512), extend("x-unit" = "fields"))]
    pub header_fields: u32,
}

impl Default for RawPoolLimits {
    fn default() -> Self {
        RawPoolLimits {
            header_bytes: "64KiB".into(),
            header_fields: 128,
        }
    }
}

/// The kind of a check with defaults, or a map.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Check")]
pub(in crate::config) enum RawCheck {
    Short(RawCheckWord),
    Full(RawCheckMap),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawCheckWord {
    Tcp,
    Http,
}

impl RawCheck {
    /// As it is when nothing is left to defaults.
    pub fn in_full(&self) -> RawCheckMap {
        match self {
            RawCheck::Full(full) => full.clone(),
            RawCheck::Short(RawCheckWord::Tcp) => RawCheckMap {
                tcp: Some(RawTcpCheck {}),
                ..RawCheckMap::default()
            },
            RawCheck::Short(RawCheckWord::Http) => RawCheckMap {
                http: Some(RawHttpCheck::default()),
                ..RawCheckMap::default()
            },
        }
    }
}

/// An active probe of every endpoint. Exactly one of `tcp` and `http` says how.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(rename = "CheckSettings")]
pub(in crate::config) struct RawCheckMap {
    /// A connection that is accepted is a success. Written `tcp: {}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<RawTcpCheck>,
    /// An answer with a fitting status is a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<RawHttpCheck>,
    /// From the start of one probe to the next, ±10 %.
    pub interval: RawDuration,
    /// Instead of `interval` while a changed result is being confirmed, and for the first ten probes of an endpoint that is
    /// down; then the time doubles until it is `interval`. Without it, 1s or `interval`, whichever is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_interval: Option<RawDuration>,
    /// How long one probe may take.
    pub timeout: RawDuration,
    /// Successes in a row before an endpoint that is down counts as up. One that was never up needs a single one.
    #[schemars(range(min = 1, max = 1000), extend("x-unit" = "probes"))]
    pub rise: u32,
    /// Failures in a row before an endpoint that is up counts as down.
    #[schemars(range(min = 1, max = 1000), extend("x-unit" = "probes"))]
    pub fall: u32,
}

impl Default for RawCheckMap {
    fn default() -> Self {
        RawCheckMap {
            tcp: None,
            http: None,
            interval: "10s".into(),
            fast_interval: None,
            timeout: "1s".into(),
            rise: 2,
            fall: 3,
        }
    }
}

/// Nothing to set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub(in crate::config) struct RawTcpCheck {}

/// An HTTP/1.1 request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawHttpCheck {
    pub method: String,
    /// The request target; starts with `/`.
    pub path: String,
    /// The Host field. Without it, the endpoint's name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Statuses that count as success: a number, a range such as `200-399`, or a list of these.
    pub status: OneOrMany<RawStatus>,
}

impl Default for RawHttpCheck {
    fn default() -> Self {
        RawHttpCheck {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            status: OneOrMany::One(RawStatus::Range("200-399".into())),
        }
    }
}

/// A status, or a range of them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum RawStatus {
    One(#[schemars(range(min = 100, max = 999))] u16),
    Range(String),
}
