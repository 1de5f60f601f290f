//! The way of one accepted connection: the TLS handshake, then the protocol of its listener.

use crate::connection::{Connection, TlsFacts};
use crate::error::Reason;
use crate::generation::{Service, ServiceSlot};
use crate::io::transport::Io;
use crate::protocol::{self, Arrived};
use crate::telemetry::{Handshake, Record};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpStream;

/// Serves one connection to its end. Never fails: what goes wrong is logged and counted.
pub async fn serve(slot: Rc<ServiceSlot>, stream: TcpStream, peer: SocketAddr) {
    let service = slot.current();
    let metrics = service.metrics.clone();
    metrics.connection_opened();
    if let Ok(local) = stream.local_addr() {
        let connection = Connection::new(service.listener.config.name.clone(), peer, local);
        // Each phase is a box of its own, so that a connection that waits for a request holds only the small state
        // of that wait and nothing of its handshake.
        if let Some((connection, io)) = secure(&service, stream, connection).await {
            let protocol = protocol::of(&service.listener.config);
            // A connection that waits for a request keeps no generation.
            drop(service);
            let arrived = Arrived::Stream(connection, io);
            protocol.serve(slot, arrived).await;
        }
    }
    metrics.connection_closed();
}

/// The connection as the listener's protocol reads it: plain, or through the TLS handshake. None: that failed.
async fn secure(
    service: &Rc<Service>,
    stream: TcpStream,
    mut connection: Connection,
) -> Option<(Rc<Connection>, Io)> {
    let Some(tls) = &service.listener.tls else {
        return Some((Rc::new(connection), Io::Tcp(stream)));
    };
    let began = (Instant::now(), SystemTime::now());
    let limit = service.listener.config.timeouts.handshake;
    let silent = Box::pin(tokio::time::timeout(limit, is_silent(&stream)));
    if silent.await.unwrap_or(true) {
        // A spare connection of a browser, a probe: no attempt at a handshake has failed.
        return None;
    }
    let limit = limit.saturating_sub(began.0.elapsed());
    let handshake = tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream);
    match Box::pin(tokio::time::timeout(limit, handshake)).await {
        Ok(Ok(stream)) => {
            let (_, session) = stream.get_ref();
            let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            service.metrics.handshake(if resumed {
                Handshake::Resumed
            } else {
                Handshake::Full
            });
            connection.tls = Some(crate::tls::facts(session));
            Some((Rc::new(connection), Io::Tls(Box::new(stream))))
        }
        failed => {
            let why = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => {
                    let limit = service.listener.config.timeouts.handshake;
                    format!("not done within {} ms", limit.as_millis())
                }
            };
            handshake_failed(service, &connection, began, &why);
            None
        }
    }
}

/// True when the client left in order before its first byte.
async fn is_silent(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]).await, Ok(0))
}

fn handshake_failed(
    service: &Service,
    connection: &Connection,
    began: (Instant, SystemTime),
    why: &str,
) {
    tracing::debug!(listener = &*connection.listener, peer = %connection.peer, why, "TLS handshake failed");
    service.metrics.handshake(Handshake::Failed);
    service.metrics.reason(Reason::TlsHandshake);
    service.worker.log(&Record {
        start: began.1,
        duration: began.0.elapsed(),
        listener: &connection.listener,
        client: &connection.peer_text,
        peer: &connection.peer_text,
        request_id: "",
        exchange: None,
        bytes_in: 0,
        bytes_out: 0,
        pool: None,
        endpoint: None,
        tries: 0,
        filter_time: Duration::ZERO,
        filter_wait: Duration::ZERO,
        upstream_time: None,
        reason: Some(Reason::TlsHandshake),
        tls_version: None,
        sni: connection
            .tls
            .as_ref()
            .and_then(|tls: &TlsFacts| tls.sni.as_deref()),
        trace_id: None,
    });
}
