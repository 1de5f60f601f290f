//! Dialling an endpoint.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use super::endpoint::Endpoint;
use crate::config::TcpOptions;
use crate::error::Reason;
use crate::io::Io;
use crate::tls::{ClientTls, Offer};

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint's host answered that nobody listens.
    #[error("connection refused")]
    Refused,
    /// Nobody answered in time.
    #[error("no answer in time")]
    Timeout,
    /// No way to the endpoint: unreachable, prohibited, reset.
    #[error("{}", crate::error::why(.0))]
    Other(io::Error),
    /// The TLS handshake failed: no TLS there, or a certificate that is not trusted.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// This side could not try: out of descriptors, ports or memory. No fault of the endpoint.
    #[error("this side cannot dial: {}", crate::error::why(.0))]
    Local(io::Error),
}

impl ConnectError {
    /// Whether the failure may count against the endpoint.
    pub fn blames_endpoint(&self) -> bool {
        !matches!(self, ConnectError::Local(_))
    }

    pub fn reason(&self) -> Reason {
        match self {
            ConnectError::Refused | ConnectError::Other(_) => Reason::ConnectRefused,
            ConnectError::Timeout => Reason::ConnectTimeout,
            ConnectError::Tls(_) => Reason::UpstreamTls,
            ConnectError::Local(_) => Reason::Overload,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        use rustix::io::Errno;
        let local = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::ADDRNOTAVAIL,
            Errno::AGAIN,
        ];
        match error.kind() {
            io::ErrorKind::ConnectionRefused => ConnectError::Refused,
            io::ErrorKind::TimedOut => ConnectError::Timeout,
            _ if Errno::from_io_error(&error).is_some_and(|e| local.contains(&e)) => {
                ConnectError::Local(error)
            }
            _ => ConnectError::Other(error),
        }
    }
}

/// A connection to `address` with the listener's options set on it.
pub async fn connect(
    address: SocketAddr,
    timeout: Duration,
    options: &TcpOptions,
) -> Result<TcpStream, ConnectError> {
    let socket = socket_for(address, options).map_err(ConnectError::Local)?;
    match tokio::time::timeout(timeout, socket.connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.into()),
        Err(_elapsed) => Err(ConnectError::Timeout),
    }
}

/// The TLS handshake with `endpoint` over `stream`.
pub(super) async fn secure(
    tls: &ClientTls,
    stream: TcpStream,
    endpoint: &Endpoint,
    offer: Offer,
    timeout: Duration,
) -> Result<Io, ConnectError> {
    let handshake = tls.connect(stream, offer, endpoint.host(), endpoint.address.ip());
    match tokio::time::timeout(timeout, handshake).await {
        Ok(Ok(stream)) => Ok(Io::TlsOut(Box::new(stream))),
        Ok(Err(error)) => {
            endpoint.tell_tls_failure(&error);
            Err(ConnectError::Tls(error))
        }
        Err(_elapsed) => Err(ConnectError::Timeout),
    }
}

fn socket_for(address: SocketAddr, options: &TcpOptions) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if options.nodelay {
        socket.set_nodelay(true)?;
    }
    // Before connect(2), since the window scale is agreed in the handshake.
    if let Some(bytes) = options.socket_buffer {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(idle) = options.keep_alive {
        SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn options() -> TcpOptions {
        TcpOptions {
            nodelay: true,
            socket_buffer: Some(65536),
            backlog: 16,
            splice: false,
            keep_alive: Some(Duration::from_secs(60)),
        }
    }

    #[tokio::test]
    async fn dials_with_options() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = connect(address, Duration::from_secs(5), &options())
            .await
            .unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert!(socket.recv_buffer_size().unwrap() >= 65536);
    }

    #[tokio::test]
    async fn says_why_it_could_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = connect(address, Duration::from_secs(5), &options()).await;
        assert!(matches!(error, Err(ConnectError::Refused)), "{error:?}");
        let timeout = connect(address, Duration::ZERO, &options()).await;
        let timely = matches!(timeout, Err(ConnectError::Timeout | ConnectError::Refused));
        assert!(timely, "{timeout:?}");
        let full = ConnectError::from(io::Error::from(rustix::io::Errno::MFILE));
        assert!(!full.blames_endpoint());
        assert_eq!(full.reason(), Reason::Overload);
    }
}
