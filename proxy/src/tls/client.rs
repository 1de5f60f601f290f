//! A pool's TLS towards its endpoints.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate;
use super::file::{self, FileMark};
use crate::config::{ConfigPath, Pem, PoolTlsConfig, Problem, TlsVersion};

/// Where Linux distributions keep the authorities they trust, in one file.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Sessions of one pool that can be resumed.
const SESSIONS_MAX: usize = 1024;

/// What a connection is for, as ALPN tells the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Bytes that are the client's own business: no ALPN.
    Bytes,
    Http1,
    Http2,
    /// HTTP/2 preferred.
    Either,
}

/// Shared by all workers. All offers resume each other's sessions.
#[derive(Debug)]
pub struct ClientTls {
    bytes: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    files: Vec<FileMark>,
    warnings: Vec<Problem>,
}

impl ClientTls {
    /// Reads and checks everything `config` names; all problems are reported. Reads files: for the control thread.
    pub fn load(config: &PoolTlsConfig) -> Result<Self, Vec<Problem>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (mut problems, mut files, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        let server_name = config.server_name.as_ref().and_then(|name| {
            let parsed = ServerName::try_from(name.clone());
            if parsed.is_err() {
                let message = format!("\"{name}\" is neither a host name nor an address");
                problems.push(problem(config, "server-name", message));
            }
            parsed.ok()
        });
        let roots = match config.verify {
            true => match authorities(config) {
                Ok((roots, mark)) => {
                    files.extend(mark);
                    Some(roots)
                }
                Err(found) => {
                    problems.push(found);
                    None
                }
            },
            false => None,
        };
        let certificate =
            config.certificate.as_ref().and_then(|certificate| {
                match certificate::load(certificate, &provider) {
                    Ok(loaded) => {
                        files.extend(loaded.files);
                        warnings.extend(loaded.warning);
                        Some(loaded.key)
                    }
                    Err(found) => {
                        problems.extend(found);
                        None
                    }
                }
            });
        if !problems.is_empty() {
            return Err(problems);
        }
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(config.min_version))
            .map_err(|error| vec![problem(config, "min-version", error.to_string())])?;
        let builder: ConfigBuilder<ClientConfig, WantsClientCert> = match roots {
            Some(roots) => builder.with_root_certificates(roots),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        };
        let mut bytes = match certificate {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        bytes.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        let offering = |names: &[&str]| {
            let mut config = bytes.clone();
            config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            http1: offering(&["http/1.1"]),
            http2: offering(&["h2"]),
            either: offering(&["h2", "http/1.1"]),
            bytes: Arc::new(bytes),
            server_name,
            files,
            warnings,
        })
    }

    /// The handshake over `stream`. `host` is the endpoint's name, if it has one, and `address` what it was dialled at.
    pub async fn connect(
        &self,
        stream: TcpStream,
        offer: Offer,
        host: Option<&str>,
        address: IpAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = match (&self.server_name, host) {
            (Some(name), _) => name.clone(),
            (None, Some(host)) => {
                ServerName::try_from(host.to_owned()).map_err(io::Error::other)?
            }
            (None, None) => ServerName::IpAddress(address.into()),
        };
        let config = match offer {
            Offer::Bytes => &self.bytes,
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
            Offer::Either => &self.either,
        };
        TlsConnector::from(config.clone())
            .connect(name, stream)
            .await
    }

    /// The files this was made from.
    pub fn files(&self) -> &[FileMark] {
        &self.files
    }

    /// What the operator should know though it can be used: an expired certificate.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

/// Whether the endpoint agreed to speak HTTP/2.
pub fn agreed_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match min {
        TlsVersion::V1_2 => rustls::DEFAULT_VERSIONS,
        TlsVersion::V1_3 => &FROM_1_3,
    }
}

fn authorities(config: &PoolTlsConfig) -> Result<(RootCertStore, Option<FileMark>), Problem> {
    let system = || SYSTEM_AUTHORITIES.iter().map(PathBuf::from);
    let pem = match &config.ca {
        Some(pem) => pem.clone(),
        None => system()
            .find(|path| path.is_file())
            .map(Pem::File)
            .ok_or_else(|| {
                let looked: Vec<_> = SYSTEM_AUTHORITIES.to_vec();
                let mut problem = problem(config, "", "the system's authorities are not found");
                problem.help = Some(format!(
                    "name a file as `ca`; looked for {}",
                    looked.join(", ")
                ));
                problem
            })?,
    };
    read_authorities(&pem).map_err(|why| problem(config, "ca", why))
}

/// Every certificate of the file that can be an authority; files of systems have some that cannot.
fn read_authorities(pem: &Pem) -> Result<(RootCertStore, Option<FileMark>), String> {
    let shown = pem.shown();
    let (content, mark) = file::read_pem(pem)
        .map_err(|error| format!("cannot read certificate file {shown}: {error}"))?;
    let certificates = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            let why = certificate::explain(&error);
            format!("certificate file {shown}: {why}")
        })?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(format!("{shown} contains no certificate"));
    }
    Ok((roots, mark))
}

fn problem(config: &PoolTlsConfig, key: &str, message: impl Into<String>) -> Problem {
    let at = match key {
        "" => config.at.clone(),
        key => ConfigPath(format!("{}/{key}", config.at.0)),
    };
    Problem {
        code: "tls",
        at,
        message: message.into(),
        help: None,
    }
}

/// `verify: false`: whoever answers is believed.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(ca: &Path) -> PoolTlsConfig {
        PoolTlsConfig {
            at: ConfigPath("/pools/web/tls".into()),
            server_name: None,
            ca: Some(ca.to_owned().into()),
            verify: true,
            certificate: None,
            min_version: TlsVersion::V1_2,
        }
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let made = crate::tls::self_signed(&["localhost".to_owned()], 2).unwrap();
        let (good, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        std::fs::write(&good, made.cert_pem).unwrap();
        std::fs::write(&key, made.key_pem).unwrap();
        let tls = ClientTls::load(&config(&good)).unwrap();
        assert_eq!(tls.files().len(), 1);
        let problems = |config: &PoolTlsConfig| -> Vec<(String, String)> {
            let problems = ClientTls::load(config).unwrap_err();
            problems.into_iter().map(|p| (p.at.0, p.message)).collect()
        };
        let found = problems(&PoolTlsConfig {
            server_name: Some("not a name".into()),
            ..config(&key)
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].0, "/pools/web/tls/server-name");
        assert_eq!(found[1].0, "/pools/web/tls/ca");
        assert!(found[1].1.contains("contains no certificate"), "{found:?}");
        let found = problems(&config(&folder.path().join("none.pem")));
        assert!(found[0].1.contains("cannot read"), "{found:?}");
    }
}
