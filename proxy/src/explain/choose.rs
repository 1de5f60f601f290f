//! From a URL to the listener that would take it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::config::Protocol;
use crate::generation::{Generation, Listener};

/// The part of a URL before `://`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
    Tcp,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// None when only a path was given: the listener's then.
    pub scheme: Option<Scheme>,
    /// `host[:port]`, with brackets around IPv6; empty when only a path was given.
    pub authority: String,
    /// Path and query; begins with a slash.
    pub target: String,
}

/// Why a text is no URL that can be explained. Says what to write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    #[error(
        "\"{0}\" is no URL: write http://HOST[:PORT]/PATH, https://…, tcp://HOST:PORT, or a /PATH alone"
    )]
    Form(String),
    #[error("there is no listener for \"{0}://\": write http://, https:// or tcp://")]
    Scheme(String),
    #[error("\"{0}\" is not a host with a port: write HOST, HOST:PORT, or [IPV6]:PORT")]
    Authority(String),
    #[error("a URL with a user name: give it as a header, -H 'Authorization: Basic …'")]
    User,
    #[error("tcp://{0} lacks the port: write tcp://HOST:PORT")]
    Port(String),
}

/// A listener, and its address that the connection comes in at.
#[derive(Clone)]
pub struct Choice {
    pub listener: Arc<Listener>,
    pub address: SocketAddr,
}

/// Why no listener is the one. The text lists those there are.
#[derive(Debug, thiserror::Error)]
#[error("{message}{listed}")]
pub struct ChooseError {
    message: String,
    listed: String,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Tcp => "tcp",
        }
    }

    fn default_port(self) -> Option<u16> {
        match self {
            Scheme::Http => Some(80),
            Scheme::Https => Some(443),
            Scheme::Tcp => None,
        }
    }
}

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.starts_with('/') {
            return Ok(Url {
                scheme: None,
                authority: String::new(),
                target: text.to_owned(),
            });
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| UrlError::Form(text.to_owned()))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "tcp" => Scheme::Tcp,
            other => return Err(UrlError::Scheme(other.to_owned())),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        // A fragment stays with the client.
        let target = target.split('#').next().unwrap_or_default();
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let (host, port) = split(authority).ok_or(UrlError::Authority(authority.to_owned()))?;
        if host.is_empty() {
            return Err(UrlError::Authority(authority.to_owned()));
        }
        if scheme == Scheme::Tcp && port.is_none() {
            return Err(UrlError::Port(authority.to_owned()));
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url {
            scheme: Some(scheme),
            authority: authority.to_owned(),
            target: format!("{slash}{target}"),
        })
    }
}

impl Url {
    /// The host without port and brackets.
    pub fn host(&self) -> &str {
        split(&self.authority).map_or("", |(host, _)| host)
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    fn port(&self) -> Option<u16> {
        split(&self.authority)?.1
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{}://{}", scheme.as_str(), self.authority)?;
        }
        match self.scheme {
            Some(Scheme::Tcp) => Ok(()),
            _ => f.write_str(&self.target),
        }
    }
}

/// The listener called `name`, or the one that fits the URL's scheme, host and port; when the URL says no port and
/// none listens at the scheme's own, the only one that speaks it.
pub fn choose(
    generation: &Generation,
    url: &Url,
    name: Option<&str>,
) -> Result<Choice, ChooseError> {
    let able: Vec<&Arc<Listener>> = generation
        .listeners
        .iter()
        .filter(|listener| speaks(listener, url.scheme))
        .collect();
    if let Some(name) = name {
        return named(generation, &able, url, name);
    }
    let port = url.port().or(url.scheme.and_then(Scheme::default_port));
    let fits: Vec<Choice> = able
        .iter()
        .filter_map(|listener| {
            let fits = |bind: &&SocketAddr| Some(bind.port()) == port && takes(bind, url);
            let bind = listener.config.bind.iter().find(fits)?;
            Some(at(listener, bind, url))
        })
        .collect();
    match (&fits[..], &able[..]) {
        ([one], _) => Ok(one.clone()),
        // Behind a balancer or a port mapping the URL's port is not the listener's.
        ([], [only]) if url.port().is_none() => first(only, url),
        ([], []) => Err(error(
            match url.scheme {
                Some(scheme) => format!("no listener speaks {}", scheme.as_str()),
                None => "no listener speaks HTTP".to_owned(),
            },
            &generation.listeners,
        )),
        ([], _) if url.scheme.is_none() => {
            let message = "a path does not say which listener it is for: name one with --listener";
            Err(error(message.to_owned(), able))
        }
        ([], _) => {
            let message = format!(
                "no listener takes {url}: name one with --listener, or write its port into the URL"
            );
            Err(error(message, able))
        }
        (several, _) => {
            let message =
                format!("{url} fits more than one listener: name one of them with --listener");
            Err(error(
                message,
                several.iter().map(|choice| &choice.listener),
            ))
        }
    }
}

