//! What a finished or failed handshake tells.

use std::io;

use rustls::{InvalidMessage, ProtocolVersion, ServerConnection};

use super::suites;
use crate::connection::TlsFacts;

/// What the handshake of `connection` agreed on. Called once it is finished.
pub fn facts(connection: &ServerConnection) -> TlsFacts {
    TlsFacts {
        sni: connection.server_name().map(str::to_ascii_lowercase),
        alpn: connection
            .alpn_protocol()
            .map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "",
        },
        cipher: connection
            .negotiated_cipher_suite()
            .map_or("", |suite| suites::name(suite.suite())),
        client_subject: None,
    }
}

/// Whether a handshake failed because the client speaks no TLS at all, most likely HTTP: worth a plain answer that
/// says so.
pub fn spoke_plain(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(
        cause,
        Some(rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType
        ))
    )
}
