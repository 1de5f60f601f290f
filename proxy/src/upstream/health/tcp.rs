//! The check `tcp`: the endpoint accepts a connection.

use tokio::net::TcpStream;

use super::probe::Probe;
use crate::io::Io;
use crate::tls::{ClientTls, Offer};
use crate::upstream::Endpoint;

/// With TLS the handshake must succeed too.
pub async fn probe(endpoint: &Endpoint, tls: Option<&ClientTls>) -> Probe {
    dial(endpoint, tls, Offer::Bytes).await.map(drop)
}

pub async fn dial(
    endpoint: &Endpoint,
    tls: Option<&ClientTls>,
    offer: Offer,
) -> Result<Io, String> {
    let dialled = TcpStream::connect(endpoint.address).await;
    let stream = dialled.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    })?;
    let Some(tls) = tls else {
        return Ok(Io::Tcp(stream));
    };
    let handshake = tls.connect(stream, offer, endpoint.host(), endpoint.address.ip());
    let secured = handshake.await.map_err(|error| format!("TLS: {error}"))?;
    Ok(Io::TlsOut(Box::new(secured)))
}
