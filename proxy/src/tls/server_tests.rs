use super::*;
use std::path::PathBuf;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::{facts, self_signed, spoke_plain};
use crate::config::{CertificateConfig, Pem};

/// A folder of certificates and what a client that trusts them needs.
struct Files {
    folder: tempfile::TempDir,
    roots: RootCertStore,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            roots: RootCertStore::empty(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Pem {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).into()
    }

    /// Makes `NAME.crt` and `NAME.key` for `names`.
    fn certificate(&mut self, name: &str, names: &[&str]) -> CertificateConfig {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let made = self_signed(&names, 30).unwrap();
        let der = CertificateDer::from_pem_slice(made.cert_pem.as_bytes()).unwrap();
        self.roots.add(der).unwrap();
        CertificateConfig {
            cert: self.write(&format!("{name}.crt"), made.cert_pem),
            key: self.write(&format!("{name}.key"), made.key_pem),
            at: ConfigPath(format!("/tls/{name}")),
        }
    }

    fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn config(certificates: Vec<CertificateConfig>) -> TlsConfig {
    TlsConfig {
        at: ConfigPath("/tls".to_owned()),
        certificates,
        min_version: TlsVersion::V1_2,
        suites: Vec::new(),
        alpn: Vec::new(),
        resumption: true,
    }
}

struct Handshake {
    facts: crate::connection::TlsFacts,
    kind: HandshakeKind,
    served: CertificateDer<'static>,
}

/// One handshake and one byte each way, so that the client has read its ticket.
async fn handshake(
    server: &ServerTls,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Handshake, std::io::Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let mut stream = TlsAcceptor::from(server.config()).accept(far).await?;
        let facts = facts(stream.get_ref().1);
        stream.write_all(b"x").await?;
        let _ = stream.read(&mut [0]).await;
        Ok::<_, std::io::Error>(facts)
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let ask = async {
        let mut stream = TlsConnector::from(client.clone())
            .connect(name, near)
            .await?;
        stream.read_exact(&mut [0]).await?;
        let connection = stream.get_ref().1;
        let kind = connection.handshake_kind().unwrap();
        let served = connection.peer_certificates().unwrap()[0]
            .clone()
            .into_owned();
        Ok::<_, std::io::Error>((kind, served))
    };
    let (facts, asked) = tokio::join!(serve, ask);
    let (kind, served) = asked?;
    Ok(Handshake {
        facts: facts?,
        kind,
        served,
    })
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let mut files = Files::new();
    let first = files.certificate("first", &["first.test", "127.0.0.1"]);
    let wild = files.certificate("wild", &["*.lab.test"]);
    let der = |config: &CertificateConfig| {
        CertificateDer::from_pem_file(config.cert.file().unwrap()).unwrap()
    };
    let (first_der, wild_der) = (der(&first), der(&wild));
    let server = ServerTls::load(&config(vec![first, wild]), &[], None).unwrap();
    let client = files.client(&[]);

    let www = handshake(&server, &client, "WWW.lab.test").await.unwrap();
    assert_eq!(www.served, wild_der);
    assert_eq!(www.facts.sni.as_deref(), Some("www.lab.test"));
    let by_address = handshake(&server, &client, "127.0.0.1").await.unwrap();
    assert_eq!(by_address.served, first_der);
    assert_eq!(by_address.facts.sni, None);
    // A stranger's name gets the default, which the client then refuses.
    assert!(handshake(&server, &client, "stranger.test").await.is_err());
    assert_eq!(server.certificates()[1].names, ["*.lab.test"]);
}

#[tokio::test]
async fn protocols_are_offered_by_configuration_or_default() {
    let mut files = Files::new();
    let mut config = config(vec![files.certificate("a", &["a.test"])]);
    let client = files.client(&["http/1.1", "h2"]);
    let server = ServerTls::load(&config, &["h2", "http/1.1"], None).unwrap();
    let agreed = handshake(&server, &client, "a.test").await.unwrap();
    assert_eq!(agreed.facts.alpn.as_deref(), Some("h2"));

    config.alpn = vec!["http/1.1".to_owned()];
    let server = ServerTls::load(&config, &["h2"], None).unwrap();
    let agreed = handshake(&server, &client, "a.test").await.unwrap();
    assert_eq!(agreed.facts.alpn.as_deref(), Some("http/1.1"));
}

#[tokio::test]
async fn versions_and_suites_are_as_configured() {
    let mut files = Files::new();
    let mut config = config(vec![files.certificate("a", &["a.test"])]);
    let client = files.client(&[]);
    config.suites = vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned()];
    let server = ServerTls::load(&config, &[], None).unwrap();
    let agreed = handshake(&server, &client, "a.test").await.unwrap().facts;
    assert_eq!(
        (agreed.version, agreed.cipher),
        ("1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    );

    config.min_version = TlsVersion::V1_3;
    let problems = ServerTls::load(&config, &[], None).unwrap_err();
    assert_eq!(problems.len(), 1);

    config.suites = vec!["TLS_CHACHA20_POLY1305_SHA256".to_owned()];
    let server = ServerTls::load(&config, &[], None).unwrap();
    let agreed = handshake(&server, &client, "a.test").await.unwrap().facts;
    assert_eq!(
        (agreed.version, agreed.cipher),
        ("1.3", "TLS_CHACHA20_POLY1305_SHA256")
    );

    // A client that knows nothing newer than 1.2 is refused.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(files.roots.clone())
        .with_no_client_auth();
    assert!(handshake(&server, &Arc::new(old), "a.test").await.is_err());
}

#[tokio::test]
async fn sessions_resume_across_a_reload_unless_switched_off() {
    let mut files = Files::new();
    let mut config = config(vec![files.certificate("a", &["a.test"])]);
    for min_suite in [
        "TLS_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ] {
        config.suites = vec![min_suite.to_owned()];
        config.resumption = true;
        let client = files.client(&[]);
        let before = ServerTls::load(&config, &[], None).unwrap();
        assert_eq!(
            handshake(&before, &client, "a.test").await.unwrap().kind,
            HandshakeKind::Full
        );
        let after = ServerTls::load(&config, &[], Some(&before)).unwrap();
        drop(before);
        assert_eq!(
            handshake(&after, &client, "a.test").await.unwrap().kind,
            HandshakeKind::Resumed
        );
        let stranger = ServerTls::load(&config, &[], None).unwrap();
        assert_eq!(
            handshake(&stranger, &client, "a.test").await.unwrap().kind,
            HandshakeKind::Full
        );

        config.resumption = false;
        let off = ServerTls::load(&config, &[], Some(&after)).unwrap();
        let client = files.client(&[]);
        for _ in 0..2 {
            assert_eq!(
                handshake(&off, &client, "a.test").await.unwrap().kind,
                HandshakeKind::Full
            );
        }
    }
}

#[tokio::test]
async fn a_plain_client_is_told_from_a_broken_one() {
    use tokio::io::AsyncWriteExt;
    let mut files = Files::new();
    let config = config(vec![files.certificate("a", &["a.test"])]);
    let server = ServerTls::load(&config, &[], None).unwrap();
    for (bytes, plain) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], true),
        (&[0x16, 3, 1, 0, 1, 9], false),
    ] {
        let (mut near, far) = tokio::io::duplex(4096);
        near.write_all(bytes).await.unwrap();
        drop(near);
        let error = TlsAcceptor::from(server.config())
            .accept(far)
            .await
            .unwrap_err();
        assert_eq!(spoke_plain(&error), plain, "{error}");
    }
}

