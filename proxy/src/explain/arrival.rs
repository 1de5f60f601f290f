//! What arrives at the listener: the connection, and the request as it is read from it.

use std::net::{IpAddr, SocketAddr};

use crate::config::Protocol;
use crate::connection::{Connection, TlsFacts};
use crate::error::Reason;
use crate::protocol::http::h1::parse::{self, ParsedRequest};
use crate::protocol::http::h1::server::too_large;

use super::{Asked, Choice};

/// The connection a client would have, with the server name it would send.
pub(super) fn connection(choice: &Choice, asked: &Asked) -> Connection {
    let config = &choice.listener.config;
    let mut connection = Connection::new(config.name.clone(), asked.client, choice.address);
    let is_http = config.protocol == Protocol::Http;
    if config.tls.is_some() {
        let host = asked.url.host().to_ascii_lowercase();
        // An address is no server name (RFC 6066 §3).
        let named = !host.is_empty() && host.parse::<IpAddr>().is_err();
        connection.tls = Some(TlsFacts {
            sni: asked.sni.clone().or_else(|| named.then_some(host)),
            alpn: is_http.then(|| "http/1.1".to_owned()),
            version: "1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            client_subject: None,
        });
    }
    connection
}

/// Reads the request as a connection reads it, by the listener's limits.
pub(super) fn read(choice: &Choice, asked: &Asked) -> Result<ParsedRequest, Reason> {
    let host = match asked.url.authority.is_empty() {
        true => authority_of(choice.address),
        false => asked.url.authority.clone(),
    };
    let own_host = ("host".to_owned(), host);
    let has_host = asked
        .fields
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = (!has_host).then_some(&own_host);
    let mut text = format!("{} {} HTTP/1.1\r\n", asked.method, asked.url.target);
    for (name, value) in host.into_iter().chain(&asked.fields) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let lines = 1 + usize::from(!has_host) + asked.fields.len();
    if text.matches('\n').count() != lines || text.matches('\r').count() != lines {
        // A line break inside a value would be another line.
        return Err(Reason::BadRequest);
    }
    text.push_str("\r\n");
    let limits = choice.listener.head_limits();
    if text.len() > limits.bytes + limits.target {
        return Err(too_large(text.as_bytes(), &limits));
    }
    parse::request(text.into_bytes(), &limits)
}

fn authority_of(address: SocketAddr) -> String {
    match address.port() {
        80 => match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        },
        _ => address.to_string(),
    }
}
