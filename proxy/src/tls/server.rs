//! A listener's TLS, ready to serve.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::certificate::{self, CertificateFacts};
use super::file::FileMark;
use super::names::ByName;
use super::suites;
use crate::config::{ConfigPath, Problem, TlsConfig, TlsVersion};

/// A listener's TLS: one generation's certificates and rules. Workers take [`ServerTls::config`].
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Vec<CertificateFacts>,
    files: Vec<FileMark>,
    warnings: Vec<Problem>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
}

impl ServerTls {
    /// Reads and checks everything `config` names; all problems are reported, not the first. `default_alpn` is what the
    /// listener's protocol offers when the configuration says nothing. From `previous`, the same listener's TLS before
    /// a reload, come the ticket keys, so that clients can resume their sessions.
    ///
    /// Reads files: for the control thread.
    pub fn load(
        config: &TlsConfig,
        default_alpn: &[&str],
        previous: Option<&ServerTls>,
    ) -> Result<Self, Vec<Problem>> {
        let mut provider = aws_lc_rs::default_provider();
        let mut problems = Vec::new();
        match suites::choose(&config.suites, &config.at, &provider) {
            Ok(suites) => provider.cipher_suites = suites,
            Err(unknown) => problems.extend(unknown),
        }
        let mut by_name = ByName::default();
        let (mut certificates, mut files, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for certificate in &config.certificates {
            match certificate::load(certificate, &provider) {
                Ok(loaded) => {
                    let names = loaded.facts.names.iter().map(String::as_str);
                    by_name.add(names, Arc::new(loaded.key));
                    certificates.push(loaded.facts);
                    files.extend(loaded.files);
                    warnings.extend(loaded.warning);
                }
                Err(found) => problems.extend(found),
            }
        }
        let versions = versions(config.min_version, &provider);
        if versions.is_empty() {
            problems.push(Problem {
                code: "bad-cipher-suite",
                at: ConfigPath(format!("{}/suites", config.at.0)),
                message:
                    "none of these cipher suites is of a TLS version that `min-version` allows"
                        .to_owned(),
                help: Some(
                    "TLS 1.3 needs one of the TLS_AES_… or TLS_CHACHA20_… suites".to_owned(),
                ),
            });
        }
        if config.certificates.is_empty() {
            problems.push(general(config, "no certificate is configured"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }

        let ticketer = ticketer(config, previous)?;
        let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .map_err(|error| vec![general(config, error)])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(by_name));
        server.alpn_protocols = if config.alpn.is_empty() {
            default_alpn
                .iter()
                .map(|name| name.as_bytes().to_vec())
                .collect()
        } else {
            config
                .alpn
                .iter()
                .map(|name| name.clone().into_bytes())
                .collect()
        };
        // Tickets only: a session cache would be a lock between workers, and die with the generation.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        match &ticketer {
            Some(ticketer) => {
                server.ticketer = ticketer.clone();
                // Every resumed connection brings a fresh one.
                server.send_tls13_tickets = 1;
            }
            None => server.send_tls13_tickets = 0,
        }
        Ok(Self {
            config: Arc::new(server),
            certificates,
            files,
            warnings,
            ticketer,
        })
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// What each certificate says of itself, in configured order.
    pub fn certificates(&self) -> &[CertificateFacts] {
        &self.certificates
    }

    /// The files this was made from.
    pub fn files(&self) -> &[FileMark] {
        &self.files
    }

    /// Whether a file it was made from has other content now.
    #[cfg(test)]
    pub fn has_stale_files(&self) -> bool {
        self.files.iter().any(FileMark::has_changed)
    }

    /// What the operator should know though it can be served: expired certificates.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

fn versions(
    min: TlsVersion,
    provider: &rustls::crypto::CryptoProvider,
) -> Vec<&'static SupportedProtocolVersion> {
    let allowed: &[&'static SupportedProtocolVersion] = match min {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let has_suite = |version: &SupportedProtocolVersion| {
        provider
            .cipher_suites
            .iter()
            .any(|suite| suite.version() == version)
    };
    allowed
        .iter()
        .copied()
        .filter(|version| has_suite(version))
        .collect()
}

/// Keys for tickets change by themselves every few hours; the one before still opens old tickets.
fn ticketer(
    config: &TlsConfig,
    previous: Option<&ServerTls>,
) -> Result<Option<Arc<dyn ProducesTickets>>, Vec<Problem>> {
    if !config.resumption {
        return Ok(None);
    }
    if let Some(kept) = previous.and_then(|previous| previous.ticketer.clone()) {
        return Ok(Some(kept));
    }
    match aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => Ok(Some(ticketer)),
        Err(error) => Err(vec![general(config, error)]),
    }
}

fn general(config: &TlsConfig, message: impl std::fmt::Display) -> Problem {
    Problem {
        code: "tls-setup",
        at: config.at.clone(),
        message: format!("TLS cannot be set up: {message}"),
        help: None,
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
