use super::*;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const NEVER: Duration = Duration::from_secs(3600);

struct Ends {
    client: TcpStream,
    endpoint: TcpStream,
    end: RelayEnd,
    up: u64,
    down: u64,
}

/// A connected pair of sockets: (who opened it, who accepted it).
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let opened = TcpStream::connect(listener.local_addr().unwrap());
    let (opened, accepted) = tokio::join!(opened, listener.accept());
    (opened.unwrap(), accepted.unwrap().0)
}

/// Runs a relay between a client and an endpoint while `talk` plays both. Dropping a socket in `talk` closes it.
async fn relayed<F: Future<Output = (TcpStream, TcpStream)>>(
    initial: &[u8],
    splice: bool,
    idle: Duration,
    talk: impl FnOnce(TcpStream, TcpStream, Rc<Tally>) -> F,
) -> Ends {
    let (client, mut client_side) = pair().await;
    let (mut upstream_side, endpoint) = pair().await;
    let (scratch, pipes, timer) = (Scratch::new(), Pipes::new(), Timer::new());
    let tally = Rc::new(Tally::default());
    let relaying = async {
        let options = RelayOptions {
            scratch: &scratch,
            pipes: splice.then_some(&pipes),
            idle,
            half_closed: idle,
            timer: &timer,
            tally: &tally,
            pieces: None,
        };
        let end = relay(&mut client_side, &mut upstream_side, initial, &options).await;
        drop((client_side, upstream_side));
        end
    };
    let talk = talk(client, endpoint, tally.clone());
    let (end, (client, endpoint)) = tokio::join!(relaying, talk);
    Ends {
        client,
        endpoint,
        end,
        up: tally.up.get(),
        down: tally.down.get(),
    }
}

/// Sends a reproducible stream in random pieces, some of them late.
async fn send(
    writer: &mut (impl AsyncWriteExt + Unpin),
    seed: u64,
    total: usize,
    piece_max: usize,
) {
    let mut content = fastrand::Rng::with_seed(seed);
    let mut sizes = fastrand::Rng::with_seed(seed ^ 1);
    let mut sent = 0;
    let mut piece = vec![0; piece_max];
    while sent < total {
        let size = sizes.usize(1..=piece_max).min(total - sent);
        content.fill(&mut piece[..size]);
        // `fill` takes whole words from the generator, so both ends must cut the stream alike.
        writer.write_all(&piece[..size]).await.unwrap();
        sent += size;
        if sizes.u8(..) < 8 {
            tokio::task::yield_now().await;
        }
    }
}

async fn expect(
    reader: &mut (impl AsyncReadExt + Unpin),
    seed: u64,
    total: usize,
    piece_max: usize,
) {
    let mut content = fastrand::Rng::with_seed(seed);
    let mut sizes = fastrand::Rng::with_seed(seed ^ 1);
    let mut received = 0;
    let (mut wanted, mut got) = (vec![0; piece_max], vec![0; piece_max]);
    while received < total {
        let size = sizes.usize(1..=piece_max).min(total - received);
        content.fill(&mut wanted[..size]);
        reader.read_exact(&mut got[..size]).await.unwrap();
        assert!(
            wanted[..size] == got[..size],
            "bytes differ after {received}"
        );
        received += size;
        if sizes.u8(..) < 8 {
            tokio::task::yield_now().await;
        }
    }
}

async fn integrity(splice: bool, total: usize, up_piece: usize, down_piece: usize) {
    let ends = relayed(
        b"",
        splice,
        NEVER,
        |mut client, mut endpoint, _| async move {
            {
                let (mut client_read, mut client_write) = client.split();
                let (mut endpoint_read, mut endpoint_write) = endpoint.split();
                tokio::join!(
                    async {
                        send(&mut client_write, 1, total, up_piece).await;
                        client_write.shutdown().await.unwrap();
                    },
                    async {
                        send(&mut endpoint_write, 2, total, down_piece).await;
                        endpoint_write.shutdown().await.unwrap();
                    },
                    async {
                        expect(&mut endpoint_read, 1, total, up_piece).await;
                        assert_eq!(endpoint_read.read(&mut [0]).await.unwrap(), 0);
                    },
                    async {
                        expect(&mut client_read, 2, total, down_piece).await;
                        assert_eq!(client_read.read(&mut [0]).await.unwrap(), 0);
                    },
                );
            }
            (client, endpoint)
        },
    )
    .await;
    assert_eq!(ends.end, RelayEnd::Finished);
    assert_eq!((ends.up, ends.down), (total as u64, total as u64));
}

