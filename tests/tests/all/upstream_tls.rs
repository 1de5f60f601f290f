//! TLS towards endpoints: who is believed, what is told when nobody is, and what is used again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use sluicegate::tls::{SelfSigned, self_signed};
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::rig::{Plan, Rig};

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// What a backend saw of a handshake.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    name: Option<String>,
    alpn: Option<String>,
    resumed: bool,
    client_certificate: bool,
}

/// A TLS backend, its certificate, and what it saw.
struct Secure {
    backend: Backend,
    pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

fn certificate(name: &str) -> SelfSigned {
    self_signed(&[name.to_owned()], 2).expect("a certificate")
}

fn server_config(made: &SelfSigned) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(made.cert_pem.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).expect("PEM");
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration")
}

/// A backend for `name`, which hands each connection to `serve` once the handshake is done.
fn secure_with(
    name: &str,
    change: impl FnOnce(&SelfSigned, ServerConfig) -> ServerConfig,
    serve: impl Fn(&mut Tls) + Send + Sync + 'static,
) -> Secure {
    let made = certificate(name);
    let config = Arc::new(change(&made, server_config(&made)));
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let sees = seen.clone();
    let backend = Backend::raw(move |stream, _| {
        let _ = stream.set_read_timeout(Some(DEADLINE));
        let _ = stream.set_nodelay(true);
        let session = ServerConnection::new(config.clone()).expect("a session");
        let mut tls = StreamOwned::new(session, stream);
        while tls.conn.is_handshaking() {
            if tls.conn.complete_io(&mut tls.sock).is_err() {
                return;
            }
        }
        sees.lock().expect("seen").push(Seen {
            name: tls.conn.server_name().map(str::to_owned),
            alpn: tls
                .conn
                .alpn_protocol()
                .map(|p| String::from_utf8_lossy(p).into_owned()),
            resumed: tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            client_certificate: tls.conn.peer_certificates().is_some(),
        });
        serve(&mut tls);
    });
    Secure {
        backend,
        pem: made.cert_pem,
        seen,
    }
}

/// A backend that answers every request with `secret`.
fn secure(name: &str) -> Secure {
    secure_with(name, |_, config| config, |tls| answer(tls, "secret", ""))
}