#[test]
fn a_changed_file_makes_it_stale() {
    let mut files = Files::new();
    let config = config(vec![files.certificate("a", &["a.test"])]);
    let server = ServerTls::load(&config, &[], None).unwrap();
    assert!(!server.has_stale_files());
    files.certificate("a", &["b.test"]);
    assert!(server.has_stale_files());
}

#[test]
fn every_bad_file_is_explained() {
    let mut files = Files::new();
    let good = files.certificate("good", &["a.test"]);
    let other = files.certificate("other", &["b.test"]);
    let pem = |pem: &Pem| std::fs::read_to_string(pem.file().unwrap()).unwrap();
    let chain = pem(&other.cert) + &pem(&good.cert);
    let cut = pem(&good.cert).replace("-----END CERTIFICATE-----", "");
    let pair = |cert: &Pem, key: &Pem| CertificateConfig {
        cert: cert.clone(),
        key: key.clone(),
        at: ConfigPath("/c".to_owned()),
    };
    let missing: Pem = files.path("missing").into();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    // What is configured, then for every problem its place, a part of the message and a part of the help.
    type Expected<'a> = &'a [(&'a str, &'a str, &'a str)];
    let cases: [(CertificateConfig, Expected<'_>); 9] = [
        (
            pair(&missing, &missing),
            &[
                ("/c/cert", "cannot read the certificate", ""),
                ("/c/key", "cannot read the private key", ""),
            ],
        ),
        (
            pair(&good.key, &good.cert),
            &[
                ("/c/cert", "contains no certificate", "swapped"),
                ("/c/key", "contains no usable private key", "swapped"),
            ],
        ),
        (
            pair(&files.write("empty", ""), &good.key),
            &[("/c/cert", "contains no certificate", "BEGIN CERTIFICATE")],
        ),
        (
            pair(&files.write("cut", cut), &good.key),
            &[("/c/cert", "\"-----END CERTIFICATE-----\" is missing", "")],
        ),
        (
            pair(&files.write("garbage", garbage), &good.key),
            &[("/c/cert", "malformed", "")],
        ),
        (
            pair(&good.cert, &files.write("encrypted", encrypted)),
            &[("/c/key", "no usable private key", "openssl pkey")],
        ),
        (
            pair(&good.cert, &files.write("bad.key", bad_key)),
            &[("/c/key", "malformed", "ECDSA")],
        ),
        (
            pair(&good.cert, &other.key),
            &[("/c/key", "does not belong to the certificate", "renewal")],
        ),
        (
            pair(&files.write("chain", chain), &good.key),
            &[("/c/key", "does not belong", "must come first")],
        ),
    ];
    for (certificate, expected) in cases {
        let problems = ServerTls::load(&config(vec![certificate]), &[], None).unwrap_err();
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, (at, message, help)) in problems.iter().zip(expected) {
            assert_eq!(problem.at.0, *at);
            assert!(problem.message.contains(message), "{problem:?}");
            let said = problem.help.as_deref().unwrap_or("");
            assert!(
                said.contains(help) && said.is_empty() == help.is_empty(),
                "{problem:?}"
            );
        }
    }
}

#[test]
fn an_unknown_suite_gets_a_suggestion() {
    let mut files = Files::new();
    let mut config = config(vec![files.certificate("a", &["a.test"])]);
    config.suites = vec!["TLS_AES_128_GCM_SHA265".to_owned(), "RC4-MD5".to_owned()];
    let problems = ServerTls::load(&config, &[], None).unwrap_err();
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].at.0, "/tls/suites/0");
    let help = problems[0].help.as_deref().unwrap();
    assert!(
        help.starts_with("did you mean \"TLS_AES_128_GCM_SHA256\"?"),
        "{help}"
    );
    let help = problems[1].help.as_deref().unwrap();
    assert!(
        help.starts_with("known are TLS_AES_256_GCM_SHA384, "),
        "{help}"
    );
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let mut files = Files::new();
    let mut certificate = files.certificate("a", &["a.test"]);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    certificate.cert = files.write("old.crt", params.self_signed(&key).unwrap().pem());
    certificate.key = files.write("old.key", key.serialize_pem());
    let server = ServerTls::load(&config(vec![certificate]), &[], None).unwrap();
    let [warning] = server.warnings() else {
        panic!("{:?}", server.warnings());
    };
    assert_eq!(warning.at.0, "/tls/a/cert");
    assert!(
        warning.message.ends_with("expired at 2002-01-01T00:00:00Z"),
        "{warning:?}"
    );
}

