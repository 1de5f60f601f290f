//! The check `tcp`: the endpoint accepts a connection.

use tokio::net::TcpStream;

use super::checks::Probe;
use crate::upstream::Endpoint;

pub async fn probe(endpoint: &Endpoint) -> Probe {
    dial(endpoint).await.map(drop)
}

pub async fn dial(endpoint: &Endpoint) -> Result<TcpStream, String> {
    let dialled = TcpStream::connect(endpoint.address).await;
    dialled.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    })
}
