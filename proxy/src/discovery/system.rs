//! Names by the machine's own rules: the hosts file first, then the name servers of resolv.conf.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;
use tokio::io::AsyncReadExt;

use super::{Answer, Resolve, ResolveError, Resolving, hosts};

/// A hosts file larger than this is read only so far.
const HOSTS_BYTES_MAX: u64 = 4 << 20;

/// Resolves as the C library would, without its threads: both files are looked at again for every question, so
/// that an edit or a new DHCP lease is seen without a reload.
///
/// A name gives its IPv4 addresses, or its IPv6 addresses when it has no other: a dual-stack host is one endpoint,
/// not two. Answers are not cached here; how often a name is asked is the pool's decision.
pub struct SystemResolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    /// Asked instead of those of resolv.conf.
    own: Option<Dns>,
    servers: Mutex<Servers>,
}

#[derive(Default)]
struct Servers {
    /// When the resolv.conf that `dns` was built from was written; none before the first look.
    written: Option<SystemTime>,
    /// None: no name server is configured.
    dns: Option<Dns>,
}

/// Name servers, and what may be added to a name that they do not know.
#[derive(Clone)]
struct Dns {
    resolver: TokioResolver,
    search: Vec<String>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

impl SystemResolver {
    pub fn new() -> Self {
        Self::with_files("/etc/hosts".into(), "/etc/resolv.conf".into())
    }

    /// The hosts file first, then `servers`.
    pub fn asking(servers: Vec<SocketAddr>) -> Self {
        let servers = servers.into_iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        let config = ResolverConfig::from_parts(None, vec![], servers.collect());
        Self {
            own: asking(config, ResolverOpts::default())
                .inspect_err(|error| tracing::warn!(%error, "names cannot be resolved by DNS"))
                .ok(),
            ..Self::new()
        }
    }

    fn with_files(hosts: PathBuf, resolv_conf: PathBuf) -> Self {
        Self {
            hosts,
            resolv_conf,
            own: None,
            servers: Mutex::default(),
        }
    }