/// Answers requests until the other side leaves; `field` is one more line of the head.
fn answer(tls: &mut Tls, body: &str, field: &str) {
    while head(tls).is_some() {
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: {length}\r\n\r\n{body}");
        if tls.write_all(answer.as_bytes()).is_err() || tls.flush().is_err() || !field.is_empty() {
            break;
        }
    }
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

fn head(tls: &mut Tls) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match tls.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn rig(secure: &Secure, tls: &str) -> Rig {
    Plan::new(&[secure.backend.address()])
        .pool(&format!("retries: 0\ntls: {{{tls}}}"))
        .run_with(Start::new().file("ca.pem", &secure.pem))
}

fn fails(rig: &Rig, status: u16, error: &str, reason: &str, case: &str) {
    let answer = rig.get("/x");
    assert_eq!(answer.status, status, "{case}: {}", answer.head);
    let said = answer.field("proxy-status").unwrap_or_default();
    assert!(said.contains(&format!("error={error};")), "{case}: {said}");
    let record = rig.record("/x");
    assert_eq!(record["reason"], reason, "{case}");
}

#[test]
fn only_who_shows_the_right_certificate_is_asked() {
    let (good, other) = (secure("api.test"), certificate("api.test"));
    let address = good.backend.address();
    for (case, ca, tls, status) in [
        (
            "its name",
            &good.pem,
            "ca: ca.pem, server-name: api.test",
            200,
        ),
        (
            "another name",
            &good.pem,
            "ca: ca.pem, server-name: web.test",
            502,
        ),
        (
            "its address, which it has not",
            &good.pem,
            "ca: ca.pem",
            502,
        ),
        (
            "another authority",
            &other.cert_pem,
            "ca: ca.pem, server-name: api.test",
            502,
        ),
        (
            "the system's authorities",
            &good.pem,
            "server-name: api.test",
            502,
        ),
        ("unverified", &good.pem, "verify: false", 200),
    ] {
        let rig = Plan::new(&[address])
            .pool(&format!("tls: {{{tls}}}\nretries: 0"))
            .run_with(Start::new().file("ca.pem", ca));
        if status == 200 {
            assert_eq!(rig.get("/x").text(), "secret", "{case}");
        } else {
            fails(&rig, status, "tls_protocol_error", "upstream-tls", case);
            rig.proxy.wait_for_log("TLS handshake failed");
        }
    }
    let seen = good.seen.lock().expect("seen").clone();
    assert_eq!(seen[0].name.as_deref(), Some("api.test"));
    assert_eq!(seen[0].alpn, None);
}

#[test]
fn a_certificate_for_an_address_is_one_for_the_endpoint() {
    let good = secure("127.0.0.1");
    assert_eq!(rig(&good, "ca: ca.pem").get("/").text(), "secret");
}

#[test]
fn who_speaks_no_tls_is_502_and_who_says_nothing_504() {
    let failed = (502, "tls_protocol_error", "upstream-tls");
    let late = (504, "connection_timeout", "connect-timeout");
    for (case, bytes, (status, error, reason)) in [
        ("closes", Some(&b""[..]), failed),
        (
            "plain HTTP",
            Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            failed,
        ),
        ("an alert", Some(b"\x15\x03\x03\x00\x02\x02\x28"), failed),
        ("garbage", Some(b"SSH-2.0-x\r\n"), failed),
        ("silent", None, late),
    ] {
        let backend = Backend::raw(move |mut stream, _| match bytes {
            Some(bytes) => {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(bytes);
            }
            None => drop(Raw::over(stream).to_end()),
        });
        let rig = Plan::new(&[backend.address()])
            .pool("retries: 0\nconnect-timeout: 1s\ntls: {verify: false}")
            .run();
        fails(&rig, status, error, reason, case);
        rig.settles();
    }
}

#[test]
fn a_failed_handshake_goes_to_another_endpoint_whatever_the_method() {
    let good = secure("api.test");
    let plain = Backend::raw(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let rig = Plan::new(&[plain.address(), good.backend.address()])
        .pool("tls: {ca: ca.pem, server-name: api.test}")
        .run_with(Start::new().file("ca.pem", &good.pem));
    for n in 0..4 {
        let done = curl(&["-X", "POST", &rig.url(&format!("/{n}"))]);
        assert_eq!(done.body, "secret", "{done:?}");
    }
    assert!(plain.connections() > 0);
}

#[test]
fn connections_are_kept_and_sessions_resumed() {
    let kept = secure("api.test");
    let rig_kept = rig(&kept, "ca: ca.pem, server-name: api.test");
    for _ in 0..5 {
        assert_eq!(rig_kept.get("/").text(), "secret");
    }
    // One a worker at most.
    assert!(kept.backend.connections() <= 2);
    let closing = secure_with(
        "api.test",
        |_, config| config,
        |tls| answer(tls, "secret", "Connection: close\r\n"),
    );
    let rig = rig(&closing, "ca: ca.pem, server-name: api.test");
    for _ in 0..5 {
        assert_eq!(rig.get("/").text(), "secret");
    }
    let seen = closing.seen.lock().expect("seen").clone();
    assert_eq!(seen.len(), 5);
    assert!(!seen[0].resumed);
    assert!(seen[1..].iter().all(|s| s.resumed), "{seen:?}");
    rig.settles();
}

/// Answers with the target. What comes behind each answer is `behind`'s affair.
fn answer_and(tls: &mut Tls, behind: impl Fn(&mut Tls)) {
    while let Some(head) = head(tls) {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let length = target.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}");
        if tls.write_all(answer.as_bytes()).is_err() || tls.flush().is_err() {
            return;
        }
        behind(tls);
    }
}

#[test]
fn what_tls_sends_for_itself_costs_no_connection() {
    // Tickets come behind the handshake, and here a new key behind every answer.
    let talkative = secure_with(
        "api.test",
        |_, mut config| {
            config.send_tls13_tickets = 8;
            config
        },
        |tls| {
            answer_and(tls, |tls| {
                let _ = tls.conn.refresh_traffic_keys();
                let _ = tls.flush();
            });
        },
    );
    let rig = Plan::new(&[talkative.backend.address()])
        .pool("tls: {ca: ca.pem, server-name: api.test}")
        .top("workers: 1")
        .run_with(Start::new().file("ca.pem", &talkative.pem));
    let mut raw = rig.raw();
    for n in 0..300 {
        let method = ["GET", "POST", "PUT"][n % 3];
        let request = format!("{method} /{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        raw.send(request).expect("send");
        assert_eq!(raw.response().expect("an answer").text(), format!("/{n}"));
    }
    let handshakes = talkative.seen.lock().expect("seen").len();
    assert!(handshakes <= 3, "{handshakes} for 300 requests");
}

#[test]
fn an_answer_nobody_asked_for_is_nobodys_over_tls_too() {
    let poisoned = secure_with(
        "api.test",
        |_, config| config,
        |tls| {
            answer_and(tls, |tls| {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
                let _ = tls.flush();
            });
        },
    );
    let rig = Plan::new(&[poisoned.backend.address()])
        .pool("tls: {ca: ca.pem, server-name: api.test}")
        .top("workers: 1")
        .run_with(Start::new().file("ca.pem", &poisoned.pem));
    let mut raw = rig.raw();
    for n in 0..50 {
        // The second response is there before the next request is.
        std::thread::sleep(Duration::from_millis(5));
        raw.send(format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .expect("send");
        assert_eq!(raw.response().expect("an answer").text(), format!("/{n}"));
    }
    rig.proxy
        .wait_for_log("sent bytes behind the end of a response");
}

#[test]
fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let client = client_certificate();
    let roots = {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(client.cert_pem.as_bytes()).expect("PEM");
        roots.add(der).expect("a root");
        Arc::new(roots)
    };
    let demanding = secure_with(
        "api.test",
        move |made, _| {
            let verifier = WebPkiClientVerifier::builder(roots)
                .build()
                .expect("verifier");
            let chain =
                vec![CertificateDer::from_pem_slice(made.cert_pem.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).expect("PEM");
            ServerConfig::builder()
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
                .expect("a configuration")
        },
        |tls| answer(tls, "secret", ""),
    );
    let start = || {
        Start::new()
            .file("ca.pem", &demanding.pem)
            .file("c.pem", &client.cert_pem)
            .file("k.pem", &client.key_pem)
    };
    let address = [demanding.backend.address()];
    let base = "ca: ca.pem, server-name: api.test";
    let with = Plan::new(&address)
        .pool(&format!(
            "tls: {{{base}, certificate: {{cert: c.pem, key: k.pem}}}}"
        ))
        .run_with(start());
    assert_eq!(with.get("/").text(), "secret");
    assert!(demanding.seen.lock().expect("seen")[0].client_certificate);
    let without = Plan::new(&address)
        .pool(&format!("tls: {{{base}}}"))
        .run_with(start());
    assert_eq!(without.get("/x").status, 502);
}

#[test]
fn a_body_that_ends_without_close_notify_is_not_whole() {
    let backend = secure_with(
        "api.test",
        |_, config| config,
        |tls| {
            if head(tls).is_some() {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf");
                let _ = tls.flush();
            }
        },
    );
    let rig = rig(&backend, "ca: ca.pem, server-name: api.test");
    let done = curl(&[&rig.url("/x")]);
    assert!(matches!(done.code, 18 | 56), "{done:?}");
    assert_eq!(rig.record("/x")["reason"], "upstream-truncated");
}

#[test]
fn checks_speak_tls_too() {
    let good = secure("api.test");
    let plain = Backend::http("plain");
    for check in ["http", "tcp"] {
        for (address, status) in [(good.backend.address(), 200), (plain.address(), 503)] {
            let rig = Plan::new(&[address])
                .pool(&format!(
                    "check: {check}\ntls: {{ca: ca.pem, server-name: api.test}}"
                ))
                .run_with(Start::new().file("ca.pem", &good.pem));
            assert_eq!(rig.get("/").status, status, "{check} {address}");
        }
    }
}

#[test]
fn a_tcp_listener_encrypts_too() {
    let echo = secure_with(
        "api.test",
        |_, config| config,
        |tls| {
            let mut bytes = [0; 65536];
            while let Ok(n @ 1..) = tls.read(&mut bytes) {
                if tls.write_all(&bytes[..n]).is_err() || tls.flush().is_err() {
                    return;
                }
            }
            tls.conn.send_close_notify();
            let _ = tls.flush();
        },
    );
    let bind = Addresses::new().free();
    let yaml = format!(
        "pools: {{p: {{endpoints: [\"{}\"], tls: {{ca: ca.pem, server-name: api.test}}}}}}\n\
         listeners: [{{name: l, bind: \"{bind}\", protocol: tcp, pool: p}}]",
        echo.backend.address()
    );
    let proxy = Start::new().file("ca.pem", &echo.pem).run(&yaml);
    let before = proxy.settled();
    let mut raw = Raw::connect(bind);
    raw.send("ping").expect("send");
    assert_eq!(raw.exactly(4).expect("echo"), b"ping");
    let body: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
    let mut writing = raw.stream().try_clone().expect("clone");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writing.write_all(&body).expect("write");
            writing
                .shutdown(std::net::Shutdown::Write)
                .expect("shutdown");
        });
        assert_eq!(raw.to_end().expect("all of it"), body);
    });
    drop(raw);
    assert_eq!(echo.seen.lock().expect("seen")[0].alpn, None);
    proxy.assert_nothing_left(before, 16 << 20);
}

