//! `pools:`

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::resolver::Resolver;
use crate::config::diagnostic::{Diagnostic, Severity, is_full, quoted};
use crate::config::model::{
    Balance, CertificateConfig, CheckConfig, CheckKind, ConfigPath, EndpointAddress,
    EndpointConfig, HostPolicy, ModulesConfig, Panic, PingSettings, PoolConfig, PoolLimits,
    PoolProtocol, PoolTlsConfig, TlsVersion,
};
use crate::config::raw::{
    DurationOrOff, OneOrMany, RawBalance, RawCheck, RawEndpoint, RawHttpCheck, RawPanic, RawPool,
    RawPoolHttp2, RawPoolLimits, RawPoolProtocol, RawPoolTls, RawStatus,
};
use crate::config::units;

const MILLISECOND: Duration = Duration::from_millis(1);

impl Resolver<'_> {
    pub(super) fn pools(
        &mut self,
        raw: &BTreeMap<String, RawPool>,
        modules: &ModulesConfig,
    ) -> Vec<Arc<PoolConfig>> {
        let section = ConfigPath::default().join("pools");
        let order = self.order(&section);
        let pools = order.iter().filter_map(|name| Some((name, raw.get(name)?)));
        pools
            .map(|(name, pool)| Arc::new(self.pool(name, pool, section.join(name), modules)))
            .collect()
    }

    fn pool(
        &mut self,
        name: &str,
        raw: &RawPool,
        at: ConfigPath,
        modules: &ModulesConfig,
    ) -> PoolConfig {
        self.name("pool", name, &at);
        let endpoints = self.endpoints(&raw.endpoints, &at.join("endpoints"), modules);
        self.kind_of_pool(raw, &endpoints, &at);
        let handler = self.handler_limits(raw.handler.as_ref(), &at.join("handler"));
        let handled = matches!(
            endpoints.first(),
            Some(EndpointConfig {
                address: EndpointAddress::Handler { .. },
                ..
            })
        );
        PoolConfig {
            name: name.into(),
            endpoints,
            balance: match raw.balance {
                RawBalance::RoundRobin => Balance::RoundRobin,
                RawBalance::Random => Balance::Random,
                RawBalance::LeastRequest => Balance::LeastRequest,
                RawBalance::Hash => Balance::Hash,
            },
            check: raw
                .check
                .as_ref()
                .and_then(|check| self.check(check, &at.join("check"))),
            protocol: match raw.protocol {
                RawPoolProtocol::Http1 => PoolProtocol::Http1,
                RawPoolProtocol::Http2 => PoolProtocol::Http2,
                RawPoolProtocol::Auto => self.auto(raw, &at.join("protocol")),
            },
            tls: raw
                .tls
                .as_ref()
                .map(|tls| self.pool_tls(tls, at.join("tls"))),
            connect_timeout: self.duration(
                &raw.connect_timeout,
                &at.join("connect-timeout"),
                MILLISECOND,
            ),
            keep_alive_max: raw.keep_alive.max as usize,
            keep_alive_timeout: self.duration(
                &raw.keep_alive.timeout,
                &at.join("keep-alive").join("timeout"),
                MILLISECOND,
            ),
            http2: self.pings(&raw.http2, &at.join("http2")),
            tcp_user_timeout: match &raw.tcp_user_timeout {
                DurationOrOff::Off(_) => None,
                DurationOrOff::Duration(text) => {
                    Some(self.duration(text, &at.join("tcp-user-timeout"), MILLISECOND))
                }
            },
            limits: self.pool_limits(&raw.limits, &at.join("limits")),
            max_connections: match handled {
                true => Some(handler.instances),
                false => raw.max_connections,
            },
            handler,
            retries: raw.retries,
            panic: match raw.panic {
                RawPanic::Fail => Panic::Fail,
                RawPanic::Spread => Panic::Spread,
            },
            resolve_interval: self.duration(
                &raw.resolve_interval,
                &at.join("resolve-interval"),
                Duration::from_millis(100),
            ),
            resolve_grace: raw.resolve_grace.as_ref().map(|grace| {
                let at = at.join("resolve-grace");
                self.duration(grace, &at, Duration::ZERO)
            }),
            name_servers: self.name_servers(&raw.name_servers, &at.join("name-servers")),
            host: self.host(&raw.host, &at.join("host")),
            at,
        }
    }

    fn pings(&mut self, raw: &RawPoolHttp2, at: &ConfigPath) -> PingSettings {
        let shortest = Duration::from_millis(10);
        PingSettings {
            interval: match &raw.ping_interval {
                DurationOrOff::Off(_) => None,
                DurationOrOff::Duration(text) => {
                    Some(self.duration(text, &at.join("ping-interval"), shortest))
                }
            },
            timeout: self.duration(&raw.ping_timeout, &at.join("ping-timeout"), shortest),
        }
    }

    fn pool_limits(&mut self, raw: &RawPoolLimits, at: &ConfigPath) -> PoolLimits {
        let bytes_at = at.join("header-bytes");
        PoolLimits {
            header_bytes: self.size(&raw.header_bytes, &bytes_at, 1 << 10, 16 << 20),
            header_fields: raw.header_fields as usize,
        }
    }

    fn name_servers(&mut self, raw: &[String], at: &ConfigPath) -> Vec<SocketAddr> {
        let mut servers = Vec::new();
        for (n, text) in raw.iter().enumerate() {
            let with_port = |ip: IpAddr| SocketAddr::new(ip, 53);
            match text.parse().or_else(|_| text.parse().map(with_port)) {
                Ok(address) => servers.push(address),
                Err(_) => {
                    let message = format!("{} is not the address of a name server", quoted(text));
                    let help = "write an IP address, with a port if it is not 53";
                    self.push(
                        Diagnostic::error("bad-address", message).help(help),
                        &at.join(n),
                    );
                }
            }
        }
        servers
    }

    fn auto(&mut self, raw: &RawPool, at: &ConfigPath) -> PoolProtocol {
        if raw.tls.is_none() {
            let message = "nothing would tell what the endpoints speak: ALPN is part of TLS";
            self.push(
                Diagnostic::error("bad-value", message.to_owned())
                    .help("add `tls`, or write `http1` or `http2`"),
                at,
            );
        }
        PoolProtocol::Auto
    }

    fn pool_tls(&mut self, raw: &RawPoolTls, at: ConfigPath) -> PoolTlsConfig {
        if !raw.verify && raw.ca.is_some() {
            let message = "`ca` is not used: nothing is verified";
            self.push(
                Diagnostic::warning("unused", message.to_owned()).help("remove `verify: false`"),
                &at.join("ca"),
            );
        }
        PoolTlsConfig {
            server_name: raw.server_name.clone(),
            ca: raw
                .ca
                .as_ref()
                .map(|ca| self.pem("certificate", ca, &at.join("ca"))),
            verify: raw.verify,
            certificate: raw.certificate.as_ref().map(|certificate| {
                let at = at.join("certificate");
                CertificateConfig {
                    cert: self.pem("certificate", &certificate.cert, &at.join("cert")),
                    key: self.pem("private key", &certificate.key, &at.join("key")),
                    at,
                }
            }),
            min_version: if raw.min_version.is_1_3() {
                TlsVersion::V1_3
            } else {
                TlsVersion::V1_2
            },
            at,
        }
    }

    fn endpoints(
        &mut self,
        raw: &[RawEndpoint],
        at: &ConfigPath,
        modules: &ModulesConfig,
    ) -> Vec<EndpointConfig> {
        let mut known: HashMap<EndpointAddress, ConfigPath> = HashMap::with_capacity(raw.len());
        let mut out = Vec::with_capacity(raw.len());
        for (i, endpoint) in raw.iter().enumerate() {
            let at = at.join(i);
            let (text, weight, place) = match endpoint {
                RawEndpoint::Address(text) => (text, 1, at.clone()),
                RawEndpoint::Weighted(endpoint) => {
                    (&endpoint.address, endpoint.weight, at.join("address"))
                }
            };
            let handler = self.handler_endpoint(text, &place, modules);
            let address = match handler.map_or_else(|| units::endpoint(text), Ok) {
                Ok(address) => address,
                Err(why) => {
                    let message = format!("{} is not the address of an endpoint", quoted(text));
                    self.push(Diagnostic::error("bad-address", message).help(why), &place);
                    continue;
                }
            };
            if let Some(first) = known.get(&address)
                && !is_full(self.found, Severity::Warning)
            {
                let mut warning = Diagnostic::warning(
                    "duplicate-endpoint",
                    format!("endpoint {} is listed twice", quoted(text)),
                )
                .help("a larger share of the traffic is `{address: …, weight: 2}`");
                if let Some(first) = self.sources.locate(first) {
                    warning = warning.label(first, "first listed here");
                }
                self.push(warning, &place);
            }
            known.entry(address.clone()).or_insert(place);
            out.push(EndpointConfig {
                address,
                weight,
                at,
            });
        }
        if !out.is_empty() && out.iter().all(|endpoint| endpoint.weight == 0) {
            self.push(
                Diagnostic::warning(
                    "no-weight",
                    "every endpoint has weight 0: none gets traffic",
                ),
                at,
            );
        }
        out
    }

    fn check(&mut self, raw: &RawCheck, at: &ConfigPath) -> Option<CheckConfig> {
        let full = raw.in_full();
        let kind = match (&full.tcp, &full.http) {
            (Some(_), None) => CheckKind::Tcp,
            (None, Some(http)) => self.http_check(http, &at.join("http")),
            (None, None) if self.has(&at.join("tcp")) || self.has(&at.join("http")) => return None,
            (None, None) => {
                let problem =
                    Diagnostic::error("check-kind", "the check does not say what to probe");
                self.push(problem.help("add `tcp: {}` or `http: {path: /}`"), at);
                return None;
            }
            (Some(_), Some(_)) => {
                self.error(
                    at,
                    "check-kind",
                    "a check has one kind, `tcp` or `http`, not both",
                );
                return None;
            }
        };
        let shortest = Duration::from_millis(10);
        let interval = self.duration(&full.interval, &at.join("interval"), shortest);
        let fast_interval = match &full.fast_interval {
            None => interval.min(Duration::from_secs(1)),
            Some(raw) => {
                let at = at.join("fast-interval");
                let fast = self.duration(raw, &at, shortest);
                if fast > interval {
                    let problem =
                        Diagnostic::error("bad-value", "`fast-interval` is longer than `interval`");
                    self.push(problem.help("make it shorter, or leave it out"), &at);
                }
                fast
            }
        };
        Some(CheckConfig {
            kind,
            interval,
            fast_interval,
            timeout: self.duration(&full.timeout, &at.join("timeout"), MILLISECOND),
            rise: full.rise,
            fall: full.fall,
        })
    }

    fn http_check(&mut self, raw: &RawHttpCheck, at: &ConfigPath) -> CheckKind {
        if http::Method::from_bytes(raw.method.as_bytes()).is_err() {
            self.error(
                &at.join("method"),
                "bad-value",
                format!("{} is not a method", quoted(&raw.method)),
            );
        }
        let target = http::uri::PathAndQuery::try_from(raw.path.as_str());
        if !raw.path.starts_with('/') || target.is_err() {
            let message = format!("{} is not a path", quoted(&raw.path));
            self.push(
                Diagnostic::error("bad-value", message).help("a path starts with `/`"),
                &at.join("path"),
            );
        }
        if let Some(host) = &raw.host
            && !is_authority(host)
        {
            self.error(
                &at.join("host"),
                "bad-value",
                format!("{} is not a host", quoted(host)),
            );
        }
        let status = at.join("status");
        let ranges = raw
            .status
            .as_slice()
            .iter()
            .enumerate()
            .filter_map(|(i, one)| {
                let place = if raw.status.is_many() {
                    status.join(i)
                } else {
                    status.clone()
                };
                self.status(one, &place)
            });
        let ranges: Vec<_> = ranges.collect();
        if matches!(&raw.status, OneOrMany::Many(list) if list.is_empty()) {
            self.error(&status, "bad-value", "no status counts as success");
        }
        CheckKind::Http {
            method: raw.method.clone(),
            path: raw.path.clone(),
            host: raw.host.clone(),
            status: ranges,
        }
    }

    fn status(&mut self, raw: &RawStatus, at: &ConfigPath) -> Option<(u16, u16)> {
        let range = match raw {
            RawStatus::One(status) => Some((*status, *status)),
            RawStatus::Range(text) => {
                let (low, high) = text.split_once('-').unwrap_or((text, text));
                low.trim().parse().ok().zip(high.trim().parse().ok())
            }
        };
        let range = range.filter(|(low, high)| 100 <= *low && low <= high && *high <= 999);
        if range.is_none() {
            let text = match raw {
                RawStatus::One(status) => status.to_string(),
                RawStatus::Range(text) => quoted(text),
            };
            let message = format!("{text} is not a status or a range of them");
            self.push(
                Diagnostic::error("bad-value", message).help("write `200` or `200-399`"),
                at,
            );
        }
        range
    }

    fn host(&mut self, raw: &str, at: &ConfigPath) -> HostPolicy {
        match raw {
            "preserve" => HostPolicy::Preserve,
            "endpoint" => HostPolicy::Endpoint,
            literal => {
                if !is_authority(literal) {
                    let message = format!("{} is not a host", quoted(literal));
                    let help = "write `preserve`, `endpoint`, or a host with an optional port";
                    self.push(Diagnostic::error("bad-value", message).help(help), at);
                }
                HostPolicy::Literal(literal.to_owned())
            }
        }
    }
}

fn is_authority(text: &str) -> bool {
    !text.contains('@') && http::uri::Authority::try_from(text).is_ok()
}
