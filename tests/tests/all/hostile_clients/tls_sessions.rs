//! What can go wrong behind a handshake that was done.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::hello::{Hello, record};
use super::recorder::Recorder;
use super::tls::{next, rig_of};
use super::{SLACK, report, same};
use crate::rig::Rig;

/// A client whose handshake was done.
struct Session {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Session {
    fn begin(rig: &Rig) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = rig.proxy.directory().join("c.pem");
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        roots.add(certificate).expect("a trust anchor");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let socket = rig.raw().stream().try_clone().expect("a socket");
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .expect("a handshake");
        }
        Self { stream }
    }

    fn send(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes());
        let _ = self.stream.flush();
    }

    /// Everything until the server ends, and whether it said so before it did.
    fn answer(&mut self) -> (String, bool) {
        let mut all = Vec::new();
        let ended = self.stream.read_to_end(&mut all).is_ok();
        (String::from_utf8_lossy(&all).into_owned(), ended)
    }
}

/// What one does in a session, and what it is answered: the beginning of the text, and whether the end is announced.
type Act = (&'static str, fn(&mut Session), &'static str, bool);

#[test]
#[rustfmt::skip]
fn sessions_that_go_wrong_end_like_connections() {
    let backend = Recorder::start();
    let rig = rig_of(&backend);
    let acts: &[Act] = &[
        ("says nothing", |_| {}, "", true),
        ("half a head", |s| s.send("GET /evil HTTP/1.1\r\nHost"), "HTTP/1.1 408 ", true),
        ("an ambiguous request", |s| s.send("POST /evil HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "HTTP/1.1 400 ", true),
        ("TLS in TLS", |s| s.send("\x16\x03\x01\x02\0\x01\0\x01"), "HTTP/1.1 400 ", true),
        ("a head, and then the end of its side", |s| { s.send("GET /evil HTTP/1.1\r\nHost"); s.stream.conn.send_close_notify(); s.send(""); }, "", false),
        ("a body that ends with its side", |s| { s.send("POST /evil HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"); s.stream.conn.send_close_notify(); s.send(""); }, "", false),
        ("a body cut off without a word", |s| { s.send("POST /evil HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"); let _ = s.stream.sock.shutdown(Shutdown::Write); }, "", false),
        ("a record that no key made", |s| { let _ = s.stream.sock.write_all(&record(23, &[7; 64])); }, "", false),
        ("plain HTTP in the midst", |s| { let _ = s.stream.sock.write_all(b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"); }, "", false),
        ("another hello", |s| { let _ = s.stream.sock.write_all(&Hello::default().record()); }, "", false),
        ("a broken record in a body", |s| { s.send("POST /evil HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"); let _ = s.stream.sock.write_all(&record(23, &[7; 64])); }, "", false),
        ("a thousand new keys", |s| {
            for _ in 0..1000 { s.stream.conn.refresh_traffic_keys().expect("TLS 1.3"); }
            s.send("GET /evil HTTP/1.1\r\nHost: x\r\n\r\n");
        }, "", false),
        ("ten new keys", |s| {
            for _ in 0..10 { s.stream.conn.refresh_traffic_keys().expect("TLS 1.3"); }
            s.send("GET /keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        }, "HTTP/1.1 200 ", true),
    ];
    let round = |round: &str| -> Vec<String> {
        let act = |(name, act, answer, announced): &Act| {
            let mut session = Session::begin(&rig);
            act(&mut session);
            let (got, ended) = session.answer();
            let whole = got.starts_with(answer) && got.is_empty() == answer.is_empty();
            let right = whole && (ended || !announced);
            (!right).then(|| format!("{name} ({round}): {got:?}, announced: {ended}"))
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = acts.iter().map(|a| scope.spawn(move || act(a))).collect();
            let mut failures: Vec<String> = running.into_iter().filter_map(|r| r.join().expect("an act")).collect();
            failures.extend(next(&rig).err());
            failures
        })
    };
    let mut failures = round("first round");
    let before = rig.proxy.settled();
    failures.extend(round("second round"));
    let seen = backend.take();
    let mut targets: Vec<&str> = seen.requests.iter().map(|r| r.target()).collect();
    targets.sort_unstable();
    failures.extend(same("the backend saw", vec!["/keys", "/keys", "/next", "/next"], targets).err());
    failures.extend(seen.complaints);
    report(&failures, acts.len());
    rig.proxy.assert_nothing_left(before, SLACK);
}

#[test]
fn nobody_renegotiates() {
    let backend = Recorder::start();
    let rig = rig_of(&backend);
    next(&rig).expect("a client that does not");
    let before = rig.proxy.settled();
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-legacy_renegotiation", "-connect"])
        .arg(rig.bind.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut stdin = client.stdin.take().expect("its input");
    // Its command to renegotiate.
    stdin.write_all(b"R\n").expect("sent");
    let ended = eventually(DEADLINE, || client.try_wait().expect("wait").is_some());
    let _ = client.kill();
    let output = client.wait_with_output().expect("its output");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(ended, "it still runs: {said}");
    assert!(said.contains("New, TLSv1.2"), "{said}");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
    drop(stdin);
    next(&rig).expect("a client that does not");
    rig.proxy.assert_nothing_left(before, 2 * SLACK);
}
