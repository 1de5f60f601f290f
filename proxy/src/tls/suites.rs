//! Cipher suites by their IANA names.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

use crate::config::{ConfigPath, Problem};

/// The IANA name. Differs from what rustls says for TLS 1.3 alone.
pub(super) fn name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// The provider's suites of these names, in this order; all of the provider's if there are no names.
pub(super) fn choose(
    names: &[String],
    at: &ConfigPath,
    provider: &CryptoProvider,
) -> Result<Vec<SupportedCipherSuite>, Vec<Problem>> {
    if names.is_empty() {
        return Ok(provider.cipher_suites.clone());
    }
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    let mut problems = Vec::new();
    for (index, wanted) in names.iter().enumerate() {
        match provider
            .cipher_suites
            .iter()
            .find(|suite| name(suite.suite()) == wanted)
        {
            Some(suite) if chosen.contains(suite) => {}
            Some(suite) => chosen.push(*suite),
            None => problems.push(Problem {
                code: "bad-cipher-suite",
                at: ConfigPath(format!("{}/suites/{index}", at.0)),
                message: format!("cipher suite \"{wanted}\" is unknown or too weak to be served"),
                help: Some(help(wanted, provider)),
            }),
        }
    }
    if problems.is_empty() {
        Ok(chosen)
    } else {
        Err(problems)
    }
}

fn help(wanted: &str, provider: &CryptoProvider) -> String {
    let known = || {
        provider
            .cipher_suites
            .iter()
            .map(|suite| name(suite.suite()))
    };
    let wanted = wanted.to_ascii_uppercase().replace('-', "_");
    let nearest = known()
        .map(|name| (strsim::jaro_winkler(name, &wanted), name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let list = known().collect::<Vec<_>>().join(", ");
    match nearest {
        Some((likeness, name)) if likeness > 0.93 => {
            format!("did you mean \"{name}\"?\nknown are {list}")
        }
        _ => format!("known are {list}"),
    }
}
