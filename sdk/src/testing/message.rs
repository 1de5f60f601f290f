//! Requests, responses, ends and streams to send through a filter.

use std::net::SocketAddr;

use super::block::{Block, shown};
use crate::head::{FLAG_BODY, FLAG_HTTP2, FLAG_LAST, FLAG_MORE, FLAG_TLS, slot};
use crate::plan::{Interest, Phase};

pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// The connection's side of a message.
#[derive(Debug, Clone)]
struct Connection {
    listener: String,
    client: Address,
    peer: Address,
    local: Address,
    tls: Option<TestTls>,
}

#[derive(Debug, Clone)]
struct Address {
    ip: String,
    port: u16,
}

#[derive(Debug, Clone)]
struct TestTls {
    sni: Option<String>,
    alpn: Option<String>,
    version: String,
    client_subject: Option<String>,
}

impl Address {
    #[track_caller]
    fn parse(text: &str) -> Self {
        match text.parse::<SocketAddr>() {
            Ok(address) => Self {
                ip: address.ip().to_string(),
                port: address.port(),
            },
            Err(_) => panic!("`{text}` is not written as address:port"),
        }
    }
}

impl Default for Connection {
    fn default() -> Self {
        let client = Address::parse("192.0.2.1:50000");
        Self {
            listener: "test".into(),
            client: client.clone(),
            peer: client,
            local: Address::parse("198.51.100.1:80"),
            tls: None,
        }
    }
}

impl Connection {
    fn fill<'a>(&'a self, block: &mut Block<'a>) {
        block.facts[slot::LISTENER] = Some(self.listener.as_bytes());
        block.facts[slot::CLIENT] = Some(self.client.ip.as_bytes());
        block.facts[slot::PEER] = Some(self.peer.ip.as_bytes());
        block.facts[slot::LOCAL] = Some(self.local.ip.as_bytes());
        block.ports = [self.client.port, self.peer.port, self.local.port];
        if let Some(tls) = &self.tls {
            let bytes = |text: &'a Option<String>| text.as_ref().map(|t| t.as_bytes());
            block.flags |= FLAG_TLS;
            block.facts[slot::SNI] = bytes(&tls.sni);
            block.facts[slot::ALPN] = bytes(&tls.alpn);
            block.facts[slot::TLS_VERSION] = Some(tls.version.as_bytes());
            block.facts[slot::CLIENT_SUBJECT] = bytes(&tls.client_subject);
        }
    }
}

/// A request: from 192.0.2.1:50000 to 198.51.100.1:80, for `test.example`, unless it says otherwise.
#[derive(Debug, Clone)]
pub struct TestRequest {
    connection: Connection,
    method: String,
    authority: String,
    path: String,
    query: Option<String>,
    id: String,
    protocol: &'static str,
    has_body: bool,
    pub(crate) fields: Fields,
}

impl TestRequest {
    /// `target` is path and query.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self {
            connection: Connection::default(),
            method: method.into(),
            authority: "test.example".into(),
            path: path.into(),
            query,
            id: "0123456789abcdef".into(),
            protocol: "HTTP/1.1",
            has_body: false,
            fields: Vec::new(),
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with a body.
    pub fn post(target: &str) -> Self {
        Self {
            has_body: true,
            ..Self::new("POST", target)
        }
    }

