//! What a guest is shown of an exchange or a connection, before it is laid out for one form of the contract.

use crate::connection::Connection;
use crate::head::Fields;

use super::bindings::{FactSet, Interest};

/// Number of fact slots of this version of the contract.
pub(super) const FACTS: usize = 21;

/// The fact slots of PACKED.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Fact {
    Method = 0,
    Scheme = 1,
    Authority = 2,
    Path = 3,
    Query = 4,
    ClientAddress = 5,
    PeerAddress = 6,
    LocalAddress = 7,
    Listener = 8,
    RequestId = 9,
    Sni = 10,
    Alpn = 11,
    TlsVersion = 12,
    ClientSubject = 13,
    Endpoint = 14,
    Pool = 15,
    Protocol = 16,
    Reason = 17,
    FirstBytes = 18,
    OfferedAlpn = 19,
    /// Of a body, or of a session's data.
    Piece = 20,
}

/// Everything one call tells, but for the field lines. All of it is borrowed: building one copies a few pointers.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    pub(super) slots: [Option<&'a [u8]>; FACTS],
    pub(super) which: ShownFacts,
    pub status: u16,
    pub tls: bool,
    pub http2: bool,
    /// A request body follows.
    pub has_body: bool,
    /// The piece is the last one.
    pub last: bool,
    /// More follows behind the piece that is not shown.
    pub more: bool,
    /// What the filter stored in an earlier phase.
    pub state: u64,
    pub client_port: u16,
    pub peer_port: u16,
    pub local_port: u16,
    pub duration_us: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl<'a> Facts<'a> {
    /// The facts of a connection: addresses, listener, TLS.
    pub fn of_connection(connection: &'a Connection, client: &'a str, client_port: u16) -> Self {
        let mut facts = Self {
            client_port,
            peer_port: connection.peer.port(),
            local_port: connection.local.port(),
            ..Self::default()
        };
        facts.set(Fact::ClientAddress, client.as_bytes());
        facts.set(Fact::PeerAddress, connection.peer_text.as_bytes());
        facts.set(Fact::LocalAddress, connection.local_text.as_bytes());
        facts.set(Fact::Listener, connection.listener.as_bytes());
        if let Some(tls) = &connection.tls {
            facts.tls = true;
            facts.set(Fact::TlsVersion, tls.version.as_bytes());
            facts.slots[Fact::Sni as usize] = tls.sni.as_deref().map(str::as_bytes);
            facts.slots[Fact::Alpn as usize] = tls.alpn.as_deref().map(str::as_bytes);
            facts.slots[Fact::ClientSubject as usize] =
                tls.client_subject.as_deref().map(str::as_bytes);
        }
        facts
    }

    pub fn set(&mut self, fact: Fact, value: &'a [u8]) {
        self.slots[fact as usize] = Some(value);
    }

    /// Shows these facts alone.
    pub fn show(&mut self, which: ShownFacts) {
        self.which = which;
    }

    /// The slots that have something to say, in order.
    #[inline]
    pub(super) fn shown(&self) -> impl Iterator<Item = (usize, &'a [u8])> {
        let mut left = self.which.0;
        std::iter::from_fn(move || {
            while left != 0 {
                let slot = left.trailing_zeros() as usize;
                left &= left - 1;
                if let Some(Some(value)) = self.slots.get(slot) {
                    return Some((slot, *value));
                }
            }
            None
        })
    }

    pub fn value(&self, fact: Fact) -> Option<&'a [u8]> {
        self.slots[fact as usize]
    }
}

/// Which facts a filter is shown: a bit for each slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownFacts(u32);

impl ShownFacts {
    /// Those of a plan, and those that are no facts of the exchange but what the phase is about.
    pub fn new(wanted: FactSet) -> Self {
        let named = (1 << (Fact::OfferedAlpn as u32 + 1)) - 1;
        let wanted = wanted.as_array().first().copied().unwrap_or(0);
        Self(wanted | !named)
    }
}

impl Default for ShownFacts {
    /// All of them.
    fn default() -> Self {
        Self(u32::MAX)
    }
}

/// Which field lines a filter is shown: its plan's `interest`, made ready for comparing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ShownFields {
    #[default]
    None,
    /// These names, in lower case.
    Some(Box<[Box<[u8]>]>),
    All,
}

impl ShownFields {
    pub fn new(interest: &Interest) -> Self {
        match interest {
            Interest::None => Self::None,
            Interest::Some(names) => Self::Some(
                names
                    .iter()
                    .map(|name| name.to_ascii_lowercase().into_bytes().into_boxed_slice())
                    .collect(),
            ),
            Interest::All => Self::All,
        }
    }
}

/// The field lines of one call.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub fields: Option<&'a Fields>,
    pub which: &'a ShownFields,
}

impl<'a> Shown<'a> {
    pub const NOTHING: Shown<'static> = Shown {
        fields: None,
        which: &ShownFields::None,
    };

    /// The lines to show, in order.
    pub(super) fn lines(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let fields = match self.which {
            ShownFields::None => None,
            _ => self.fields,
        };
        fields
            .into_iter()
            .flat_map(Fields::iter)
            .filter(move |(name, _): &(&[u8], &[u8])| match self.which {
                ShownFields::Some(names) => names.iter().any(|n| **n == **name),
                _ => true,
            })
    }
}
