//! What is known of a client's connection for as long as it lives: addresses and TLS facts.

use crate::error::Reason;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

/// Facts of one accepted connection. Built once, after the TLS handshake; shared by its exchanges.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Name of the listener that accepted it.
    pub listener: std::sync::Arc<str>,
    /// Who opened the connection, as the kernel says.
    pub peer: SocketAddr,
    /// The address it was accepted on.
    pub local: SocketAddr,
    /// `peer.ip()` as text, since every exchange writes it.
    pub peer_text: String,
    /// `local.ip()` as text.
    pub local_text: String,
    pub tls: Option<TlsFacts>,
    /// Why this side has ended it, when that was the client's doing: exchanges that end with it end for the same reason.
    pub ended: Cell<Option<Reason>>,
}

/// What the TLS handshake agreed on.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// Server name the client asked for, lower case.
    pub sni: Option<String>,
    /// `h2`, `http/1.1` or what else was agreed.
    pub alpn: Option<String>,
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Cipher suite by its IANA name.
    pub cipher: &'static str,
    /// Subject of the client certificate (RFC 4514), when one was verified.
    pub client_subject: Option<String>,
}

impl Connection {
    /// IPv4-mapped IPv6 addresses are taken as IPv4, so that rules and logs see one form.
    pub fn new(listener: std::sync::Arc<str>, peer: SocketAddr, local: SocketAddr) -> Self {
        let (peer, local) = (canonical(peer), canonical(local));
        Self {
            listener,
            peer,
            local,
            peer_text: peer.ip().to_string(),
            local_text: local.ip().to_string(),
            tls: None,
            ended: Cell::new(None),
        }
    }
}

/// The address with `::ffff:a.b.c.d` turned into `a.b.c.d`.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(address.ip()), address.port())
}

pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
