//! Which certificate a client gets: by the server name it asks for, else the first of the listener.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by the names they carry. Several of one name (say, ECDSA and RSA) are tried in configured order for
/// one whose key the client can verify.
#[derive(Debug, Default)]
pub(super) struct ByName {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// `*.lab.test` as `lab.test`. Stands for exactly one label.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    /// The first one added also serves clients whose name no certificate has, or that ask for none.
    pub(super) fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>, key: Arc<CertifiedKey>) {
        if self.default.is_empty() {
            self.default.push(key.clone());
        }
        for name in names {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let keys = match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()),
                None => self.exact.entry(name),
            };
            keys.or_default().push(key.clone());
        }
    }

    /// Never empty once one was added. `name` is lower case.
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let parent = || name.split_once('.').map(|(_, parent)| parent);
            self.exact
                .get(name)
                .or_else(|| self.wildcard.get(parent()?))
        });
        found.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let keys = self.of(name.as_deref());
        keys.iter()
            .find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some())
            .or(keys.first())
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_wins_over_wildcard_and_wildcard_is_one_label() {
        let key = || {
            let pair = rcgen::KeyPair::generate().unwrap();
            let der = rustls::pki_types::PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
            Arc::new(CertifiedKey::new(Vec::new(), key))
        };
        let (first, wild, exact) = (key(), key(), key());
        let mut names = ByName::default();
        names.add(["other.test"].into_iter(), first.clone());
        names.add(["*.Lab.test"].into_iter(), wild.clone());
        names.add(["www.lab.test"].into_iter(), exact.clone());

        let cases = [
            (Some("www.lab.test"), &exact),
            (Some("api.lab.test"), &wild),
            (Some("a.b.lab.test"), &first),
            (Some("lab.test"), &first),
            (Some("other.test"), &first),
            (Some("localhost"), &first),
            (None, &first),
        ];
        for (name, expected) in cases {
            assert!(Arc::ptr_eq(&names.of(name)[0], expected), "{name:?}");
        }
    }
}
