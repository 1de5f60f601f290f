//! The listening sockets of all workers: opened by control before a generation is adopted, so that a port that cannot
//! be had fails the reload and not the service.

use crate::config::{Config, ConfigPath, ListenerConfig, Problem};
use crate::listen::{BindError, Claim, Seats};
use std::collections::{HashMap, HashSet};
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

/// Which addresses are open, and the connection seats of listeners.
#[derive(Default)]
pub struct Sockets {
    /// The address each is bound to: with the real port where 0 was configured.
    open: HashMap<SocketKey, SocketAddr>,
    seats: HashMap<Arc<str>, Arc<Seats>>,
}

/// `error` about the address at `index` of the listener's. Where there is one alone, it may stand without a list.
fn problem(listener: &ListenerConfig, index: usize, error: &BindError) -> Problem {
    let bind = format!("{}/bind", listener.at.0);
    let at = match listener.bind.len() {
        1 => bind,
        _ => format!("{bind}/{index}"),
    };
    Problem {
        at: ConfigPath(at),
        code: error.code(),
        message: error.to_string(),
        help: error.help(),
    }
}

/// What `prepare` opened for one worker.
pub type Opened = Vec<(SocketKey, TcpListener)>;

impl Sockets {
    /// Opens what `config` needs and is not open yet, one socket a worker. Nothing is kept when one fails.
    pub fn prepare(&mut self, config: &Config) -> Result<Vec<Opened>, Problem> {
        let mut per_worker: Vec<Opened> = (0..config.workers).map(|_| Vec::new()).collect();
        let mut opened = HashMap::new();
        for listener in &config.listeners {
            for (index, &address) in listener.bind.iter().enumerate() {
                let key = SocketKey::new(listener, address);
                if self.open.contains_key(&key) {
                    continue;
                }
                let claim = if self.overlaps(address) {
                    Claim::Shared
                } else {
                    Claim::Alone
                };
                let bound = crate::listen::bind(
                    &listener.name,
                    address,
                    config.workers,
                    &listener.tcp,
                    claim,
                )
                .map_err(|error| problem(listener, index, &error))?;
                opened.insert(key.clone(), bound.address);
                for (worker, socket) in per_worker.iter_mut().zip(bound.sockets) {
                    worker.push((key.clone(), socket));
                }
            }
        }
        self.open.extend(opened);
        Ok(per_worker)
    }

    /// True when this process listens on the port already, on an address that may cover this one.
    fn overlaps(&self, address: SocketAddr) -> bool {
        self.open.values().any(|open| open.port() == address.port())
    }

    /// Forgets what the adopted configuration no longer has; the workers have closed it.
    pub fn settle(&mut self, config: &Config) {
        let wanted: HashSet<SocketKey> = config
            .listeners
            .iter()
            .flat_map(|l| SocketKey::all(l))
            .collect();
        self.open.retain(|key, _| wanted.contains(key));
        self.seats
            .retain(|name, _| config.listeners.iter().any(|l| l.name == *name));
    }

    /// The connection limit of each listener; one that exists keeps its count and takes the new limit.
    pub fn seats(&mut self, config: &Config) -> HashMap<Arc<str>, Arc<Seats>> {
        for listener in &config.listeners {
            let limit = listener.limits.connections;
            let seats = self
                .seats
                .entry(listener.name.clone())
                .or_insert_with(|| Seats::new(limit));
            seats.set_limit(limit);
        }
        self.seats.clone()
    }

    /// Where a listener can be reached: the bound addresses, real ports.
    pub fn addresses(&self, listener: &ListenerConfig) -> Vec<SocketAddr> {
        SocketKey::all(listener)
            .filter_map(|key| self.open.get(&key).copied())
            .collect()
    }
}
