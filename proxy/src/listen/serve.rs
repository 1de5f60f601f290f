//! The way of one accepted connection: socket options, connect filters, TLS, then the listener's protocol.

use crate::config::Protocol;
use crate::connection::{Connection, TlsFacts};
use crate::error::Reason;
use crate::generation::{Service, ServiceSlot};
use crate::io::transport::Io;
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
        // Boxed: the accept loop's task table holds one pointer for a connection, whatever it becomes.
        Box::pin(serve_as_configured(slot, service, stream, connection)).await;
    }
    metrics.connection_closed();
}

async fn serve_as_configured(
    slot: Rc<ServiceSlot>,
    service: Rc<Service>,
    stream: TcpStream,
    mut connection: Connection,
) {
    let tcp = &service.listener.config.tcp;
    let _ = stream.set_nodelay(tcp.nodelay);
    let io = match &service.listener.tls {
        None => Io::Tcp(stream),
        Some(tls) => {
            let began = (Instant::now(), SystemTime::now());
            let limit = service.listener.config.timeouts.handshake;
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
            match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let (_, session) = stream.get_ref();
                    let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                    service.metrics.handshake(if resumed {
                        Handshake::Resumed
                    } else {
                        Handshake::Full
                    });
                    connection.tls = Some(crate::tls::facts(session));
                    Io::Tls(Box::new(stream))
                }
                failed => {
                    let why = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => format!("not done within {} ms", limit.as_millis()),
                    };
                    handshake_failed(&service, &connection, began, &why);
                    return;
                }
            }
        }
    };
    let connection = Rc::new(connection);
    let protocol = service.listener.config.protocol;
    match protocol {
        Protocol::Http => {
            drop(service);
            crate::http::serve(slot, connection, io).await;
        }
        Protocol::Tcp => crate::l4::session::serve(service, connection, io).await,
    }
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
