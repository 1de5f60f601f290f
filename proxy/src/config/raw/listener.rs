//! `listeners:`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationOrOff, OneOrMany, RawDuration, RawFilterUse, RawSize, RawTlsVersion};

/// Keys that mean something for `protocol: http` only.
pub(in crate::config) const HTTP_ONLY: [&str; 6] = [
    "forwarded",
    "trusted-proxies",
    "http2",
    "upgrade",
    "trace",
    "via",
];
pub(in crate::config) const HTTP_ONLY_TIMEOUTS: [&str; 6] = [
    "head",
    "body-idle",
    "response-head",
    "keep-alive",
    "linger",
    "total",
];
pub(in crate::config) const HTTP_ONLY_LIMITS: [&str; 6] = [
    "header-bytes",
    "header-fields",
    "target-bytes",
    "streams",
    "replay-bytes",
    "linger-bytes",
];

/// An address and a protocol with its TLS, filters and default pool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(rename = "Listener", extend("required" = ["name", "bind", "protocol"]))]
pub(in crate::config) struct RawListener {
    /// Unique; names the listener in logs and metrics.
    pub name: String,
    /// `:80` (every address), `192.0.2.1:80`, `[::1]:80`, or a list of these.
    pub bind: OneOrMany<String>,
    /// What is spoken on it.
    pub protocol: RawProtocol,
    /// TLS is ended here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RawTls>,
    /// In order for requests, reversed for responses: names of filters, or filters in place.
    pub filters: Vec<RawFilterUse>,
    /// Where traffic goes that no filter routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Options of the sockets.
    pub tcp: RawTcp,
    /// How long things may take.
    pub timeouts: RawTimeouts,
    /// How large things may be.
    pub limits: RawLimits,
    /// Which fields tell backends about the client, and are believed when a trusted proxy sent them (`http` only). Those of
    /// untrusted clients are dropped in any case.
    pub forwarded: RawForwarded,
    /// Networks whose forwarding fields are believed (`http` only): `10.0.0.0/8`, `192.0.2.1`.
    pub trusted_proxies: Vec<String>,
    /// HTTP/2, by ALPN and by prior knowledge (`http` only).
    pub http2: bool,
    /// Protocols that clients may upgrade to, such as `websocket`, `tcp` (docker) or `spdy/3.1` (kubectl) (`http` only).
    pub upgrade: Vec<String>,
    /// Whether TRACE requests are served (`http` only). Their answers repeat what was sent, with whatever the client and
    /// proxies added to it; otherwise they are answered with 405.
    pub trace: bool,
    /// The name in `Via` and `Proxy-Status` (`http` only).
    pub via: String,
}

impl RawListener {
    pub fn is_tcp(&self) -> bool {
        self.protocol == RawProtocol::Tcp
    }
}

