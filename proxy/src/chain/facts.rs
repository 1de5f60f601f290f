//! What the callers of a chain know, and how it is put to filters.

use std::net::IpAddr;
use std::time::Duration;

use crate::connection::Connection;
use crate::error::Reason;
use crate::head::{Fields, RequestHead, Version};
use crate::wasm::{Fact, Facts};

/// What is known of a request beside its head.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    pub connection: &'a Connection,
    /// The client after trust rules, and the same as text.
    pub client: IpAddr,
    pub client_text: &'a str,
    /// 0 when it is not known (behind a trusted proxy).
    pub client_port: u16,
    /// `http` or `https`.
    pub scheme: &'a str,
    pub request_id: &'a str,
    pub has_body: bool,
}

/// What is known when a response head is there. The request is told as the client sent it or as filters edited it,
/// whichever the caller kept; endpoint and pool are empty for responses the proxy made itself.
#[derive(Debug, Clone, Copy)]
pub struct ResponseFacts<'a> {
    pub request: RequestFacts<'a>,
    pub version: Version,
    pub method: &'a [u8],
    pub authority: &'a [u8],
    /// Path with query.
    pub target: &'a [u8],
    pub endpoint: &'a str,
    pub pool: &'a str,
}

/// The end of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct LogFacts<'a> {
    pub response: ResponseFacts<'a>,
    /// As the client saw it; 0 when it got none.
    pub status: u16,
    pub duration: Duration,
    /// Body bytes from and to the client.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub reason: Option<Reason>,
    /// The response's field lines, shown as the plan's `response-fields` say.
    pub fields: Option<&'a Fields>,
}

/// What is known of a connection before any HTTP.
#[derive(Debug, Clone, Copy)]
pub struct StreamFacts<'a> {
    pub connection: &'a Connection,
    pub client: IpAddr,
    pub client_text: &'a str,
    pub client_port: u16,
    /// From the ClientHello, once it was read.
    pub sni: Option<&'a str>,
    /// Protocols offered, joined by `,`.
    pub offered_alpn: Option<&'a str>,
}

impl<'a> RequestFacts<'a> {
    fn common(&self, version: Version) -> Facts<'a> {
        let mut facts = Facts::of_connection(self.connection, self.client_text, self.client_port);
        facts.http2 = version == Version::Http2;
        facts.has_body = self.has_body;
        facts.set(Fact::Scheme, self.scheme.as_bytes());
        facts.set(Fact::RequestId, self.request_id.as_bytes());
        facts.set(Fact::Protocol, version.as_str().as_bytes());
        facts
    }

    pub(super) fn facts(&self, head: &'a RequestHead) -> Facts<'a> {
        let mut facts = self.common(head.version);
        set_request(&mut facts, head.method(), head.authority(), head.target());
        facts
    }
}

impl<'a> ResponseFacts<'a> {
    pub(super) fn facts(&self, status: u16) -> Facts<'a> {
        let mut facts = self.request.common(self.version);
        facts.status = status;
        set_request(&mut facts, self.method, self.authority, self.target);
        if !self.endpoint.is_empty() {
            facts.set(Fact::Endpoint, self.endpoint.as_bytes());
        }
        if !self.pool.is_empty() {
            facts.set(Fact::Pool, self.pool.as_bytes());
        }
        facts
    }
}

impl<'a> LogFacts<'a> {
    pub(super) fn facts(&self) -> Facts<'a> {
        let mut facts = self.response.facts(self.status);
        facts.duration_us = self.duration.as_micros() as u64;
        facts.bytes_in = self.bytes_in;
        facts.bytes_out = self.bytes_out;
        if let Some(reason) = self.reason {
            facts.set(Fact::Reason, reason.as_str().as_bytes());
        }
        facts
    }
}

impl<'a> StreamFacts<'a> {
    pub(super) fn facts(&self) -> Facts<'a> {
        let mut facts = Facts::of_connection(self.connection, self.client_text, self.client_port);
        if let Some(sni) = self.sni {
            facts.set(Fact::Sni, sni.as_bytes());
        }
        if let Some(offered) = self.offered_alpn {
            facts.set(Fact::OfferedAlpn, offered.as_bytes());
        }
        facts
    }
}

fn set_request<'a>(facts: &mut Facts<'a>, method: &'a [u8], authority: &'a [u8], target: &'a [u8]) {
    facts.set(Fact::Method, method);
    facts.set(Fact::Authority, authority);
    match memchr::memchr(b'?', target) {
        Some(at) => {
            facts.set(Fact::Path, &target[..at]);
            facts.set(Fact::Query, &target[at + 1..]);
        }
        None => facts.set(Fact::Path, target),
    }
}