#[tokio::test]
async fn every_byte_arrives_in_order_when_copied() {
    integrity(false, 4_000_000, 3_000, 200_000).await;
}

#[tokio::test]
async fn every_byte_arrives_in_order_when_spliced() {
    integrity(true, 32_000_000, 1_000_000, 300_000).await;
}

#[tokio::test]
async fn every_byte_arrives_in_order_when_pieces_vary() {
    for (up, down) in [(1, 70_000), (65_536, 65_537), (16_384, 9), (1_460, 131_072)] {
        integrity(true, 300_000, up, down).await;
    }
}

#[tokio::test]
async fn bytes_read_before_go_first() {
    relayed(
        b"early ",
        true,
        NEVER,
        |mut client, mut endpoint, _| async move {
            client.write_all(b"late").await.unwrap();
            client.shutdown().await.unwrap();
            let mut all = String::new();
            endpoint.read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "early late");
            endpoint.shutdown().await.unwrap();
            (client, endpoint)
        },
    )
    .await;
}

#[tokio::test]
async fn a_half_close_leaves_the_other_direction_open() {
    for splice in [false, true] {
        let ends = relayed(
            b"",
            splice,
            NEVER,
            |mut client, mut endpoint, _| async move {
                client.write_all(b"question").await.unwrap();
                client.shutdown().await.unwrap();
                let mut question = String::new();
                endpoint.read_to_string(&mut question).await.unwrap();
                assert_eq!(question, "question");

                endpoint.write_all(&vec![b'a'; 500_000]).await.unwrap();
                endpoint.shutdown().await.unwrap();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.unwrap();
                assert_eq!(answer.len(), 500_000);
                (client, endpoint)
            },
        )
        .await;
        assert_eq!(ends.end, RelayEnd::Finished);
        assert_eq!((ends.up, ends.down), (8, 500_000));
    }
}

#[tokio::test]
async fn an_idle_session_ends() {
    let idle = Duration::from_millis(30);
    let ends = relayed(b"", true, idle, |mut client, mut endpoint, _| async move {
        // Traffic in one direction alone keeps the session.
        for _ in 0..5 {
            tokio::time::sleep(idle / 3).await;
            endpoint.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
        }
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        (client, endpoint)
    })
    .await;
    assert_eq!(ends.end, RelayEnd::Idle);
    assert_eq!(ends.down, 5);
}

#[tokio::test]
async fn a_reset_reaches_the_other_side() {
    // The endpoint resets: the client gets what was sent, then the reset.
    let ends = relayed(b"", true, NEVER, |mut client, endpoint, _| async move {
        reset_on_close(&endpoint);
        drop(endpoint);
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        (client, pair().await.0)
    })
    .await;
    assert_eq!(ends.end, RelayEnd::UpstreamReset);

    let ends = relayed(b"", true, NEVER, |client, mut endpoint, _| async move {
        reset_on_close(&client);
        drop(client);
        let error = endpoint.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        (pair().await.0, endpoint)
    })
    .await;
    assert_eq!(ends.end, RelayEnd::ClientReset);
}