impl Default for RawListener {
    fn default() -> Self {
        RawListener {
            name: String::new(),
            bind: OneOrMany::Many(Vec::new()),
            protocol: RawProtocol::Http,
            tls: None,
            filters: Vec::new(),
            pool: None,
            tcp: RawTcp::default(),
            timeouts: RawTimeouts::default(),
            limits: RawLimits::default(),
            forwarded: RawForwarded::X,
            trusted_proxies: Vec::new(),
            http2: true,
            upgrade: vec!["websocket".into()],
            trace: false,
            via: "sluicegate".into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawProtocol {
    /// Bytes are relayed in both directions.
    Tcp,
    /// HTTP/1.1 and HTTP/2.
    Http,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum RawForwarded {
    /// X-Forwarded-For, -Host, -Port, -Proto, X-Real-IP and X-Request-Id.
    X,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// Both kinds; for the client's address to be believed they must agree.
    Both,
    /// None; X-Forwarded-For of trusted proxies is believed.
    None,
}

/// TLS of a listener.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(rename = "Tls", extend("required" = ["certificates"]))]
pub(in crate::config) struct RawTls {
    /// Chosen by the server name the client asks for; the first serves everyone else.
    #[schemars(length(min = 1))]
    pub certificates: Vec<RawCertificate>,
    /// Oldest version accepted.
    pub min_version: RawTlsVersion,
    /// Cipher suites by their IANA names, in order of preference. None is a safe selection.
    pub suites: Vec<String>,
    /// Protocols offered by ALPN, in order of preference. None is what the listener speaks.
    pub alpn: Vec<String>,
    /// Whether sessions may be resumed by tickets.
    pub resumption: bool,
}

impl Default for RawTls {
    fn default() -> Self {
        RawTls {
            certificates: Vec::new(),
            min_version: RawTlsVersion::Text("1.2".into()),
            suites: Vec::new(),
            alpn: Vec::new(),
            resumption: true,
        }
    }
}

/// A certificate chain and its key.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline, extend("required" = ["cert", "key"]))]
pub(in crate::config) struct RawCertificate {
    /// PEM file with the chain, from the certificate itself upwards, or the text of one. A relative path starts at this
    /// file's directory.
    pub cert: String,
    /// PEM file with the private key, or the text of one.
    pub key: String,
}

/// Options of a listener's sockets.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawTcp {
    /// Send small segments at once.
    pub nodelay: bool,
    /// Send and receive buffer of both sides. Without it, the kernel decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_buffer: Option<RawSize>,
    /// Connections waiting to be accepted.
    #[schemars(range(min = 1, max = 65535), extend("x-unit" = "connections"))]
    pub backlog: u32,
    /// Move bulk data inside the kernel when nothing has to look at it.
    pub splice: bool,
    /// TCP keep-alive probes after this idle time, or `off`.
    pub keep_alive: DurationOrOff,
}

impl Default for RawTcp {
    fn default() -> Self {
        RawTcp {
            nodelay: true,
            socket_buffer: None,
            backlog: 4096,
            splice: true,
            keep_alive: DurationOrOff::Duration("60s".into()),
        }
    }
}

/// How long the steps of an exchange or session may take.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawTimeouts {
    /// The TLS handshake.
    pub handshake: RawDuration,
    /// From the first byte of a request head to its end (`http` only).
    pub head: RawDuration,
    /// Between two reads of a request body (`http` only).
    pub body_idle: RawDuration,
    /// From the request sent to the response head (`http` only).
    pub response_head: RawDuration,
    /// Without a byte in either direction: response body, relayed session, upgraded connection.
    pub stream_idle: RawDuration,
    /// The same after one side of a relayed session or an upgraded connection has ended: without a byte in the direction that
    /// is still open.
    pub half_closed: RawDuration,
    /// Between two requests of a connection (`http` only).
    pub keep_alive: RawDuration,
    /// After an answer that came before the end of the request's body: how long more of the body is read and thrown
    /// away, because closing earlier would destroy the answer on its way (`http` only). Two seconds without a byte end it.
    pub linger: RawDuration,
    /// A whole exchange (`http` only). Without it there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<RawDuration>,
}

impl Default for RawTimeouts {
    fn default() -> Self {
        RawTimeouts {
            handshake: "10s".into(),
            head: "10s".into(),
            body_idle: "30s".into(),
            response_head: "60s".into(),
            stream_idle: "600s".into(),
            half_closed: "30s".into(),
            keep_alive: "75s".into(),
            linger: "30s".into(),
            total: None,
        }
    }
}

/// How large what clients send may be.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) struct RawLimits {
    /// Client connections at one time, over all workers. Further ones wait to be accepted.
    #[schemars(range(min = 1, max = 10_000_000), extend("x-unit" = "connections"))]
    pub connections: u32,
    /// All field lines of one message (`http` only).
    pub header_bytes: RawSize,
    /// Field lines of one message (`http` only).
    #[schemars(range(min = 1, max = 512), extend("x-unit" = "fields"))]
    pub header_fields: u32,
    /// The request target (`http` only).
    pub target_bytes: RawSize,
    /// HTTP/2 streams of one connection at one time (`http` only).
    #[schemars(range(min = 1, max = 10000), extend("x-unit" = "streams"))]
    pub streams: u32,
    /// Request body kept so that a try can be repeated (`http` only).
    pub replay_bytes: RawSize,
    /// Rest of a request body that is read and thrown away after an early answer, see `timeouts.linger` (`http` only).
    pub linger_bytes: RawSize,
}

impl Default for RawLimits {
    fn default() -> Self {
        RawLimits {
            connections: 65536,
            header_bytes: "64KiB".into(),
            header_fields: 128,
            target_bytes: "16KiB".into(),
            streams: 100,
            replay_bytes: "64KiB".into(),
            linger_bytes: "256MiB".into(),
        }
    }
}
