//! A certificate and its key, from PEM.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::file::{self, FileMark};
use crate::config::{CertificateConfig, ConfigPath, Pem, Problem};
use crate::error::why;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// DNS names, as written: of the subject alternative names, else the subject's common name.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// A certificate that can be served.
#[derive(Debug)]
pub(super) struct Loaded {
    pub key: CertifiedKey,
    pub facts: CertificateFacts,
    pub files: Vec<FileMark>,
    pub warning: Option<Problem>,
}

pub(super) fn load(
    config: &CertificateConfig,
    provider: &CryptoProvider,
) -> Result<Loaded, Vec<Problem>> {
    let (cert_at, key_at) = (below(&config.at, "cert"), below(&config.at, "key"));
    let certificate = read_chain(&config.cert, &cert_at);
    let key = read_key(&config.key, &key_at, provider);
    let ((chain, facts, cert_mark), (key, key_mark)) = match (certificate, key) {
        (Ok(certificate), Ok(key)) => (certificate, key),
        (certificate, key) => return Err(certificate.err().into_iter().chain(key.err()).collect()),
    };
    let key = CertifiedKey::new(chain, key);
    if key.keys_match() == Err(rustls::InconsistentKeys::KeyMismatch.into()) {
        return Err(vec![mismatch(config, key, key_at)]);
    }
    let warning = date_warning(&facts, SystemTime::now()).map(|message| Problem {
        code: "certificate-date",
        at: cert_at,
        message: format!("certificate {} {message}", config.cert.shown()),
        help: None,
    });
    Ok(Loaded {
        key,
        facts,
        files: cert_mark.into_iter().chain(key_mark).collect(),
        warning,
    })
}

type Chain = (
    Vec<CertificateDer<'static>>,
    CertificateFacts,
    Option<FileMark>,
);

fn read_chain(pem: &Pem, at: &ConfigPath) -> Result<Chain, Problem> {
    let problem = |message: String, help: Option<&str>| Problem {
        code: "bad-certificate",
        at: at.clone(),
        message,
        help: help.map(str::to_owned),
    };
    let (content, mark) = read(pem, at, "certificate")?;
    let shown = pem.shown();
    let chain = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            problem(
                format!("certificate file {shown}: {}", explain(&error)),
                None,
            )
        })?;
    let Some(leaf) = chain.first() else {
        let help = if contains(&content, "PRIVATE KEY-----") {
            "it has a private key: are `cert` and `key` swapped?"
        } else if content.starts_with(&[0x30]) {
            "it looks like DER; convert it with `openssl x509 -inform der -in FILE -out FILE.pem`"
        } else {
            "expected PEM with `-----BEGIN CERTIFICATE-----`"
        };
        return Err(problem(
            format!("{shown} contains no certificate"),
            Some(help),
        ));
    };
    let facts = read_facts(leaf).ok_or_else(|| {
        problem(
            format!("the first certificate in {shown} is malformed"),
            None,
        )
    })?;
    Ok((chain, facts, mark))
}

fn read_key(
    pem: &Pem,
    at: &ConfigPath,
    provider: &CryptoProvider,
) -> Result<
    (
        std::sync::Arc<dyn rustls::sign::SigningKey>,
        Option<FileMark>,
    ),
    Problem,
> {
    let problem = |message: String, help: Option<&str>| Problem {
        code: "bad-key",
        at: at.clone(),
        message,
        help: help.map(str::to_owned),
    };
    let (content, mark) = read(pem, at, "private key")?;
    let shown = pem.shown();
    let key = match PrivateKeyDer::from_pem_slice(&content) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => {
            let help = if contains(&content, "ENCRYPTED PRIVATE KEY-----") {
                "it is encrypted; decrypt it with `openssl pkey -in FILE -out FILE.key`"
            } else if contains(&content, "BEGIN CERTIFICATE-----") {
                "it has a certificate: are `cert` and `key` swapped?"
            } else {
                "expected PEM with `-----BEGIN PRIVATE KEY-----`"
            };
            return Err(problem(
                format!("{shown} contains no usable private key"),
                Some(help),
            ));
        }
        Err(error) => {
            return Err(problem(
                format!("key file {shown}: {}", explain(&error)),
                None,
            ));
        }
    };
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        problem(
            format!("the private key in {shown} is malformed or of a kind that is not supported"),
            Some("use ECDSA (P-256, P-384), Ed25519, or RSA of at least 2048 bits"),
        )
    })?;
    Ok((key, mark))
}

fn read(pem: &Pem, at: &ConfigPath, what: &str) -> Result<(Vec<u8>, Option<FileMark>), Problem> {
    file::read_pem(pem).map_err(|error| Problem {
        code: "unreadable-file",
        at: at.clone(),
        message: format!("cannot read the {what} {}: {}", pem.shown(), why(&error)),
        help: None,
    })
}

/// Why the key does not fit, given that it does not.
fn mismatch(config: &CertificateConfig, key: CertifiedKey, at: ConfigPath) -> Problem {
    let fits_another = key.cert.iter().skip(1).any(|other| {
        CertifiedKey::new(vec![other.clone()], key.key.clone())
            .keys_match()
            .is_ok()
    });
    let (key, cert) = (config.key.shown(), config.cert.shown());
    Problem {
        code: "key-mismatch",
        at,
        message: format!("the key in {key} does not belong to the certificate in {cert}"),
        help: Some(match fits_another {
            true => format!(
                "it belongs to a later certificate in {cert}: the server's own must come first"
            ),
            false => "name the key that the certificate was requested with; after a renewal both \
                      files change"
                .to_owned(),
        }),
    }
}

fn read_facts(certificate: &CertificateDer<'_>) -> Option<CertificateFacts> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names: Vec<String> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let common_name = certificate.subject().iter_common_name().next();
        names.extend(
            common_name
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
        );
    }
    Some(CertificateFacts {
        names,
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

fn date_warning(facts: &CertificateFacts, now: SystemTime) -> Option<String> {
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    let date = |seconds| {
        jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |at| at.to_string())
    };
    if now > facts.not_after {
        Some(format!("expired at {}", date(facts.not_after)))
    } else if now < facts.not_before {
        Some(format!("is not valid before {}", date(facts.not_before)))
    } else {
        None
    }
}

/// Reports what is wrong with a text that should be PEM. Nothing of it is quoted, but for a label that can be nothing else:
/// where line breaks were lost, what looks like a label has the key in it.
pub(super) fn explain(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => match label(end_marker) {
            Some(label) => format!("\"-----END {label}-----\" is missing"),
            None => "a \"-----BEGIN\" has no end: are line breaks missing?".to_owned(),
        },
        pem::Error::IllegalSectionStart { .. } => {
            "a line with \"-----BEGIN\" is malformed: are line breaks missing?".to_owned()
        }
        pem::Error::Base64Decode(_) => "the base64 text is damaged".to_owned(),
        _ => "it is malformed".to_owned(),
    }
}

/// A label as RFC 7468 has them: a few words in capitals.
fn label(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let fits = |c: char| c.is_ascii_uppercase() || c == ' ';
    (text.len() <= 40 && text.chars().all(fits)).then_some(text)
}

fn below(at: &ConfigPath, key: &str) -> ConfigPath {
    ConfigPath(format!("{}/{key}", at.0))
}

fn contains(content: &[u8], text: &str) -> bool {
    memchr::memmem::find(content, text.as_bytes()).is_some()
}
