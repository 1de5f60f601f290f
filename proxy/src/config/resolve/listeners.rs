//! `listeners:`

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::chain::Scope;
use super::resolver::Resolver;
use crate::config::diagnostic::{Diagnostic, quoted};
use crate::config::model::{
    CertificateConfig, ConfigPath, Forwarded, HttpOptions, ListenerConfig, ListenerLimits,
    ModulesConfig, Protocol, TcpOptions, Timeouts, TlsConfig, TlsVersion,
};
use crate::config::node::NodeValue;
use crate::config::pem::Pem;
use crate::config::raw::{
    DurationOrOff, HTTP_ONLY, HTTP_ONLY_LIMITS, HTTP_ONLY_TIMEOUTS, RawForwarded, RawLimits,
    RawListener, RawProtocol, RawTcp, RawTimeouts, RawTls,
};
use crate::config::units;
use crate::error::why;

impl Resolver<'_> {
    pub(super) fn listeners(
        &mut self,
        raw: &[RawListener],
        scope: &mut Scope,
        modules: &ModulesConfig,
    ) -> Vec<Arc<ListenerConfig>> {
        let section = ConfigPath::default().join("listeners");
        let mut names: HashMap<&str, ConfigPath> = HashMap::new();
        let mut binds: HashMap<SocketAddr, ConfigPath> = HashMap::new();
        let mut out = Vec::with_capacity(raw.len());
        for (i, raw) in raw.iter().enumerate() {
            let at = section.join(i);
            let name_at = at.join("name");
            self.name("listener", &raw.name, &name_at);
            if let Some(first) = names.get(raw.name.as_str()) {
                let message = format!("two listeners are named {}", quoted(&raw.name));
                self.twice("duplicate-listener", message, &name_at, first);
            }
            names.entry(&raw.name).or_insert(name_at);
            out.push(Arc::new(self.listener(raw, at, scope, modules, &mut binds)));
        }
        out
    }

    fn listener(
        &mut self,
        raw: &RawListener,
        at: ConfigPath,
        scope: &mut Scope,
        modules: &ModulesConfig,
        binds: &mut HashMap<SocketAddr, ConfigPath>,
    ) -> ListenerConfig {
        let protocol = match raw.protocol {
            RawProtocol::Tcp => Protocol::Tcp,
            RawProtocol::Http => Protocol::Http,
        };
        if protocol == Protocol::Tcp {
            self.http_only(&at, &HTTP_ONLY);
            self.http_only(&at.join("timeouts"), &HTTP_ONLY_TIMEOUTS);
            self.http_only(&at.join("limits"), &HTTP_ONLY_LIMITS);
        }
        let filters = self.chain(raw, &at, scope, modules);
        let pool = raw
            .pool
            .as_ref()
            .and_then(|name| self.pool_index(raw, name, &at.join("pool"), scope));
        let serves = |key| self.has(&at.join(key));
        if raw.filters.is_empty()
            && !serves("pool")
            && !(serves("filters") && self.is_blamed(&at.join("filters")))
        {
            let message = format!(
                "listener {} has neither a pool nor a filter",
                quoted(&raw.name)
            );
            self.push(
                Diagnostic::error("missing-pool", message).help("add `pool: NAME`"),
                &at,
            );
        }
        ListenerConfig {
            name: raw.name.as_str().into(),
            bind: self.binds(raw, &at.join("bind"), binds),
            protocol,
            tls: raw.tls.as_ref().map(|tls| self.tls(tls, at.join("tls"))),
            filters,
            pool,
            tcp: self.tcp(&raw.tcp, &at.join("tcp")),
            timeouts: self.timeouts(&raw.timeouts, &at.join("timeouts")),
            limits: self.limits(&raw.limits, &at.join("limits")),
            http: self.http(raw, &at),
            at,
        }
    }

    fn binds(
        &mut self,
        raw: &RawListener,
        at: &ConfigPath,
        known: &mut HashMap<SocketAddr, ConfigPath>,
    ) -> Vec<SocketAddr> {
        let mut out = Vec::new();
        for (i, text) in raw.bind.as_slice().iter().enumerate() {
            let at = if raw.bind.is_many() {
                at.join(i)
            } else {
                at.clone()
            };
            let address = match units::bind(text) {
                Ok(address) => address,
                Err(why) => {
                    let message = format!("{} is not an address to bind", quoted(text));
                    self.push(Diagnostic::error("bad-address", message).help(why), &at);
                    continue;
                }
            };
            // Port 0 is another port every time.
            if address.port() != 0 {
                match known.get(&address) {
                    Some(first) => {
                        self.twice(
                            "duplicate-bind",
                            format!("{} is bound twice", quoted(text)),
                            &at,
                            &first.clone(),
                        );
                    }
                    None => {
                        known.insert(address, at);
                    }
                }
            }
            out.push(address);
        }
        if raw.bind.is_many() && raw.bind.as_slice().is_empty() {
            self.error(
                at,
                "bad-address",
                format!("listener {} binds no address", quoted(&raw.name)),
            );
        }
        out
    }

    fn tls(&mut self, raw: &RawTls, at: ConfigPath) -> TlsConfig {
        let list = at.join("certificates");
        let certificates = raw.certificates.iter().enumerate().map(|(i, certificate)| {
            let at = list.join(i);
            CertificateConfig {
                cert: self.pem("certificate", &certificate.cert, &at.join("cert")),
                key: self.pem("private key", &certificate.key, &at.join("key")),
                at,
            }
        });
        let certificates = certificates.collect();
        for (i, name) in raw.alpn.iter().enumerate() {
            if name.is_empty() || name.len() > 255 {
                let message = format!("{} is not a protocol name: 1 to 255 bytes", quoted(name));
                self.error(&at.join("alpn").join(i), "bad-value", message);
            }
        }
        TlsConfig {
            certificates,
            min_version: if raw.min_version.is_1_3() {
                TlsVersion::V1_3
            } else {
                TlsVersion::V1_2
            },
            suites: raw.suites.clone(),
            alpn: raw.alpn.clone(),
            resumption: raw.resumption,
            at,
        }
    }

    /// PEM as it is, or a file that is there and may be read; what it holds is for others to judge.
    pub(super) fn pem(&mut self, what: &str, text: &str, at: &ConfigPath) -> Pem {
        if let Some(pem) = Pem::text(text) {
            return pem;
        }
        let node = self.sources.node(at).map(|node| &node.value);
        if matches!(node, Some(NodeValue::Scalar(scalar)) if scalar.secret) {
            // It may be a key all the same, so that nothing of it is shown.
            let message = format!("the {what} is not PEM: \"-----BEGIN\" is missing");
            self.error(at, "bad-value", message);
            return Pem::Text(String::new());
        }
        Pem::File(self.readable(what, text, at))
    }

    /// A file that is there and may be read; what it holds is for others to judge.
    pub(super) fn readable(&mut self, what: &str, text: &str, at: &ConfigPath) -> PathBuf {
        let path = self.path(text, at);
        if let Err(reason) = probe(&path) {
            let message = format!(
                "cannot read the {what} {}: {reason}",
                quoted(&path.display().to_string())
            );
            let mut diagnostic = Diagnostic::error("unreadable-file", message);
            if let Some(help) = file_help(&path) {
                diagnostic = diagnostic.help(help);
            }
            self.push(diagnostic, at);
        }
        path
    }

    fn tcp(&mut self, raw: &RawTcp, at: &ConfigPath) -> TcpOptions {
        let buffer_at = at.join("socket-buffer");
        TcpOptions {
            nodelay: raw.nodelay,
            socket_buffer: raw
                .socket_buffer
                .as_ref()
                .map(|size| self.size(size, &buffer_at, 2 << 10, 1 << 30)),
            backlog: raw.backlog,
            splice: raw.splice,
            keep_alive: match &raw.keep_alive {
                DurationOrOff::Off(_) => None,
                DurationOrOff::Duration(text) => {
                    Some(self.duration(text, &at.join("keep-alive"), Duration::from_secs(1)))
                }
            },
        }
    }

    fn timeouts(&mut self, raw: &RawTimeouts, at: &ConfigPath) -> Timeouts {
        let mut timeout =
            |text, key: &str| self.duration(text, &at.join(key), Duration::from_millis(1));
        Timeouts {
            handshake: timeout(&raw.handshake, "handshake"),
            head: timeout(&raw.head, "head"),
            body_idle: timeout(&raw.body_idle, "body-idle"),
            response_head: timeout(&raw.response_head, "response-head"),
            stream_idle: timeout(&raw.stream_idle, "stream-idle"),
            half_closed: timeout(&raw.half_closed, "half-closed"),
            keep_alive: timeout(&raw.keep_alive, "keep-alive"),
            linger: timeout(&raw.linger, "linger"),
            total: raw.total.as_ref().map(|total| timeout(total, "total")),
        }
    }

    fn limits(&mut self, raw: &RawLimits, at: &ConfigPath) -> ListenerLimits {
        ListenerLimits {
            connections: raw.connections as usize,
            header_bytes: self.size(
                &raw.header_bytes,
                &at.join("header-bytes"),
                1 << 10,
                16 << 20,
            ),
            header_fields: raw.header_fields as usize,
            target_bytes: self.size(&raw.target_bytes, &at.join("target-bytes"), 64, 1 << 20),
            streams: raw.streams,
            replay_bytes: self.size(&raw.replay_bytes, &at.join("replay-bytes"), 0, 64 << 20),
            linger_bytes: self.size(&raw.linger_bytes, &at.join("linger-bytes"), 0, 1 << 40),
        }
    }

    fn http(&mut self, raw: &RawListener, at: &ConfigPath) -> HttpOptions {
        let networks_at = at.join("trusted-proxies");
        let mut trusted_proxies = Vec::with_capacity(raw.trusted_proxies.len());
        for (i, text) in raw.trusted_proxies.iter().enumerate() {
            match text
                .parse::<ipnet::IpNet>()
                .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
            {
                Ok(network) => trusted_proxies.push(network.trunc()),
                Err(_) => {
                    let message = format!("{} is not a network", quoted(text));
                    let help = "write an address with a prefix length, `10.0.0.0/8`, or an address";
                    self.push(
                        Diagnostic::error("bad-address", message).help(help),
                        &networks_at.join(i),
                    );
                }
            }
        }
        for (i, name) in raw.upgrade.iter().enumerate() {
            if !is_token(name) {
                let message = format!("{} is not a protocol name", quoted(name));
                self.error(&at.join("upgrade").join(i), "bad-value", message);
            }
        }
        if !is_token(&raw.via) {
            let message = format!("{} cannot name this proxy", quoted(&raw.via));
            self.push(
                Diagnostic::error("bad-value", message).help("letters, digits, `.`, `-` and `_`"),
                &at.join("via"),
            );
        }
        HttpOptions {
            forwarded: match raw.forwarded {
                RawForwarded::X => Forwarded::X,
                RawForwarded::Rfc7239 => Forwarded::Rfc7239,
                RawForwarded::Both => Forwarded::Both,
                RawForwarded::None => Forwarded::None,
            },
            trusted_proxies,
            http2: raw.http2,
            upgrade: raw
                .upgrade
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            trace: raw.trace,
            via: raw.via.clone(),
        }
    }

    fn http_only(&mut self, at: &ConfigPath, keys: &[&str]) {
        for key in keys {
            let at = at.join(key);
            if self.has(&at) && !self.is_full() {
                let message = format!("`{key}` means nothing with `protocol: tcp`");
                let mut diagnostic = Diagnostic::error("http-only", message)
                    .help("remove it, or use `protocol: http`");
                diagnostic.path = at.clone();
                diagnostic.at = self.key_location(&at);
                self.found.push(diagnostic);
            }
        }
    }

    fn twice(&mut self, code: &'static str, message: String, at: &ConfigPath, first: &ConfigPath) {
        if self.is_full() {
            return;
        }
        let mut diagnostic = Diagnostic::error(code, message);
        if let Some(first) = self.sources.locate(first) {
            diagnostic = diagnostic.label(first, "first used here");
        }
        diagnostic = diagnostic.help(match code {
            "duplicate-listener" => "give each a name of its own: logs and metrics go by it",
            _ => "one address serves one listener",
        });
        self.push(diagnostic, at);
    }
}

fn probe(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|e| why(&e))?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    std::fs::File::open(path).map(drop).map_err(|e| why(&e))
}

/// What to do about a file that is not there, or not for us.
fn file_help(path: &Path) -> Option<String> {
    match std::fs::File::open(path).err()?.kind() {
        std::io::ErrorKind::NotFound => {
            Some("paths start at the directory of the file that names them".to_owned())
        }
        std::io::ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            Some(format!(
                "let the user with the id {user}, which this process runs as, read it"
            ))
        }
        _ => None,
    }
}

/// RFC 9110 §5.6.2, with the `/` of protocol names.
fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed)
}