#[test]
fn an_upgrade_passes_through_tls() {
    let backend = secure_with(
        "api.test",
        |_, config| config,
        |tls| {
            if head(tls).is_none() {
                return;
            }
            let switch = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            let _ = tls.write_all(switch).and_then(|()| tls.flush());
            let mut bytes = [0; 4];
            if tls.read_exact(&mut bytes).is_ok() {
                let _ = tls.write_all(&bytes).and_then(|()| tls.flush());
            }
            tls.conn.send_close_notify();
            let _ = tls.flush();
        },
    );
    let rig = rig(&backend, "ca: ca.pem, server-name: api.test");
    let mut raw = rig.raw();
    raw.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .expect("send");
    assert!(raw.head().expect("head").starts_with("HTTP/1.1 101"));
    raw.send("ping").expect("send");
    assert_eq!(raw.exactly(4).expect("echo"), b"ping");
}

#[test]
fn a_reload_that_adds_tls_leaves_kept_plain_connections_alone() {
    let good = secure("api.test");
    let hellos = Arc::new(AtomicUsize::new(0));
    let counts = hellos.clone();
    // Plain first; what begins with a handshake record is counted and refused.
    let plain = Backend::raw(move |stream, _| {
        let mut first = [0];
        if stream.peek(&mut first).is_ok() && first == [0x16] {
            counts.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let mut raw = Raw::over(stream);
        while raw.head().is_ok() && raw.send(response(200, "plain")).is_ok() {}
    });
    let plan = Plan::new(&[plain.address()]).pool("retries: 0");
    let rig = plan
        .clone()
        .run_with(Start::new().file("ca.pem", &good.pem));
    assert_eq!(rig.get("/").text(), "plain");
    let yaml = plan.pool("tls: {ca: ca.pem, server-name: api.test}");
    let done = rig.proxy.reload(&yaml.yaml(rig.bind));
    assert_eq!(done.code, 0, "{}", done.stderr);
    fails(
        &rig,
        502,
        "tls_protocol_error",
        "upstream-tls",
        "after the reload",
    );
    assert_eq!(hellos.load(Ordering::SeqCst), 1);
}

#[test]
fn an_authority_that_changes_is_read_at_reload() {
    let good = secure("api.test");
    let plan = Plan::new(&[good.backend.address()])
        .pool("retries: 0\ntls: {ca: ca.pem, server-name: api.test}");
    let other = certificate("other.test").cert_pem;
    let rig = plan.clone().run_with(Start::new().file("ca.pem", other));
    fails(&rig, 502, "tls_protocol_error", "upstream-tls", "before");
    std::fs::write(rig.proxy.directory().join("ca.pem"), &good.pem).expect("write");
    let done = rig.proxy.reload(&plan.yaml(rig.bind));
    assert!(done.stdout.contains("1 pool changed"), "{done:?}");
    assert_eq!(rig.get("/").text(), "secret");
    let again = rig.proxy.reload(&plan.yaml(rig.bind));
    assert!(!again.stdout.contains("pool changed"), "{again:?}");
}

#[test]
fn openssl_is_a_backend() {
    let made = certificate("localhost");
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&cert, &made.cert_pem).expect("write");
    std::fs::write(&key, &made.key_pem).expect("write");
    for version in ["-tls1_2", "-tls1_3"] {
        let address = Addresses::new().free();
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", version, "-accept"])
            .arg(address.to_string())
            .arg("-cert")
            .arg(&cert)
            .arg("-key")
            .arg(&key)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let _server = Killed(server);
        assert!(eventually(Duration::from_secs(10), || {
            TcpStream::connect(address).is_ok()
        }));
        let rig = Plan::new(&[address])
            .pool("tls: {ca: ca.pem, server-name: localhost}")
            .run_with(Start::new().file("ca.pem", &made.cert_pem));
        let page = rig.get("/");
        assert_eq!(page.status, 200, "{version}");
        assert!(
            page.text().contains("s_server"),
            "{version}: {}",
            page.text()
        );
    }
}

/// One that may be used by clients.
fn client_certificate() -> SelfSigned {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=proxy.test"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=DNS:proxy.test"])
        .arg("-out")
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{made:?}");
    SelfSigned {
        cert_pem: std::fs::read_to_string(cert).expect("a certificate"),
        key_pem: std::fs::read_to_string(key).expect("a key"),
    }
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
