//! The packed head: nothing is copied, every offset is checked when it is read, and whatever does not fit the block counts
//! as absent.

use crate::text::Text;

pub(crate) const FORMAT: u16 = 1;
pub(crate) const HEADER: usize = 64;
pub(crate) const ABSENT: u32 = u32::MAX;
pub(crate) const FLAG_TLS: u16 = 1;
pub(crate) const FLAG_HTTP2: u16 = 1 << 1;
pub(crate) const FLAG_BODY: u16 = 1 << 2;
pub(crate) const FLAG_MORE: u16 = 1 << 4;
pub(crate) const FLAG_LAST: u16 = 1 << 3;

/// The fact slots of PACKED.md.
pub(crate) mod slot {
    pub const METHOD: usize = 0;
    pub const SCHEME: usize = 1;
    pub const AUTHORITY: usize = 2;
    pub const PATH: usize = 3;
    pub const QUERY: usize = 4;
    pub const CLIENT: usize = 5;
    pub const PEER: usize = 6;
    pub const LOCAL: usize = 7;
    pub const LISTENER: usize = 8;
    pub const REQUEST_ID: usize = 9;
    pub const SNI: usize = 10;
    pub const ALPN: usize = 11;
    pub const TLS_VERSION: usize = 12;
    pub const CLIENT_SUBJECT: usize = 13;
    pub const ENDPOINT: usize = 14;
    pub const POOL: usize = 15;
    pub const PROTOCOL: usize = 16;
    pub const REASON: usize = 17;
    pub const FIRST_BYTES: usize = 18;
    pub const ALPN_OFFERED: usize = 19;
    pub const PIECE: usize = 20;
    #[cfg(not(target_family = "wasm"))]
    pub const COUNT: usize = 21;
}

/// What every phase is shown. The request, response, log and stream views dereference to it.
///
/// Facts that the host makes (addresses, names, ids) are `&str`; what came from the network is [`Text`]. An absent
/// fact is empty, or `None` where emptiness could be meant.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    block: &'a [u8],
    facts_at: usize,
    facts: usize,
    fields_at: usize,
    fields: usize,
}

impl<'a> Head<'a> {
    /// A view over `block`. A block of another format, or one too short, is a head in which everything is absent.
    pub fn new(block: &'a [u8]) -> Self {
        Self::parse(block).unwrap_or(Self {
            block: &[],
            facts_at: 0,
            facts: 0,
            fields_at: 0,
            fields: 0,
        })
    }

    fn parse(block: &'a [u8]) -> Option<Self> {
        if u16_at(block, 0)? != FORMAT {
            return None;
        }
        let facts = usize::from(u16_at(block, 2)?);
        let fields = usize::try_from(u32_at(block, 4)?).ok()?;
        let facts_at = usize::try_from(u32_at(block, 8)?).ok()?;
        if facts_at < HEADER {
            return None;
        }
        let fields_at = facts_at.checked_add(facts.checked_mul(8)?)?;
        let room = block.len().checked_sub(fields_at)?;
        Some(Self {
            block,
            facts_at,
            facts,
            fields_at,
            // Entries beyond the block could only be absent; the count is cut so that walking them is bounded.
            fields: fields.min(room / 16),
        })
    }