fn named(
    generation: &Generation,
    able: &[&Arc<Listener>],
    url: &Url,
    name: &str,
) -> Result<Choice, ChooseError> {
    let listener = generation
        .listeners
        .iter()
        .find(|listener| *listener.config.name == *name);
    let Some(listener) = listener else {
        let message = format!("no listener is called \"{name}\"");
        return Err(error(message, &generation.listeners));
    };
    if !able.iter().any(|able| Arc::ptr_eq(able, listener)) {
        let message = format!(
            "listener \"{name}\" speaks {}, and the URL says {}",
            speech(listener),
            url.scheme.map_or("http or https", Scheme::as_str)
        );
        return Err(error(message, &generation.listeners));
    }
    let exact = listener
        .config
        .bind
        .iter()
        .find(|bind| Some(bind.port()) == url.port() && takes(bind, url));
    match exact {
        Some(bind) => Ok(at(listener, bind, url)),
        None => first(listener, url),
    }
}

fn speaks(listener: &Listener, scheme: Option<Scheme>) -> bool {
    let config = &listener.config;
    match scheme {
        None => config.protocol == Protocol::Http,
        Some(Scheme::Http) => config.protocol == Protocol::Http && config.tls.is_none(),
        Some(Scheme::Https) => config.protocol == Protocol::Http && config.tls.is_some(),
        Some(Scheme::Tcp) => config.protocol == Protocol::Tcp,
    }
}

fn speech(listener: &Listener) -> &'static str {
    match (listener.config.protocol, listener.config.tls.is_some()) {
        (Protocol::Http, false) => "http",
        (Protocol::Http, true) => "https",
        (Protocol::Tcp, false) => "tcp",
        (Protocol::Tcp, true) => "tcp over TLS",
    }
}

/// Whether a connection to the URL's host may arrive at `bind`. Where a name leads is not known: it may.
fn takes(bind: &SocketAddr, url: &Url) -> bool {
    match url.ip() {
        Some(ip) => bind.ip() == ip || bind.ip().is_unspecified() && covers(bind.ip(), ip),
        None => true,
    }
}

/// `[::]` takes IPv4 too.
fn covers(all: IpAddr, ip: IpAddr) -> bool {
    all.is_ipv6() || ip.is_ipv4()
}

fn first(listener: &Arc<Listener>, url: &Url) -> Result<Choice, ChooseError> {
    // The configuration allows no listener without an address.
    match listener.config.bind.first() {
        Some(bind) => Ok(at(listener, bind, url)),
        None => Err(error("the listener has no address".to_owned(), [listener])),
    }
}

/// The local address a connection would have: of a wildcard, the URL's own or loopback.
fn at(listener: &Arc<Listener>, bind: &SocketAddr, url: &Url) -> Choice {
    let ip = match (bind.ip(), url.ip()) {
        (all, Some(ip)) if all.is_unspecified() && covers(all, ip) => ip,
        (IpAddr::V4(all), _) if all.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        (IpAddr::V6(all), _) if all.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        (ip, _) => ip,
    };
    Choice {
        listener: listener.clone(),
        address: SocketAddr::new(ip, bind.port()),
    }
}

fn error<'a>(
    message: String,
    listeners: impl IntoIterator<Item = &'a Arc<Listener>>,
) -> ChooseError {
    let mut listed = String::new();
    for listener in listeners {
        let config = &listener.config;
        let binds: Vec<String> = config.bind.iter().map(SocketAddr::to_string).collect();
        let line = format!(
            "\n  \"{}\" speaks {} at {}",
            config.name,
            speech(listener),
            binds.join(", ")
        );
        listed.push_str(&line);
    }
    if listed.is_empty() {
        listed.push_str("\nthe configuration has no listeners");
    }
    ChooseError { message, listed }
}

/// Host and port of `host[:port]`; none when it is neither.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        Some(port) => port.parse().ok().map(|port| (host, Some(port))),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: Result<(&str, Option<u16>, &str), UrlError>| {
            let url = text.parse::<Url>();
            let got = url
                .as_ref()
                .map(|url| (url.host(), url.port(), url.target.as_str()));
            assert_eq!(got, expected.as_ref().copied(), "{text}");
        };
        check("http://a.test", Ok(("a.test", None, "/")));
        check(
            "HTTP://a.test:8080/x?y#z",
            Ok(("a.test", Some(8080), "/x?y")),
        );
        check("https://[::1]:8443?q", Ok(("::1", Some(8443), "/?q")));
        check("tcp://10.0.0.1:22", Ok(("10.0.0.1", Some(22), "/")));
        check("/path?x", Ok(("", None, "/path?x")));
        check("a.test/x", Err(UrlError::Form("a.test/x".into())));
        check("ftp://a/", Err(UrlError::Scheme("ftp".into())));
        check("tcp://a", Err(UrlError::Port("a".into())));
        check("http://u@a/", Err(UrlError::User));
        check("http://::1/", Err(UrlError::Authority("::1".into())));
        check(
            "http://a:99999/",
            Err(UrlError::Authority("a:99999".into())),
        );
        check("http:///x", Err(UrlError::Authority("".into())));
    }
}
