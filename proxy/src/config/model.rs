//! The checked configuration: what every other room reads. Built by `config::load`; cannot hold a bad value.
//!
//! References between objects are indices into the vectors of [`Config`], resolved once at load.

use super::pem::Pem;
use super::store::StoreConfig;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A place in the configuration: a JSON pointer such as `/filters/no-badcurl/settings/deny/0`.
/// `config::Sources::locate` turns it into file, line and column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ConfigPath(pub String);

#[derive(Debug, Clone)]
pub struct Config {
    /// Worker threads; `auto` in YAML is the number of processors this process may use.
    pub workers: usize,
    pub pools: Vec<Arc<PoolConfig>>,
    /// Named filters and the anonymous ones of listeners.
    pub filters: Vec<Arc<FilterConfig>>,
    pub listeners: Vec<Arc<ListenerConfig>>,
    pub admin: AdminConfig,
    pub telemetry: TelemetryConfig,
    pub drain: DrainConfig,
    pub modules: ModulesConfig,
}

impl Config {
    pub fn pool_index(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|p| &*p.name == name)
    }
}

// ---------------------------------------------------------------- pools

#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    pub name: Arc<str>,
    pub at: ConfigPath,
    pub endpoints: Vec<EndpointConfig>,
    pub balance: Balance,
    pub check: Option<CheckConfig>,
    /// Bounds of requests in endpoints that are handlers.
    pub handler: HandlerLimits,
    /// What endpoints speak to an `http` listener; default HTTP/1.1.
    pub protocol: PoolProtocol,
    /// TLS towards the endpoints.
    pub tls: Option<PoolTlsConfig>,
    /// With the TLS handshake; default 5 s.
    pub connect_timeout: Duration,
    /// Kept connections per worker and endpoint; default 256.
    pub keep_alive_max: usize,
    /// How long a kept connection may lie idle; default 60 s.
    pub keep_alive_timeout: Duration,
    /// When an HTTP/2 connection is asked whether its endpoint is still there.
    pub http2: PingSettings,
    /// How long data may stay unacknowledged by the endpoint's host, in exchanges; default 30 s.
    pub tcp_user_timeout: Option<Duration>,
    /// How large responses may be.
    pub limits: PoolLimits,
    /// Concurrent exchanges and sessions per endpoint; none is unlimited.
    pub max_connections: Option<u32>,
    /// Further tries after the first; default 2.
    pub retries: u32,
    /// What happens when no endpoint is healthy; default fail.
    pub panic: Panic,
    /// How often names are resolved again; default 30 s.
    pub resolve_interval: Duration,
    /// How long a name that is gone keeps its addresses; none is three TTLs, 30 s at least.
    pub resolve_grace: Option<Duration>,
    /// Asked instead of those of resolv.conf; may be empty.
    pub name_servers: Vec<SocketAddr>,
    /// The Host field sent upstream; default preserve.
    pub host: HostPolicy,
}

impl PoolConfig {
    /// Its endpoints are components that the proxy runs; all of them or none.
    pub fn is_handled(&self) -> bool {
        let first = self.endpoints.first();
        first.is_some_and(|e| matches!(e.address, EndpointAddress::Handler { .. }))
    }
}

/// PINGs on the HTTP/2 connections to a pool's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingSettings {
    /// The silence that is asked about; none is never. Default 1 s.
    pub interval: Option<Duration>,
    /// How long an answer may take; default 1 s.
    pub timeout: Duration,
}

impl Default for PingSettings {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(1)),
            timeout: Duration::from_secs(1),
        }
    }
}

/// How large a response may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLimits {
    /// All field lines of a head, and of trailers; default 64 KiB.
    pub header_bytes: usize,
    /// Field lines of a head, and of trailers; default 128.
    pub header_fields: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 10,
            header_fields: 128,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerLimits {
    /// Linear memory of one instance, in bytes; default 64 MiB.
    pub memory: usize,
    /// From the request's head to the end of its response; default 30 s.
    pub deadline: Duration,
    /// Processor time of one request; default 1 s.
    pub cpu: Duration,
    /// Requests at one time, per endpoint and over all workers; default 128.
    pub instances: u32,
}

