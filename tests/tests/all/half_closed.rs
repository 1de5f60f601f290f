//! Relayed sessions and upgraded connections of which one side has ended: what goes on in the other direction goes on,
//! and nothing else keeps its seat.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Proxy, Start};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::rig::{Plan, TLS, records, with_certificate};

const UPGRADE: &str =
    "GET /t HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
/// More than the sockets between a backend and its client hold.
const MUCH: usize = 24 << 20;

#[derive(Clone, Copy)]
enum Kind {
    Relayed,
    Spliced,
    OverTls,
    Upgraded,
    UpgradedOverTls,
}

const KINDS: [Kind; 5] = [
    Kind::Relayed,
    Kind::Spliced,
    Kind::OverTls,
    Kind::Upgraded,
    Kind::UpgradedOverTls,
];

impl Kind {
    fn is_upgraded(self) -> bool {
        matches!(self, Self::Upgraded | Self::UpgradedOverTls)
    }

    fn is_tls(self) -> bool {
        matches!(self, Self::OverTls | Self::UpgradedOverTls)
    }
}

/// A proxy with one listener of this kind, and how it is reached.
struct Rig {
    proxy: Proxy,
    bind: SocketAddr,
    kind: Kind,
}

impl Rig {
    fn new(kind: Kind, backend: &Backend, options: &str) -> Self {
        let start = with_certificate(Start::new());
        let tls = if kind.is_tls() { TLS } else { "" };
        if kind.is_upgraded() {
            let plan = Plan::new(&[backend.address()])
                .listener(options)
                .listener(tls);
            let rig = plan.run_with(start);
            return Self {
                proxy: rig.proxy,
                bind: rig.bind,
                kind,
            };
        }
        let bind = Addresses::new().free();
        let splice = matches!(kind, Kind::Spliced);
        let proxy = start.run(&format!(
            "pools:\n  a: {{endpoints: [\"{}\"]}}\nlisteners:\n  - name: web\n    bind: \"{bind}\"\n    protocol: tcp\n    \
             pool: a\n    tcp: {{splice: {splice}}}\n    {options}\n    {tls}\n\
             telemetry: {{access-log: {{format: json}}}}\n",
            backend.address()
        ));
        Self { proxy, bind, kind }
    }

    /// A client past the 101, where there is one.
    fn client(&self) -> Client {
        let stream = TcpStream::connect(self.bind).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let mut client = match self.kind.is_tls() {
            false => Client::Plain(stream),
            true => {
                let pem = std::fs::read(self.proxy.directory().join("c.pem")).expect("c.pem");
                let mut roots = RootCertStore::empty();
                let own = CertificateDer::from_pem_slice(&pem).expect("a certificate");
                roots.add(own).expect("a root");
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .expect("versions")
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let name = "localhost".try_into().expect("a name");
                let tls = ClientConnection::new(config.into(), name).expect("a client");
                Client::Tls(Box::new(StreamOwned::new(tls, stream)))
            }
        };
        if self.kind.is_upgraded() {
            client.write_all(UPGRADE.as_bytes()).expect("send");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).expect("a head");
                head.extend(byte);
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "));
        }
        client
    }

    fn ends_with(&self, reason: &str) {
        let ended = || {
            let mut records = records(&self.proxy).into_iter();
            records.any(|record| record["reason"].as_str().unwrap_or_default() == reason)
        };
        assert!(
            eventually(DEADLINE, ended),
            "no {reason} in {}",
            self.proxy.stdout()
        );
    }
}

enum Client {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Client {
    /// Ends what it says, and reads on.
    fn end(&mut self) {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write).expect("shutdown"),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().expect("flush");
                stream.sock.shutdown(Shutdown::Write).expect("shutdown");
            }
        }
    }
}

impl Read for Client {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Past the 101, if that is asked for, it does `then`.
fn backend(then: impl Fn(&mut TcpStream) + Send + Sync + 'static, kind: Kind) -> Backend {
    Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        if kind.is_upgraded() && (raw.head().is_err() || raw.send(SWITCHED).is_err()) {
            return;
        }
        let mut stream = raw.stream().try_clone().expect("clone");
        then(&mut stream);
    })
}

fn in_parallel(check: impl Fn(Kind) + Sync) {
    std::thread::scope(|scope| {
        for kind in KINDS {
            let check = &check;
            scope.spawn(move || check(kind));
        }
    });
}

#[test]
fn sessions_whose_server_has_closed_give_their_seats_back() {
    in_parallel(|kind| {
        // Says its word, ends, and waits for what the client has to say.
        let backend = backend(
            |stream| {
                let _ = stream.write_all(b"bye");
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            },
            kind,
        );
        let options = "timeouts: {half-closed: 300ms}\n    limits: {connections: 5}";
        let options = match kind.is_upgraded() {
            true => &options.replace("\n    ", "\n"),
            false => options,
        };
        let rig = Rig::new(kind, &backend, options);
        let mut held: Vec<Client> = (0..5).map(|_| rig.client()).collect();
        for client in &mut held {
            let mut word = [0; 3];
            client.read_exact(&mut word).expect("a word");
        }
        // They hold on; a sixth gets in all the same.
        let mut late = rig.client();
        let mut word = [0; 3];
        late.read_exact(&mut word).expect("a word");
        rig.ends_with("idle-timeout");
        drop(held);
    });
}

#[test]
fn a_client_that_has_ended_and_reads_slowly_gets_everything() {
    in_parallel(|kind| {
        let backend = backend(
            |stream| {
                let _ = stream.read_to_end(&mut Vec::new());
                let _ = stream.write_all(&vec![b'x'; MUCH]);
            },
            kind,
        );
        let rig = Rig::new(kind, &backend, "timeouts: {half-closed: 4s}");
        let mut client = rig.client();
        client.write_all(b"give").expect("send");
        client.end();
        let started = Instant::now();
        let mut got = 0;
        let mut piece = vec![0; 64 * 1024];
        // Slowly for several times the timeout, so that a socket's buffer, which is emptied a third at a time, is not.
        while let Ok(n @ 1..) = client.read(&mut piece) {
            assert!(piece[..n].iter().all(|&b| b == b'x'));
            got += n;
            if started.elapsed() < Duration::from_secs(13) {
                std::thread::sleep(Duration::from_millis(250));
            }
        }
        assert_eq!(got, MUCH);
        rig.ends_with("");
    });
}

#[test]
fn a_client_that_has_ended_and_reads_nothing_is_given_up() {
    in_parallel(|kind| {
        let backend = backend(
            |stream| {
                let _ = stream.read_to_end(&mut Vec::new());
                while stream.write_all(&[b'x'; 65536]).is_ok() {}
            },
            kind,
        );
        let rig = Rig::new(kind, &backend, "timeouts: {half-closed: 500ms}");
        let mut client = rig.client();
        client.write_all(b"give").expect("send");
        client.end();
        let ended = || !records(&rig.proxy).is_empty();
        assert!(eventually(DEADLINE, ended), "it still holds its seat");
        drop(client);
    });
}

#[test]
fn a_backend_that_answers_late_loses_a_client_that_has_ended() {
    in_parallel(|kind| {
        let backend = backend(
            |stream| {
                let _ = stream.read_to_end(&mut Vec::new());
                std::thread::sleep(DEADLINE);
            },
            kind,
        );
        let rig = Rig::new(kind, &backend, "timeouts: {half-closed: 300ms}");
        let mut client = rig.client();
        client.write_all(b"give").expect("send");
        client.end();
        rig.ends_with("idle-timeout");
    });
}
