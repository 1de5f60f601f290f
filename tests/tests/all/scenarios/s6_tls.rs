//! TLS ends at the proxy: plain HTTP behind it, old versions refused, certificates replaced while it serves.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, curl, field};
use sluicegate_tests::proxy::{Proxy, Start, sluicegate};
use tempfile::TempDir;

use super::{expected, shares};

const NAME: &str = "www.lab.test";

/// Two backends that tell what they were told, and TLS in front of them.
struct Lab {
    proxy: Proxy,
    bind: SocketAddr,
    certificates: TempDir,
    backends: [Backend; 2],
}

impl Lab {
    fn start() -> Self {
        let certificates = tempfile::tempdir().expect("a directory");
        make_certificate(certificates.path());
        let backends = ["web1", "web2"].map(Backend::http);
        let bind = Addresses::new().free();
        let yaml = format!(
            "\
pools:
  web: {{endpoints: [\"{}\", \"{}\"]}}
listeners:
  - name: sslacc
    bind: {bind}
    protocol: http
    tls: {{certificates: [{{cert: {dir}/{NAME}.crt, key: {dir}/{NAME}.key}}], min-version: \"1.2\"}}
    filters:
      - module: builtin:headers
        settings:
          request: [{{append: x-forwarded-by, value: \"${{server.address}}:${{server.port}}\"}}]
    pool: web
",
            backends[0].address(),
            backends[1].address(),
            dir = certificates.path().display(),
        );
        let proxy = Start::new().run(&yaml);
        Self {
            proxy,
            bind,
            certificates,
            backends,
        }
    }

    fn certificate(&self) -> PathBuf {
        self.certificates.path().join(format!("{NAME}.crt"))
    }

    /// `openssl s_client` on the listener: whether the handshake was done, and all it said.
    fn s_client(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &self.bind.to_string(),
                "-servername",
                NAME,
                "-CAfile",
            ])
            .arg(self.certificate())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl runs (is it installed?)");
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may have gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("wait");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    }
}

#[test]
fn a_thousand_requests_are_shared_and_carry_both_fields() {
    let lab = Lab::start();
    let config = client_config(&lab.certificate());
    let answers = (0..1000).map(|_| {
        let mut client = TlsClient::connect(&config, lab.bind);
        client.get("/")
    });
    assert_eq!(shares(answers), expected(&[("web1", 500), ("web2", 500)]));
    let by = lab.bind.to_string();
    for backend in &lab.backends {
        for request in backend.take_received() {
            assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
            assert_eq!(request.field("x-forwarded-by"), Some(by.as_str()));
            assert_eq!(request.field("x-forwarded-proto"), Some("https"));
        }
    }

    // What a client claims about itself is replaced, and what it says about the proxy is appended to.
    let url = format!("https://{NAME}:{}/", lab.bind.port());
    let resolve = format!("{NAME}:{}:{}", lab.bind.port(), lab.bind.ip());
    let certificate = lab.certificate().display().to_string();
    let got = curl(&[
        "--resolve",
        &resolve,
        "--cacert",
        &certificate,
        &url,
        "-H",
        "X-Forwarded-For: 192.0.2.1",
        "-H",
        "X-Forwarded-By: 192.0.2.2:443",
    ]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    let seen = lab
        .backends
        .iter()
        .flat_map(|b| b.received())
        .next()
        .expect("a request");
    assert_eq!(
        seen.fields("x-forwarded-for").collect::<Vec<_>>(),
        ["127.0.0.1"]
    );
    assert_eq!(seen.fields("x-forwarded-by").last(), Some(by.as_str()));
}

#[test]
fn old_versions_and_weak_suites_are_refused() {
    let lab = Lab::start();
    // openssl itself must be willing, or it is not the proxy that refuses.
    let willing = ["-cipher", "ALL:@SECLEVEL=0"];
    for version in ["-tls1", "-tls1_1"] {
        let (done, said) = lab.s_client(&[&[version], &willing[..]].concat(), "");
        assert!(!done, "{version}: {said}");
        assert!(is_refused(&said), "{version}: {said}");
    }
    for weak in [
        "AES128-SHA",
        "AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA384",
        "NULL",
    ] {
        let cipher = format!("{weak}:@SECLEVEL=0");
        let (done, said) = lab.s_client(&["-tls1_2", "-cipher", &cipher], "");
        assert!(!done, "{weak}: {said}");
        assert!(is_refused(&said), "{weak}: {said}");
    }
    for (arguments, protocol) in [
        (&["-tls1_2", "-cipher", "ECDHE+AESGCM"][..], "TLSv1.2"),
        (&["-tls1_2", "-cipher", "ECDHE+CHACHA20"], "TLSv1.2"),
        (&["-tls1_3"], "TLSv1.3"),
    ] {
        let arguments = [
            arguments,
            &["-verify_return_error", "-verify_hostname", NAME],
        ]
        .concat();
        let (done, said) = lab.s_client(&arguments, "");
        assert!(done, "{arguments:?}: {said}");
        assert!(
            said.contains(&format!("New, {protocol}, Cipher is ")),
            "{said}"
        );
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    assert!(lab.backends.iter().all(|b| b.received().is_empty()));
}

#[test]
fn sessions_are_resumed() {
    let lab = Lab::start();
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    let ticket = lab.certificates.path().join("ticket").display().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        // With -ign_eof it stays until the server has answered and closed: tickets of TLS 1.3 come with the answer.
        let (done, said) = lab.s_client(&[version, "-ign_eof", "-sess_out", &ticket], &request);
        assert!(done && said.contains("New, TLSv1"), "{said}");
        let (done, said) = lab.s_client(&[version, "-ign_eof", "-sess_in", &ticket], &request);
        assert!(done && said.contains("Reused, TLSv1"), "{version}: {said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
}

#[test]
fn certificates_are_replaced_without_a_restart() {
    let mut lab = Lab::start();
    let old = client_config(&lab.certificate());
    let mut open = TlsClient::connect(&old, lab.bind);
    assert!(open.get("/").starts_with("web"));
    let (pid, before) = (lab.proxy.pid(), open.certificate());

    make_certificate(lab.certificates.path());
    let new = client_config(&lab.certificate());
    assert_eq!(
        TlsClient::connect(&old, lab.bind).certificate(),
        before,
        "nobody has said reload"
    );
    let socket = lab.proxy.admin_socket().display().to_string();
    let answer = sluicegate(&["reload", "--admin", &socket]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(
        answer
            .stdout
            .starts_with("generation 1 → 2 (1 listener changed) in "),
        "{}",
        answer.stdout
    );

    let mut client = TlsClient::connect(&new, lab.bind);
    assert_ne!(client.certificate(), before);
    assert!(client.get("/").starts_with("web"));
    assert!(
        open.get("/").starts_with("web"),
        "the connection from before goes on"
    );
    assert_eq!(lab.proxy.pid(), pid);
    assert!(lab.proxy.is_running());

    // A certificate that cannot be used changes nothing.
    std::fs::write(lab.certificate(), "not a certificate").expect("written");
    let answer = sluicegate(&["reload", "--admin", &socket]);
    assert_eq!(answer.code, 78, "{}", answer.stdout);
    assert!(
        answer.stderr.contains(&format!("{NAME}.crt")),
        "{}",
        answer.stderr
    );
    let served = TlsClient::connect(&new, lab.bind).get("/");
    assert!(served.starts_with("web"), "{served}");
}

#[test]
fn a_client_that_speaks_no_tls_is_turned_away() {
    let lab = Lab::start();
    let mut raw = Raw::connect(lab.bind);
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let got = raw.to_end().expect("a clean end");
    assert!(!got.starts_with(b"HTTP/1.1 2"), "{got:?}");
    assert!(lab.backends.iter().all(|b| b.received().is_empty()));
    // Everyone else is still served.
    let mut client = TlsClient::connect(&client_config(&lab.certificate()), lab.bind);
    assert!(client.get("/").starts_with("web"));
}

/// The server said no: openssl prints the alert it got.
fn is_refused(said: &str) -> bool {
    said.contains("SSL alert number 40") || said.contains("SSL alert number 70")
}

fn make_certificate(into: &Path) {
    let into = into.display().to_string();
    let made = sluicegate(&[
        "cert",
        "self-signed",
        NAME,
        "127.0.0.1",
        "--out",
        &into,
        "--force",
    ]);
    assert_eq!(made.code, 0, "{}", made.stderr);
}

/// Trusts one certificate, speaks HTTP/1.1, and resumes nothing.
fn client_config(certificate: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
    roots.add(certificate).expect("a trust anchor");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

struct TlsClient(StreamOwned<ClientConnection, std::net::TcpStream>);

impl TlsClient {
    fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> Self {
        let name = ServerName::try_from(NAME).expect("a name");
        let connection = ClientConnection::new(config.clone(), name).expect("a client");
        let socket = Raw::connect(address)
            .stream()
            .try_clone()
            .expect("a socket");
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .expect("a handshake");
        }
        Self(stream)
    }

    /// The certificate the server showed.
    fn certificate(&self) -> Vec<u8> {
        let chain = self.0.conn.peer_certificates().expect("a chain");
        chain[0].to_vec()
    }

    /// The body of the answer; the connection stays open.
    fn get(&mut self, target: &str) -> String {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        self.0.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let n = self.0.read(&mut piece).expect("an answer");
            assert_ne!(n, 0, "the connection ended");
            answer.extend_from_slice(&piece[..n]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = field(head, "content-length").and_then(|l| l.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    return body.to_owned();
                }
            }
        }
    }
}