    async fn ask(&self, host: &str) -> Result<Answer, ResolveError> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Answer::new(vec![ip], None);
        }
        let known = hosts::addresses(&self.read_hosts().await, host);
        if !known.is_empty() {
            return Answer::new(known, None);
        }
        let Some(dns) = self.dns().await else {
            return Err(ResolveError::Other(
                "not in the hosts file, and no name server is configured".into(),
            ));
        };
        dns.ask(host).await
    }

    /// A file that is missing or unreadable is an empty one.
    async fn read_hosts(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(file) = tokio::fs::File::open(&self.hosts).await {
            // What was read before an error still counts.
            let _ = file.take(HOSTS_BYTES_MAX).read_to_end(&mut bytes).await;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn dns(&self) -> Option<Dns> {
        if self.own.is_some() {
            return self.own.clone();
        }
        let metadata = tokio::fs::metadata(&self.resolv_conf).await.ok()?;
        let written = metadata.modified().ok();
        {
            let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            if servers.written.is_some() && servers.written == written {
                return servers.dns.clone();
            }
        }
        let text = tokio::fs::read(&self.resolv_conf).await.ok()?;
        let dns = build(&text);
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        *servers = Servers {
            written,
            dns: dns.clone(),
        };
        dns
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(self.ask(host))
    }
}

fn build(resolv_conf: &[u8]) -> Option<Dns> {
    let (config, options) = hickory_resolver::system_conf::parse_resolv_conf(resolv_conf)
        .inspect_err(|error| tracing::warn!(%error, "resolv.conf names no usable server"))
        .ok()?;
    asking(config, options)
        .inspect_err(|error| tracing::warn!(%error, "names cannot be resolved by DNS"))
        .ok()
}

fn asking(config: ResolverConfig, mut options: ResolverOpts) -> Result<Dns, NetError> {
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    options.timeout = options.timeout.min(Duration::from_secs(2));
    let search = config.search().iter().chain(config.domain());
    let search = search.map(|name| name.to_ascii()).collect();
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()?;
    Ok(Dns { resolver, search })
}

impl Dns {
    /// The resolver goes through the search list and gives what was said last. That the last name does not exist says
    /// nothing of those before it for which a server had failed, so that each is asked alone before a name counts as gone.
    async fn ask(&self, host: &str) -> Result<Answer, ResolveError> {
        let asked = by_dns(&self.resolver, host).await;
        let is_gone = matches!(asked, Err(ResolveError::NoAddress));
        if !is_gone || self.search.is_empty() || host.ends_with('.') {
            return asked;
        }
        for suffix in self.search.iter().map(String::as_str).chain([""]) {
            let absolute = format!("{host}.{}", suffix.trim_end_matches('.'));
            let absolute = format!("{}.", absolute.trim_end_matches('.'));
            match by_dns(&self.resolver, &absolute).await {
                Err(ResolveError::NoAddress) => {}
                answered => return answered,
            }
        }
        asked
    }
}

/// IPv6 addresses only where the server says that there are no others. A name has no address when both answers say so: one
/// that did not come says nothing.
async fn by_dns(dns: &TokioResolver, host: &str) -> Result<Answer, ResolveError> {
    let first = match answer(dns.lookup(host, RecordType::A).await) {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    match first {
        ResolveError::NoAddress => answer(dns.lookup(host, RecordType::AAAA).await),
        first => Err(first),
    }
}

fn answer(lookup: Result<Lookup, NetError>) -> Result<Answer, ResolveError> {
    let lookup = lookup.map_err(|e| reason(&e))?;
    let ttl = lookup
        .valid_until()
        .saturating_duration_since(Instant::now());
    let addresses = lookup.answers().iter().filter_map(|r| r.data.ip_addr());
    Answer::new(addresses.collect(), Some(ttl))
}

fn reason(error: &NetError) -> ResolveError {
    if error.is_no_records_found() || error.is_nx_domain() {
        return ResolveError::NoAddress;
    }
    match error {
        NetError::Timeout => ResolveError::Timeout,
        other => ResolveError::Other(other.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record};

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn the_hosts_file_answers_and_edits_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        let resolver = SystemResolver::with_files(hosts.clone(), dir.path().join("none"));
        run(async {
            let loopback = "127.0.0.1".parse::<IpAddr>().unwrap();
            let answer = resolver.resolve("localhost").await.unwrap();
            assert_eq!(answer.addresses, vec![loopback]);
            assert!(matches!(
                resolver.resolve("web1").await,
                Err(ResolveError::Other(_))
            ));
            for ip in ["10.0.0.1", "10.0.0.2"] {
                std::fs::write(&hosts, format!("{ip} web1\n")).unwrap();
                let answer = resolver.resolve("web1").await.unwrap();
                assert_eq!(answer.addresses, vec![ip.parse::<IpAddr>().unwrap()]);
            }
            let literal = resolver.resolve("::1").await.unwrap();
            assert_eq!(literal.addresses, vec!["::1".parse::<IpAddr>().unwrap()]);
        });
    }

    #[test]
    fn a_name_server_is_asked_and_a_new_resolv_conf_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("resolv.conf");
        std::fs::write(&conf, "# empty\n").unwrap();
        let resolver = SystemResolver::with_files(dir.path().join("none"), conf.clone());
        run(async {
            assert!(resolver.dns().await.is_none());
            std::fs::write(&conf, "nameserver 127.0.0.1\n").unwrap();
            let later = SystemTime::now() + Duration::from_secs(5);
            std::fs::File::open(&conf)
                .unwrap()
                .set_modified(later)
                .unwrap();
            assert!(resolver.dns().await.is_some());
        });
    }

    #[test]
    fn the_system_knows_localhost() {
        run(async {
            let answer = SystemResolver::new().resolve("localhost").await.unwrap();
            assert!(answer.addresses.iter().all(IpAddr::is_loopback));
        });
    }

    #[test]
    fn answers_are_sorted_bounded_and_never_empty() {
        let many: Vec<IpAddr> = (0..3000u32)
            .rev()
            .map(|n| IpAddr::from(n.to_be_bytes()))
            .collect();
        let answer = Answer::new(many, None).unwrap();
        assert_eq!(answer.addresses.len(), super::super::ADDRESSES_MAX);
        assert!(answer.addresses.is_sorted());
        assert_eq!(Answer::new(vec![], None), Err(ResolveError::NoAddress));
    }

    /// Answers every question over UDP from `zone`; other names do not exist.
    async fn name_server(zone: &'static [(&'static str, &'static str)]) -> Dns {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                let question = Message::from_vec(&packet[..length]).unwrap();
                let query = question.queries[0].clone();
                let asked = query.name().to_ascii().to_lowercase();
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                let known: Vec<_> = zone.iter().filter(|(name, _)| *name == asked).collect();
                if known.is_empty() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                for (_, ip) in known {
                    if *ip == "fails" {
                        answer.metadata.response_code = ResponseCode::ServFail;
                        continue;
                    }
                    let data = RData::from(ip.parse::<IpAddr>().unwrap());
                    if data.record_type() == query.query_type() {
                        let name = query.name().clone();
                        answer.add_answer(Record::from_rdata(name, 7, data));
                    }
                }
                answer.add_query(query);
                let bytes = answer.to_vec().unwrap();
                socket.send_to(&bytes, peer).await.unwrap();
            }
        });
        let mut server = NameServerConfig::udp([127, 0, 0, 1].into());
        server.connections[0].port = port;
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        asking(config, ResolverOpts::default()).unwrap()
    }

    #[test]
    fn dns_answers_by_family_with_its_ttl() {
        run(async {
            let dns = name_server(&[
                ("four.test.", "10.0.0.2"),
                ("four.test.", "10.0.0.1"),
                ("both.test.", "fd00::1"),
                ("both.test.", "10.0.0.3"),
                ("six.test.", "fd00::2"),
            ])
            .await;
            let cases: &[(&str, &[&str])] = &[
                ("four.test", &["10.0.0.1", "10.0.0.2"]),
                ("both.test", &["10.0.0.3"]),
                ("six.test", &["fd00::2"]),
            ];
            for (host, expected) in cases {
                let answer = dns.ask(host).await.unwrap();
                let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
                assert_eq!(answer.addresses, expected, "{host}");
                let ttl = answer.ttl.unwrap();
                assert!(
                    ttl <= Duration::from_secs(7) && ttl > Duration::ZERO,
                    "{ttl:?}"
                );
            }
            let missing = dns.ask("none.test").await;
            assert_eq!(missing, Err(ResolveError::NoAddress));
            let nonsense = dns.ask("a..b").await;
            assert!(nonsense.is_err());
        });
    }
    #[test]
    fn a_failure_before_the_end_of_the_search_list_is_no_absence() {
        run(async {
            let mut dns = name_server(&[("web.corp.test.", "fails")]).await;
            dns.search = vec!["corp.test.".into(), "test.".into()];
            let failed = dns.ask("web").await;
            assert!(
                matches!(failed, Err(ResolveError::Other(_) | ResolveError::Timeout)),
                "{failed:?}"
            );
            assert_eq!(dns.ask("other").await, Err(ResolveError::NoAddress));
        });
    }
}