    /// One more field line.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = authority.into();
        self
    }

    /// The client after trust rules, as `address:port`; the peer as well, unless [`peer`](Self::peer) follows.
    #[must_use]
    #[track_caller]
    pub fn client(mut self, address: &str) -> Self {
        self.connection.client = Address::parse(address);
        self.connection.peer = self.connection.client.clone();
        self
    }

    #[must_use]
    #[track_caller]
    pub fn peer(mut self, address: &str) -> Self {
        self.connection.peer = Address::parse(address);
        self
    }

    #[must_use]
    #[track_caller]
    pub fn local(mut self, address: &str) -> Self {
        self.connection.local = Address::parse(address);
        self
    }

    #[must_use]
    pub fn listener(mut self, name: &str) -> Self {
        self.connection.listener = name.into();
        self
    }

    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.into();
        self
    }

    /// Over TLS 1.3, with this server name.
    #[must_use]
    pub fn tls(mut self, sni: &str) -> Self {
        self.connection.tls = Some(TestTls {
            sni: Some(sni.into()),
            alpn: None,
            version: "1.3".into(),
            client_subject: None,
        });
        self
    }

    /// With a client certificate of this subject; call [`tls`](Self::tls) first.
    #[must_use]
    pub fn client_subject(mut self, subject: &str) -> Self {
        if let Some(tls) = &mut self.connection.tls {
            tls.client_subject = Some(subject.into());
        }
        self
    }

    #[must_use]
    pub fn http2(mut self) -> Self {
        self.protocol = "HTTP/2";
        if let Some(tls) = &mut self.connection.tls {
            tls.alpn = Some("h2".into());
        }
        self
    }

    /// The packed head with every field, to call a filter without a harness (in a benchmark, say).
    pub fn into_block(self) -> Vec<u8> {
        self.block(0, &Interest::All)
    }

    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn client_ip(&self) -> &str {
        &self.connection.client.ip
    }

    pub(crate) fn host(&self) -> &str {
        match self.authority.rfind([':', ']']) {
            Some(at) if self.authority.as_bytes()[at] == b':' => &self.authority[..at],
            _ => &self.authority,
        }
    }

    pub(crate) fn block(&self, state: u64, interest: &Interest) -> Vec<u8> {
        let mut block = self.facts(state);
        block.fields = shown(&self.fields, interest);
        block.pack()
    }

    fn facts(&self, state: u64) -> Block<'_> {
        let mut block = Block {
            state,
            ..Block::default()
        };
        self.connection.fill(&mut block);
        if self.protocol == "HTTP/2" {
            block.flags |= FLAG_HTTP2;
        }
        if self.has_body {
            block.flags |= FLAG_BODY;
        }
        let scheme = match self.connection.tls {
            Some(_) => "https",
            None => "http",
        };
        block.facts[slot::METHOD] = Some(self.method.as_bytes());
        block.facts[slot::SCHEME] = Some(scheme.as_bytes());
        block.facts[slot::AUTHORITY] = Some(self.authority.as_bytes());
        block.facts[slot::PATH] = Some(self.path.as_bytes());
        block.facts[slot::QUERY] = self.query.as_ref().map(|query| query.as_bytes());
        block.facts[slot::REQUEST_ID] = Some(self.id.as_bytes());
        block.facts[slot::PROTOCOL] = Some(self.protocol.as_bytes());
        block
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct TestResponse {
    pub(crate) status: u16,
    endpoint: Option<String>,
    pool: Option<String>,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
}

impl TestResponse {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            endpoint: None,
            pool: None,
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    /// One more field line.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Of the answer to a filter's call: other responses are shown by their head.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// The endpoint that answered, as `address:port`, and its pool.
    #[must_use]
    pub fn from(mut self, endpoint: &str, pool: &str) -> Self {
        self.endpoint = Some(endpoint.into());
        self.pool = Some(pool.into());
        self
    }

    pub(crate) fn block(&self, request: &TestRequest, state: u64, interest: &Interest) -> Vec<u8> {
        let mut block = self.facts(request, state);
        block.fields = shown(&self.fields, interest);
        block.pack()
    }

    fn facts<'a>(&'a self, request: &'a TestRequest, state: u64) -> Block<'a> {
        let mut block = request.facts(state);
        block.status = self.status;
        block.facts[slot::ENDPOINT] = self.endpoint.as_ref().map(|text| text.as_bytes());
        block.facts[slot::POOL] = self.pool.as_ref().map(|text| text.as_bytes());
        block
    }
}

/// What a phase of a body shows beside the head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub piece: &'a [u8],
    pub last: bool,
    pub more: bool,
}

impl Shown<'_> {
    fn flags(self) -> u16 {
        (if self.last { FLAG_LAST } else { 0 }) | (if self.more { FLAG_MORE } else { 0 })
    }
}

impl TestRequest {
    /// The block of a phase of its body.
    pub(crate) fn body_block(&self, state: u64, interest: &Interest, body: Shown<'_>) -> Vec<u8> {
        let mut block = self.facts(state);
        block.flags |= FLAG_BODY | body.flags();
        block.facts[slot::PIECE] = Some(body.piece);
        block.fields = shown(&self.fields, interest);
        block.pack()
    }

