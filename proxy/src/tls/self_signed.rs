//! Certificates for tests, demos and first steps: signed by themselves, trusted by nobody until told to.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct SelfSigned {
    pub cert_pem: String,
    pub key_pem: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    #[error("a certificate needs at least one name")]
    NoName,
    #[error("\"{0}\" is neither a DNS name nor an IP address")]
    Name(String),
    #[error("a certificate is valid for 1 to 36500 days, not {0}")]
    Days(u32),
    #[error("cannot make the certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A server certificate (ECDSA P-256) for `names`, DNS names with or without wildcard and IP addresses, valid for
/// `days` from now, or rather from an hour ago: clocks differ.
pub fn self_signed(names: &[String], days: u32) -> Result<SelfSigned, SelfSignedError> {
    if !(1..=36500).contains(&days) {
        return Err(SelfSignedError::Days(days));
    }
    let first = names.first().ok_or(SelfSignedError::NoName)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| subject(name))
        .collect::<Result<_, _>>()?;
    params.distinguished_name = DistinguishedName::new();
    // Common names are limited to 64 characters; clients read the alternative names.
    let common_name: String = first.chars().take(64).collect();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(86400) * days).into();

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(SelfSigned {
        cert_pem: params.self_signed(&key)?.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn subject(name: &str) -> Result<SanType, SelfSignedError> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    if !is_dns_name(name.strip_prefix("*.").unwrap_or(name)) {
        return Err(SelfSignedError::Name(name.to_owned()));
    }
    Ok(SanType::DnsName(name.to_ascii_lowercase().try_into()?))
}

fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in [
            "",
            "a b",
            "-a.test",
            "a..test",
            "https://a.test",
            "*.*.test",
            "a.test:443",
        ] {
            let result = self_signed(&[name.to_owned()], 30);
            assert!(matches!(result, Err(SelfSignedError::Name(_))), "{name:?}");
        }
        assert!(matches!(self_signed(&[], 30), Err(SelfSignedError::NoName)));
        let name = ["a.test".to_owned()];
        assert!(matches!(
            self_signed(&name, 0),
            Err(SelfSignedError::Days(0))
        ));
    }

    #[test]
    fn names_and_addresses_become_alternative_names() {
        let names = ["*.Lab.test", "127.0.0.1", "::1"].map(str::to_owned);
        let made = self_signed(&names, 30).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(made.cert_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let alternative = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(alternative.value.general_names.len(), 3);
        assert!(!certificate.is_ca());
        let days = certificate
            .validity()
            .time_to_expiration()
            .unwrap()
            .whole_days();
        assert!((29..=30).contains(&days));
    }
}
