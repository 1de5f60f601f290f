//! How listening sockets are known.

use crate::config::ListenerConfig;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// What a listening socket is known by across generations: its address, and for port 0, where every listener gets a
/// port of its own, the listener too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketKey {
    address: SocketAddr,
    listener: Option<Arc<str>>,
}

impl SocketKey {
    pub fn new(listener: &ListenerConfig, address: SocketAddr) -> Self {
        Self {
            address,
            listener: (address.port() == 0).then(|| listener.name.clone()),
        }
    }

    /// The keys of all sockets of a listener.
    pub fn all(listener: &ListenerConfig) -> impl Iterator<Item = Self> {
        listener
            .bind
            .iter()
            .map(move |&address| Self::new(listener, address))
    }
}

/// Sockets that were opened for one worker.
pub type Opened = Vec<(SocketKey, TcpListener)>;