impl Default for HandlerLimits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            deadline: Duration::from_secs(30),
            cpu: Duration::from_secs(1),
            instances: 128,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolProtocol {
    Http1,
    /// By ALPN over TLS, by prior knowledge without.
    Http2,
    /// What ALPN agrees on; only with TLS.
    Auto,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTlsConfig {
    pub at: ConfigPath,
    /// Default: the endpoint's host name or address.
    pub server_name: Option<String>,
    /// Default: the system's authorities.
    pub ca: Option<Pem>,
    /// Default true.
    pub verify: bool,
    /// What the proxy shows of itself.
    pub certificate: Option<CertificateConfig>,
    pub min_version: TlsVersion,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    pub address: EndpointAddress,
    /// 0 to 256; 0 gets no new traffic. Default 1.
    pub weight: u32,
    pub at: ConfigPath,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    Ip(SocketAddr),
    /// A host name: each address it resolves to is one endpoint.
    Name {
        host: String,
        port: u16,
    },
    /// A wasi:http component that the proxy runs.
    Handler {
        /// Absolute, found by the search rules; exists at load.
        path: PathBuf,
        /// `wasm:` and the path as it was written.
        text: Arc<str>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Exact over sequential picks, weights by a smooth interleaved schedule.
    RoundRobin,
    /// Weighted random.
    Random,
    /// Fewest running exchanges in proportion to weight; ties by round robin.
    LeastRequest,
    /// Maglev over the filters' sticky key, else the client address.
    Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panic {
    /// 503 (http) or close (tcp).
    Fail,
    /// Balance over all endpoints as if they were healthy.
    Spread,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    Preserve,
    /// The endpoint's name or address, with port.
    Endpoint,
    Literal(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct CheckConfig {
    pub kind: CheckKind,
    /// Default 10 s, ±10 % jitter.
    pub interval: Duration,
    /// Never above `interval`; default the smaller of it and 1 s.
    pub fast_interval: Duration,
    /// Default 1 s.
    pub timeout: Duration,
    /// Successes before an endpoint that is down counts as up; default 2.
    pub rise: u32,
    /// Failures before an endpoint that is up counts as down; default 3.
    pub fall: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    Tcp,
    Http {
        /// Default GET.
        method: String,
        /// Default `/`.
        path: String,
        /// Default: the endpoint's address.
        host: Option<String>,
        /// Inclusive ranges; default 200–399.
        status: Vec<(u16, u16)>,
    },
}

// ---------------------------------------------------------------- filters

#[derive(Debug, Clone, PartialEq)]
pub struct FilterConfig {
    /// The key under `filters:`, or `LISTENER/MODULE` for an anonymous one.
    pub name: Arc<str>,
    pub at: ConfigPath,
    pub module: ModuleSource,
    /// The digest that the module's bytes must have.
    pub sha256: Option<[u8; 32]>,
    /// Interpolated; `null` when absent.
    pub settings: serde_json::Value,
    pub limits: FilterLimits,
    pub capabilities: Capabilities,
    /// Where it keeps what outlives an exchange; default in memory, 16 MiB.
    pub store: StoreConfig,
    pub on_error: OnError,
    pub isolation: Isolation,
    /// Bounds of middleware, when they are written.
    pub handler: Option<HandlerLimits>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModuleSource {
    Builtin(String),
    /// Absolute, found by the search rules; exists at load.
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterLimits {
    /// Linear memory of one instance, in bytes; default 16 MiB.
    pub memory: usize,
    /// CPU deadline of one call; default 10 ms.
    pub deadline: Duration,
    /// Deadline of `configure`; default 2 s.
    pub configure_deadline: Duration,
    /// Bytes one call may answer; default 1 MiB.
    pub output: usize,
    /// Processor time in each second, on each worker; default none: no limit.
    pub cpu: Option<Duration>,
    /// Calls into the host during one call; default 1000.
    pub host_calls: u32,
    /// Instances alive at once, over all workers; default none: as many as are of use, or 256 where each exchange has its
    /// own.
    pub instances: Option<u32>,
    /// Suspended calls at once, on each worker; default 1024.
    pub suspends: u32,
    /// Bytes of state that a filter may hand to its successor at a swap; default 1 MiB.
    pub state: usize,
    /// From how many failures on a worker leaves the filter alone for a while; none: never.
    pub faults: Option<FaultLimit>,
}

impl Default for FilterLimits {
    fn default() -> Self {
        Self {
            memory: 16 << 20,
            deadline: Duration::from_millis(10),
            configure_deadline: Duration::from_secs(2),
            output: 1 << 20,
            cpu: None,
            host_calls: 1000,
            instances: None,
            suspends: 1024,
            state: 1 << 20,
            faults: Some(FaultLimit {
                count: 5,
                within: Duration::from_secs(10),
            }),
        }
    }
}

/// So many faults in a row within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultLimit {
    /// 1 to 100.
    pub count: u32,
    /// At least a millisecond.
    pub within: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub log: bool,
    pub metrics: bool,
    pub clock: bool,
    pub random: bool,
    pub tick: bool,
    pub key_value: bool,
    /// Pools that the filter may call itself.
    pub http_call: Vec<Arc<str>>,
}

impl Capabilities {
    /// Everything that a module may import, and ticks.
    pub const ALL: Self = Self {
        log: true,
        metrics: true,
        clock: true,
        random: true,
        tick: true,
        key_value: true,
        http_call: Vec::new(),
    };

    /// Every name that stands alone, as `capabilities:` spells it.
    const NAMES: [&str; 6] = ["log", "metrics", "clock", "random", "tick", "key-value"];

    /// The names of those that are granted, but for calls.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(|name| self.has(name))
    }

    /// Whether the capability that `capabilities:` spells so is granted.
    pub fn has(&self, name: &str) -> bool {
        match name {
            "log" => self.log,
            "metrics" => self.metrics,
            "clock" => self.clock,
            "random" => self.random,
            "tick" => self.tick,
            "key-value" => self.key_value,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The exchange ends: 500, or the session closes.
    Fail,
    /// The exchange goes on as if the filter had said next.
    Bypass,
}

/// What shares an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The exchanges of a worker.
    Worker,
    /// Each exchange has its own.
    Request,
}

// ---------------------------------------------------------------- listeners

#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    pub name: Arc<str>,
    pub at: ConfigPath,
    pub bind: Vec<SocketAddr>,
    pub protocol: Protocol,
    pub tls: Option<TlsConfig>,
    /// Indices into `Config::filters`, in order for requests.
    pub filters: Vec<usize>,
    /// Index into `Config::pools`: where exchanges go when no filter routes them.
    pub pool: Option<usize>,
    pub tcp: TcpOptions,
    pub timeouts: Timeouts,
    pub limits: ListenerLimits,
    /// Only for `http`.
    pub http: HttpOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Http,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    /// Default true.
    pub nodelay: bool,
    /// SO_RCVBUF and SO_SNDBUF of both sides; default the kernel's.
    pub socket_buffer: Option<usize>,
    /// Default 4096.
    pub backlog: u32,
    /// Default true: relay in the kernel by splice(2) once a session moves bulk data.
    pub splice: bool,
    /// TCP keep-alive probes after this idle time; default 60 s.
    pub keep_alive: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// TLS handshake; default 10 s.
    pub handshake: Duration,
    /// From the first byte of a request head to its end; default 10 s.
    pub head: Duration,
    /// Between two reads of a request body; default 30 s.
    pub body_idle: Duration,
    /// From the request sent to the response head; default 60 s.
    pub response_head: Duration,
    /// No byte in either direction of a response body, a relayed session or an upgraded connection; default 600 s.
    pub stream_idle: Duration,
    pub half_closed: Duration,
    /// Idle between two requests; default 75 s.
    pub keep_alive: Duration,
    /// More of a request body is read for so long after an early answer; default 30 s.
    pub linger: Duration,
    /// A whole exchange; default none.
    pub total: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Client connections at one time, over all workers; default 65536. Over it, connections wait in the backlog.
    pub connections: usize,
    /// Bytes of all field lines of one message; default 64 KiB.
    pub header_bytes: usize,
    /// Field lines of one message; default 128.
    pub header_fields: usize,
    /// Bytes of the request target; default 16 KiB.
    pub target_bytes: usize,
    /// Concurrent HTTP/2 streams of one connection; default 100.
    pub streams: u32,
    /// Request bytes kept so that a try can be repeated; default 64 KiB.
    pub replay_bytes: usize,
    /// Request bytes read and thrown away after an early answer; default 256 MiB.
    pub linger_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    pub forwarded: Forwarded,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Default true: HTTP/2 by ALPN and by prior knowledge.
    pub http2: bool,
    /// Protocols a client may upgrade to, lower case; default `websocket`.
    pub upgrade: Vec<String>,
    /// TRACE is served; default false.
    pub trace: bool,
    /// Name written into `Via` and `Proxy-Status`; default `sluicegate`.
    pub via: String,
}

impl HttpOptions {
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&ip))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// X-Forwarded-For, -Host, -Port, -Proto, X-Real-IP, X-Request-Id.
    X,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    Both,
    /// Nothing is written; what an untrusted client sent is dropped all the same.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    pub at: ConfigPath,
    /// At least one; the first serves clients without a matching server name.
    pub certificates: Vec<CertificateConfig>,
    pub min_version: TlsVersion,
    /// IANA names as rustls knows them; empty means its safe defaults.
    pub suites: Vec<String>,
    /// Empty: what the listener's protocol offers.
    pub alpn: Vec<String>,
    /// Session resumption by tickets; default true.
    pub resumption: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateConfig {
    pub cert: Pem,
    pub key: Pem,
    pub at: ConfigPath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

// ---------------------------------------------------------------- the process

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// None: no admin interface (`admin: off`). Default `/run/sluicegate/admin.sock`.
    pub bind: Option<AdminBind>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminBind {
    Unix(PathBuf),
    /// Loopback only.
    Tcp(SocketAddr),
}

#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryConfig {
    pub access_log: Option<AccessLogConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogConfig {
    pub to: LogTarget,
    pub format: LogFormat,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogTarget {
    Stdout,
    Stderr,
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    Text,
    Json,
    /// NCSA combined, so that goaccess and friends read it.
    Combined,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainConfig {
    /// Between readiness failing and the listeners closing; default 0 s.
    pub pre_stop: Duration,
    /// What still runs is cut after this; default 30 s.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulesConfig {
    /// Where relative module paths are looked up after the configuration's own directory.
    pub paths: Vec<PathBuf>,
    /// Compile cache; none turns it off. Default `$XDG_CACHE_HOME/sluicegate`.
    pub cache: Option<PathBuf>,
}
