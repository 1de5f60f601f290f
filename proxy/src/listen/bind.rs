//! Listening sockets: one per worker on the same address, so that the kernel spreads connections over workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::TcpOptions;
use crate::error::why;

/// Whether another socket may listen on the address already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Refuse an address that anyone listens on. Sockets that share a port would otherwise also share it, silently,
    /// with another process of the same user.
    Alone,
    /// The address overlaps one that this process holds and is about to give up: a reload from `[::]:80` to `127.0.0.1:80`.
    Shared,
}

/// A bound address. The kernel queues connections from now on.
#[derive(Debug)]
pub struct Bound {
    /// With the port that was chosen when port 0 was asked for.
    pub address: SocketAddr,
    /// Non-blocking, one for each worker, in worker order.
    pub sockets: Vec<TcpListener>,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("listener \"{listener}\": {address} is in use by another process or listener")]
    InUse {
        listener: String,
        address: SocketAddr,
    },
    #[error("listener \"{listener}\": this user may not bind {address}")]
    Denied {
        listener: String,
        address: SocketAddr,
    },
    #[error("listener \"{listener}\": {} is not an address of this machine", address.ip())]
    NotLocal {
        listener: String,
        address: SocketAddr,
    },
    #[error("listener \"{listener}\": cannot listen on {address}: {}", why(cause))]
    Other {
        listener: String,
        address: SocketAddr,
        cause: io::Error,
    },
}

/// Binds `address` once for each of `workers` (at least one) for the listener called `listener`. With port 0 the
/// kernel chooses a port and all workers share it. Options that accepted connections inherit are set here, once.
pub fn bind(
    listener: &str,
    address: SocketAddr,
    workers: usize,
    options: &TcpOptions,
    claim: Claim,
) -> Result<Bound, BindError> {
    let explain = |cause: io::Error| explain(listener, address, cause);
    if claim == Claim::Alone && address.port() != 0 {
        drop(listening(address, options, Reuse::Address).map_err(explain)?);
    }
    let first = listening(address, options, Reuse::Port).map_err(explain)?;
    let chosen = first.local_addr().map_err(explain)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(listening(chosen, options, Reuse::Port).map_err(explain)?);
    }
    Ok(Bound {
        address: chosen,
        sockets,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    /// SO_REUSEADDR: past connections in TIME_WAIT do not count.
    Address,
    /// And SO_REUSEPORT.
    Port,
}

fn listening(address: SocketAddr, options: &TcpOptions, reuse: Reuse) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if reuse == Reuse::Port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` serves IPv4 too, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    set_options(&socket, options)?;
    socket.bind(&address.into())?;
    // The kernel lowers it to net.core.somaxconn.
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Linux hands these on to every accepted connection, which saves a call for each. Buffers must be set before
/// `listen`, for the window scale is agreed during the handshake.
fn set_options(socket: &Socket, options: &TcpOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(bytes) = options.socket_buffer {
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(idle) = options.keep_alive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(())
}

fn explain(listener: &str, address: SocketAddr, cause: io::Error) -> BindError {
    let listener = listener.to_owned();
    match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { listener, address },
        io::ErrorKind::PermissionDenied => BindError::Denied { listener, address },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { listener, address },
        _ => BindError::Other {
            listener,
            address,
            cause,
        },
    }
}

impl BindError {
    /// Stable, as the codes of a configuration's findings are.
    pub fn code(&self) -> &'static str {
        match self {
            BindError::InUse { .. } => "address-in-use",
            BindError::Denied { .. } => "address-denied",
            BindError::NotLocal { .. } => "address-not-local",
            BindError::Other { .. } => "address-unusable",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            BindError::InUse { address, .. } => Some(format!(
                "`ss -ltnp sport = :{}` shows who listens there; stop it, or choose another port",
                address.port()
            )),
            BindError::Denied { address, .. } if address.port() < 1024 => Some(
                "a port below 1024 needs CAP_NET_BIND_SERVICE: `AmbientCapabilities=CAP_NET_BIND_SERVICE` in the \
                 systemd unit, or `setcap cap_net_bind_service=+ep` on the program"
                    .to_owned(),
            ),
            BindError::NotLocal { .. } => Some(
                "`ip address` shows those it has; `:PORT` listens on all of them".to_owned(),
            ),
            BindError::Denied { .. } | BindError::Other { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::time::Duration;

    fn options() -> TcpOptions {
        TcpOptions {
            nodelay: true,
            socket_buffer: Some(65536),
            backlog: 128,
            splice: true,
            keep_alive: Some(Duration::from_secs(60)),
        }
    }

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn workers_share_the_chosen_port() {
        let bound = bind("web", loopback(0), 3, &options(), Claim::Alone).unwrap();
        assert_ne!(bound.address.port(), 0);
        assert_eq!(bound.sockets.len(), 3);
        for socket in &bound.sockets {
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
    }

    #[test]
    fn an_address_in_use_is_refused_even_if_it_could_be_shared() {
        let first = bind("web", loopback(0), 2, &options(), Claim::Alone).unwrap();
        let error = bind("api", first.address, 2, &options(), Claim::Alone).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "listener \"api\": {} is in use by another process or listener",
                first.address
            )
        );
        bind("api", first.address, 2, &options(), Claim::Shared).unwrap();
        drop(first);
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        // 192.0.2.0/24 is set aside for documentation.
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 8080));
        let error = bind("web", elsewhere, 1, &options(), Claim::Alone).unwrap_err();
        assert_eq!(
            error.to_string(),
            "listener \"web\": 192.0.2.1 is not an address of this machine"
        );
    }

    #[test]
    fn a_privileged_port_names_the_capability() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let help = explain("web", loopback(80), denied).help().unwrap();
        assert!(help.contains("CAP_NET_BIND_SERVICE"), "{help}");
    }

    #[test]
    fn accepted_connections_inherit_the_options() {
        let bound = bind("web", loopback(0), 1, &options(), Claim::Alone).unwrap();
        bound.sockets[0].set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(bound.address).unwrap();
        let (accepted, _) = bound.sockets[0].accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        // The kernel doubles what was asked for.
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * 65536);
    }

    #[test]
    fn the_ipv6_wildcard_serves_ipv4() {
        let Ok(bound) = bind(
            "web",
            "[::]:0".parse().unwrap(),
            1,
            &options(),
            Claim::Alone,
        ) else {
            return; // A machine without IPv6.
        };
        TcpStream::connect(loopback(bound.address.port())).unwrap();
    }
}