    /// The block of a phase of its trailers.
    pub(crate) fn trailers_block(&self, state: u64, trailers: &Fields) -> Vec<u8> {
        let mut block = self.facts(state);
        block.fields = shown(trailers, &Interest::All);
        block.pack()
    }
}

impl TestResponse {
    /// The block of a phase of its body.
    pub(crate) fn body_block(
        &self,
        request: &TestRequest,
        state: u64,
        interest: &Interest,
        body: Shown<'_>,
    ) -> Vec<u8> {
        let mut block = self.facts(request, state);
        block.flags |= body.flags();
        block.facts[slot::PIECE] = Some(body.piece);
        block.fields = shown(&self.fields, interest);
        block.pack()
    }

    /// The block of a phase of its trailers.
    pub(crate) fn trailers_block(
        &self,
        request: &TestRequest,
        state: u64,
        trailers: &Fields,
    ) -> Vec<u8> {
        let mut block = self.facts(request, state);
        block.fields = shown(trailers, &Interest::All);
        block.pack()
    }
}

/// The end of an exchange.
#[derive(Debug, Clone, Default)]
pub struct TestEnd {
    pub status: u16,
    pub endpoint: Option<String>,
    pub pool: Option<String>,
    pub reason: Option<String>,
    pub duration_us: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

impl TestEnd {
    pub(crate) fn block(&self, request: &TestRequest, state: u64) -> Vec<u8> {
        let mut block = request.facts(state);
        block.status = self.status;
        block.counts = [self.duration_us, self.bytes_received, self.bytes_sent];
        block.facts[slot::ENDPOINT] = self.endpoint.as_ref().map(|text| text.as_bytes());
        block.facts[slot::POOL] = self.pool.as_ref().map(|text| text.as_bytes());
        block.facts[slot::REASON] = self.reason.as_ref().map(|text| text.as_bytes());
        block.pack()
    }
}

/// A connection of a stream listener: from 192.0.2.1:50000 to 198.51.100.1:80 unless it says otherwise.
#[derive(Debug, Clone, Default)]
pub struct TestStream {
    connection: Connection,
    sni: Option<String>,
    offered: Option<String>,
    bytes: Vec<u8>,
}

impl TestStream {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    #[track_caller]
    pub fn client(mut self, address: &str) -> Self {
        self.connection.client = Address::parse(address);
        self.connection.peer = self.connection.client.clone();
        self
    }

    #[must_use]
    #[track_caller]
    pub fn local(mut self, address: &str) -> Self {
        self.connection.local = Address::parse(address);
        self
    }

    /// The server name of the ClientHello.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.sni = Some(name.into());
        self
    }

    /// The protocols that the ClientHello offers.
    #[must_use]
    pub fn offers(mut self, protocols: &[&str]) -> Self {
        self.offered = Some(protocols.join(","));
        self
    }

    /// What the client sends first.
    #[must_use]
    pub fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.bytes = bytes.as_ref().to_vec();
        self
    }

    pub(crate) fn block(&self, phase: Phase, state: u64, first_bytes: usize) -> Vec<u8> {
        let mut block = Block {
            state,
            ..Block::default()
        };
        self.connection.fill(&mut block);
        if phase != Phase::Connect {
            block.facts[slot::SNI] = self.sni.as_ref().map(|text| text.as_bytes());
            block.facts[slot::ALPN_OFFERED] = self.offered.as_ref().map(|text| text.as_bytes());
        }
        if phase == Phase::FirstBytes {
            let shown = self.bytes.len().min(first_bytes);
            block.facts[slot::FIRST_BYTES] = Some(&self.bytes[..shown]);
        }
        block.pack()
    }

    pub(crate) fn data_block(&self, state: u64, bytes: &[u8], last: bool) -> Vec<u8> {
        let mut block = Block {
            state,
            ..Block::default()
        };
        self.connection.fill(&mut block);
        block.flags |= if last { FLAG_LAST } else { 0 };
        block.facts[slot::PIECE] = Some(bytes);
        block.pack()
    }
}