/// A configuration may have what no file holds.
#[test]
fn pem_may_be_text() {
    let mut files = Files::new();
    let written = files.certificate("a", &["a.test"]);
    let text = |pem: &Pem| Pem::Text(std::fs::read_to_string(pem.file().unwrap()).unwrap());
    let config = |cert: Pem, key: Pem| TlsConfig {
        at: ConfigPath("/tls".to_owned()),
        certificates: vec![CertificateConfig {
            cert,
            key,
            at: ConfigPath("/tls/certificates/0".to_owned()),
        }],
        min_version: TlsVersion::V1_2,
        suites: Vec::new(),
        alpn: Vec::new(),
        resumption: true,
    };
    let (cert, key) = (text(&written.cert), text(&written.key));
    let loaded = ServerTls::load(&config(cert.clone(), key.clone()), &[], None).unwrap();
    assert_eq!(loaded.certificates()[0].names, ["a.test"]);
    assert!(loaded.files().is_empty());
    assert_eq!(format!("{key:?}"), "Text(…)");

    let swapped = ServerTls::load(&config(key, cert), &[], None).unwrap_err();
    let messages: Vec<&str> = swapped.iter().map(|found| &*found.message).collect();
    let expected = [
        "the text contains no certificate",
        "the text contains no usable private key",
    ];
    assert_eq!(messages, expected);
}

/// Line breaks are easily lost on the way through a variable, and then a label is not what it seems.
#[test]
fn nothing_of_a_key_is_in_a_message() {
    let files = Files::new();
    let cert = files.write(
        "a.crt",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    for broken in [
        "-----BEGIN PRIVATE KEY----- U0VDUkVU -----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\nU0VDUkVU\\n-----END PRIVATE KEY-----\\n",
        "-----BEGIN PRIVATE KEY-----\nU0VDUkVU",
        "-----BEGIN U0VDUkVU",
    ] {
        for key in [Pem::Text(broken.to_owned()), files.write("a.key", broken)] {
            let certificate = CertificateConfig {
                cert: cert.clone(),
                key,
                at: ConfigPath("/c".to_owned()),
            };
            let found = ServerTls::load(&config(vec![certificate]), &[], None).unwrap_err();
            assert!(
                found.iter().any(|problem| problem.code == "bad-key"),
                "{found:?}"
            );
            assert!(!format!("{found:?}").contains("U0VDUkVU"), "{found:?}");
        }
    }
}
