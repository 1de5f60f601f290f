//! A look at what a client sends first, before anything is decided. What was read is kept for who comes next.

use std::io;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// One TLS record with its header: more than any ClientHello needs.
pub const HELLO_BYTES_MAX: usize = 16 * 1024 + 5;
/// How much one read may take.
const PIECE_BYTES: usize = 4096;

/// What a client offers in its TLS ClientHello.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Lower case.
    pub sni: Option<String>,
    /// Protocols in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

/// What the first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// A TLS handshake record.
    Tls,
    /// A request line of HTTP/1.
    Http1,
    /// The connection preface of HTTP/2.
    Http2,
    Other,
    /// Too few to tell.
    Unclear,
}

impl FirstBytes {
    pub fn of(bytes: &[u8]) -> Self {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        const METHODS: [&[u8]; 9] = [
            b"GET ",
            b"HEAD ",
            b"POST ",
            b"PUT ",
            b"DELETE ",
            b"CONNECT ",
            b"OPTIONS ",
            b"TRACE ",
            b"PATCH ",
        ];
        let begins = |wanted: &[u8]| bytes.starts_with(wanted);
        let may_begin = |wanted: &[u8]| wanted.starts_with(bytes);
        if begins(&[0x16, 0x03]) {
            Self::Tls
        } else if begins(PREFACE) {
            Self::Http2
        } else if METHODS.iter().any(|method| begins(method)) {
            Self::Http1
        } else if may_begin(&[0x16, 0x03])
            || may_begin(PREFACE)
            || METHODS.iter().any(|method| may_begin(method))
        {
            Self::Unclear
        } else {
            Self::Other
        }
    }
}

/// Reads the ClientHello of a connection that is not to be decrypted. What was read is appended to `read` and has to
/// be passed on. None: these bytes are no ClientHello, or one that is malformed or over [`HELLO_BYTES_MAX`].
///
/// The caller sets the deadline. An error is the connection's.
pub async fn client_hello(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
) -> io::Result<Option<ClientHello>> {
    let mut acceptor = Acceptor::default();
    let mut parsed = 0;
    loop {
        let mut fresh = read.get(parsed..).unwrap_or_default();
        parsed = read.len();
        while !fresh.is_empty() {
            // Fails when its own buffer is full, which is over the limit as well.
            if !matches!(acceptor.read_tls(&mut fresh), Ok(1..)) {
                return Ok(None);
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Some(facts(&accepted.client_hello()))),
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
        }
        let first = FirstBytes::of(read);
        let may_be_tls = first == FirstBytes::Tls || first == FirstBytes::Unclear;
        if !may_be_tls
            || read.len() >= HELLO_BYTES_MAX
            || !read_more(stream, read, HELLO_BYTES_MAX).await?
        {
            return Ok(None);
        }
    }
}

/// Reads until `read` holds at least `count` bytes (and maybe some more) or the stream ends.
pub async fn first_bytes(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
    count: usize,
) -> io::Result<()> {
    while read.len() < count && read_more(stream, read, count).await? {}
    Ok(())
}

/// One read, so that `read` comes to hold `limit` bytes at most. False: the stream has ended.
async fn read_more(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
    limit: usize,
) -> io::Result<bool> {
    let room = limit.saturating_sub(read.len()).min(PIECE_BYTES);
    read.reserve_exact(room);
    let count = stream.take(room as u64).read_buf(read).await?;
    Ok(count > 0)
}

fn facts(hello: &rustls::server::ClientHello<'_>) -> ClientHello {
    ClientHello {
        sni: hello.server_name().map(str::to_ascii_lowercase),
        alpn: hello
            .alpn()
            .map(|protocols| protocols.map(<[u8]>::to_vec).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use tokio::io::AsyncWriteExt;

    /// The first flight of a real client.
    fn hello_bytes(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let mut client =
            rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn read_hello(bytes: &[u8], piece: usize) -> (Option<ClientHello>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut reader, mut writer) = tokio::io::duplex(piece.max(1));
            let mut read = Vec::new();
            let hello = async {
                let hello = client_hello(&mut reader, &mut read).await.unwrap();
                drop(reader);
                hello
            };
            let write = async {
                let _ = writer.write_all(bytes).await;
                drop(writer);
            };
            let hello = tokio::join!(hello, write).0;
            (hello, read)
        })
    }

    #[test]
    fn names_and_protocols_are_read_however_the_bytes_are_cut() {
        let bytes = hello_bytes("www.Lab.test", &[b"h2", b"http/1.1"]);
        let expected = ClientHello {
            sni: Some("www.lab.test".into()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        for piece in [1, 7, 100, 100_000] {
            let (hello, read) = read_hello(&bytes, piece);
            assert_eq!(hello.as_ref(), Some(&expected));
            assert_eq!(read, bytes, "bytes must stay for the endpoint");
        }
    }

    #[test]
    fn an_address_is_no_name() {
        let (hello, _) = read_hello(&hello_bytes("127.0.0.1", &[]), 4096);
        assert_eq!(hello, Some(ClientHello::default()));
    }

    #[test]
    fn anything_else_is_given_up_at_once_and_kept() {
        let (hello, read) = read_hello(b"GET / HTTP/1.1\r\n\r\n", 4096);
        assert_eq!((hello, &read[..]), (None, &b"GET / HTTP/1.1\r\n\r\n"[..]));
        let (hello, _) = read_hello(b"SSH-2.0-OpenSSH_9.9\r\n", 4096);
        assert_eq!(hello, None);
        let (hello, _) = read_hello(b"", 4096);
        assert_eq!(hello, None);
    }

    #[test]
    fn a_hello_without_end_is_bounded() {
        // Records that claim a handshake message of 16 MiB.
        let mut endless = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
        endless.resize(100_000, 0);
        let (hello, read) = read_hello(&endless, 4096);
        assert_eq!(hello, None);
        assert!(read.len() <= HELLO_BYTES_MAX);
    }

    #[test]
    fn first_bytes_tell_the_protocol() {
        let cases: [(&[u8], FirstBytes); 8] = [
            (b"", FirstBytes::Unclear),
            (&[0x16], FirstBytes::Unclear),
            (&[0x16, 3, 1], FirstBytes::Tls),
            (b"GE", FirstBytes::Unclear),
            (b"POST /", FirstBytes::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FirstBytes::Http2),
            (b"PROXY TCP4", FirstBytes::Other),
            (b"SSH-2.0", FirstBytes::Other),
        ];
        for (bytes, expected) in cases {
            assert_eq!(FirstBytes::of(bytes), expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn first_bytes_stop_at_the_count() {
        let mut source: &[u8] = b"abcdefgh";
        let mut read = Vec::new();
        first_bytes(&mut source, &mut read, 3).await.unwrap();
        assert_eq!(read, b"abc");
        first_bytes(&mut source, &mut read, 100).await.unwrap();
        assert_eq!(read, b"abcdefgh");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_input_panics_or_loses_bytes(
            flips in prop::collection::vec((0usize..512, any::<u8>()), 0..6),
            piece in 1usize..600,
        ) {
            let mut bytes = hello_bytes("a.test", &[b"h2"]);
            for (at, value) in flips {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            let (_, read) = read_hello(&bytes, piece);
            prop_assert!(bytes.starts_with(&read));
        }
    }
}