    /// The request method, as sent: `GET`.
    pub fn method(&self) -> Text<'a> {
        self.text(slot::METHOD)
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'a str {
        self.name(slot::SCHEME)
    }

    /// Host and port as the client sent them.
    pub fn authority(&self) -> Text<'a> {
        self.text(slot::AUTHORITY)
    }

    /// The authority without its port, in the case the client used. IPv6 literals keep their brackets.
    pub fn host(&self) -> Text<'a> {
        let authority = self.authority().as_bytes();
        let end = match authority.iter().rposition(|b| *b == b':' || *b == b']') {
            Some(at) if authority[at] == b':' => at,
            _ => authority.len(),
        };
        Text::new(&authority[..end])
    }

    /// The path without its query.
    pub fn path(&self) -> Text<'a> {
        self.text(slot::PATH)
    }

    /// The query without `?`; `None` when the target has no `?`.
    pub fn query(&self) -> Option<Text<'a>> {
        self.fact(slot::QUERY)
    }

    /// The address of the client, after the listener's trust rules.
    pub fn client_address(&self) -> &'a str {
        self.name(slot::CLIENT)
    }

    pub fn client_port(&self) -> u16 {
        self.u16(24)
    }

    /// The address at the other end of the connection: the client, or a proxy in front of this one.
    pub fn peer_address(&self) -> &'a str {
        self.name(slot::PEER)
    }

    pub fn peer_port(&self) -> u16 {
        self.u16(26)
    }

    /// The address the client connected to.
    pub fn local_address(&self) -> &'a str {
        self.name(slot::LOCAL)
    }

    pub fn local_port(&self) -> u16 {
        self.u16(28)
    }

    /// The listener's name in the YAML.
    pub fn listener(&self) -> &'a str {
        self.name(slot::LISTENER)
    }

    pub fn request_id(&self) -> &'a str {
        self.name(slot::REQUEST_ID)
    }

    /// The protocol of the client, `HTTP/1.1` or so.
    pub fn protocol(&self) -> &'a str {
        self.name(slot::PROTOCOL)
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.flags() & FLAG_HTTP2 != 0
    }

    /// What is known of the client's TLS; `None` on a plain connection.
    pub fn tls(&self) -> Option<Tls<'a>> {
        (self.flags() & FLAG_TLS != 0).then_some(Tls { head: *self })
    }

    /// What this filter stored in an earlier phase of the exchange, 0 at first.
    pub fn state(&self) -> u64 {
        self.u64(16)
    }

    /// The field lines shown (see [`Setup::request_fields`](crate::Setup::request_fields)), in order: lower-case name
    /// and value.
    pub fn fields(&self) -> impl Iterator<Item = (Text<'a>, Text<'a>)> + use<'a> {
        let head = *self;
        (0..head.fields).filter_map(move |i| head.entry(i))
    }

    /// The first line of `name`, in any case.
    pub fn field(&self, name: &str) -> Option<Text<'a>> {
        self.fields_named(name).next()
    }

    /// Every line of `name`, in any case.
    pub fn fields_named<'n>(&self, name: &'n str) -> impl Iterator<Item = Text<'a>> + use<'a, 'n> {
        self.fields()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// In a resume: of the call that was suspended.
    pub(crate) fn token(&self) -> u64 {
        self.u64(56)
    }

    pub(crate) fn flags(&self) -> u16 {
        self.u16(14)
    }

    pub(crate) fn fact(&self, slot: usize) -> Option<Text<'a>> {
        if slot >= self.facts {
            return None;
        }
        self.range(self.facts_at + slot * 8)
    }

    pub(crate) fn text(&self, slot: usize) -> Text<'a> {
        self.fact(slot).unwrap_or_default()
    }

    pub(crate) fn name(&self, slot: usize) -> &'a str {
        self.fact(slot).and_then(Text::to_str).unwrap_or("")
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16_at(self.block, at).unwrap_or(0)
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64_at(self.block, at).unwrap_or(0)
    }

    fn entry(&self, i: usize) -> Option<(Text<'a>, Text<'a>)> {
        let at = self.fields_at + i * 16;
        Some((self.range(at)?, self.range(at + 8)?))
    }

    /// The bytes that the (offset, length) pair at `at` points at, when they lie in the block.
    fn range(&self, at: usize) -> Option<Text<'a>> {
        let offset = u32_at(self.block, at)?;
        if offset == ABSENT {
            return None;
        }
        let from = usize::try_from(offset).ok()?;
        let len = usize::try_from(u32_at(self.block, at + 4)?).ok()?;
        self.block.get(from..from.checked_add(len)?).map(Text::new)
    }
}

/// The client's TLS, terminated by the listener.
#[derive(Debug, Clone, Copy)]
pub struct Tls<'a> {
    head: Head<'a>,
}

impl<'a> Tls<'a> {
    /// The server name the client asked for.
    pub fn sni(&self) -> Option<&'a str> {
        self.head.fact(slot::SNI)?.to_str()
    }

    /// The protocol agreed.
    pub fn alpn(&self) -> Option<Text<'a>> {
        self.head.fact(slot::ALPN)
    }

    /// `1.2` or `1.3`.
    pub fn version(&self) -> &'a str {
        self.head.name(slot::TLS_VERSION)
    }

    /// The subject of the client's certificate (RFC 4514), when it showed one that was verified.
    pub fn client_subject(&self) -> Option<&'a str> {
        self.head.fact(slot::CLIENT_SUBJECT)?.to_str()
    }
}

/// What stands behind the header of a block that has neither facts nor fields.
pub(crate) fn behind_header(block: &[u8]) -> &[u8] {
    let header = u32_at(block, 8).and_then(|size| usize::try_from(size).ok());
    header
        .and_then(|header| block.get(header..))
        .unwrap_or_default()
}

fn u16_at(block: &[u8], at: usize) -> Option<u16> {
    let bytes = block.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn u32_at(block: &[u8], at: usize) -> Option<u32> {
    let bytes = block.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(block: &[u8], at: usize) -> Option<u64> {
    let bytes = block.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