#[tokio::test]
async fn a_slow_reader_holds_the_sender_back() {
    for splice in [false, true] {
        let ends = relayed(
            b"",
            splice,
            NEVER,
            |mut client, mut endpoint, tally| async move {
                let piece = vec![7; 1 << 20];
                let (mut accepted, mut delivered) = (0, u64::MAX);
                // The sender goes on until nothing moves any more: every buffer on the way is full.
                loop {
                    match endpoint.try_write(&piece) {
                        Ok(taken) => accepted += taken,
                        Err(_) if delivered == tally.down.get() => break,
                        Err(_) => {
                            delivered = tally.down.get();
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                // Kernel buffers of two connections (at most 4 and 6 MiB each by default) and one piece of ours.
                assert!(
                    accepted < 48 << 20,
                    "{accepted} bytes were taken for a client that reads none"
                );
                endpoint.shutdown().await.unwrap();
                client.shutdown().await.unwrap();
                let mut all = Vec::new();
                client.read_to_end(&mut all).await.unwrap();
                assert_eq!(all.len(), accepted);
                (client, endpoint)
            },
        )
        .await;
        assert_eq!(ends.end, RelayEnd::Finished);
        drop((ends.client, ends.endpoint));
    }
}

#[tokio::test]
async fn a_tls_client_is_relayed_in_plain() {
    use crate::config::{CertificateConfig, ConfigPath, TlsConfig, TlsVersion};
    use crate::tls::{ServerTls, self_signed};
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    const TOTAL: usize = 3_000_000;
    let folder = tempfile::tempdir().unwrap();
    let made = self_signed(&["a.test".to_owned()], 1).unwrap();
    let (cert, key) = (folder.path().join("crt"), folder.path().join("key"));
    std::fs::write(&cert, &made.cert_pem).unwrap();
    std::fs::write(&key, &made.key_pem).unwrap();
    let at = ConfigPath::default();
    let config = TlsConfig {
        certificates: vec![CertificateConfig {
            cert: cert.into(),
            key: key.into(),
            at: at.clone(),
        }],
        at,
        min_version: TlsVersion::V1_2,
        suites: Vec::new(),
        alpn: Vec::new(),
        resumption: true,
    };
    let server = ServerTls::load(&config, &[], None).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(made.cert_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trusting = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let (client, client_side) = pair().await;
    let (mut upstream_side, mut endpoint) = pair().await;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(trusting));
    let acceptor = tokio_rustls::TlsAcceptor::from(server.config());
    let (client, client_side) = tokio::join!(
        connector.connect("a.test".try_into().unwrap(), client),
        acceptor.accept(client_side)
    );
    let (client, client_side) = (client.unwrap(), client_side.unwrap());
    let mut client_side = Io::Tls(Box::new(client_side));

    let (scratch, pipes, timer, tally) =
        (Scratch::new(), Pipes::new(), Timer::new(), Tally::default());
    let options = RelayOptions {
        scratch: &scratch,
        pipes: Some(&pipes),
        idle: NEVER,
        half_closed: NEVER,
        timer: &timer,
        tally: &tally,
        pieces: None,
    };
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut endpoint_read, mut endpoint_write) = endpoint.split();
    let got_bye = tokio::sync::Notify::new();
    let (end, ..) = tokio::join!(
        relay(&mut client_side, &mut upstream_side, b"", &options),
        async {
            send(&mut client_write, 1, TOTAL, 90_000).await;
            client_write.shutdown().await.unwrap();
        },
        async {
            send(&mut endpoint_write, 2, TOTAL, 90_000).await;
            // The last piece must arrive though the end of the stream, which would flush it, comes later.
            endpoint_write.write_all(b"bye").await.unwrap();
            got_bye.notified().await;
            endpoint_write.shutdown().await.unwrap();
        },
        async {
            expect(&mut endpoint_read, 1, TOTAL, 90_000).await;
            assert_eq!(endpoint_read.read(&mut [0]).await.unwrap(), 0);
        },
        async {
            expect(&mut client_read, 2, TOTAL, 90_000).await;
            let mut bye = [0; 3];
            client_read.read_exact(&mut bye).await.unwrap();
            assert_eq!(&bye, b"bye");
            got_bye.notify_one();
            assert_eq!(client_read.read(&mut [0]).await.unwrap(), 0);
        },
    );
    assert_eq!(end, RelayEnd::Finished);
    assert_eq!(
        (tally.up.get(), tally.down.get()),
        (TOTAL as u64, TOTAL as u64 + 3)
    );
}
