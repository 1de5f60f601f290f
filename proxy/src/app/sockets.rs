//! The listening sockets of all workers: opened by control before a generation is adopted, so that a port that cannot
//! be had fails the reload and not the service.

use crate::config::{Config, ListenerConfig};
use crate::listen::{BindError, Claim, Seats};
use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// What a socket is known by: its configured address, and for port 0, which gives every listener a port of its own, the
/// listener too. Any other address may pass from one listener to another in a reload without being closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place(SocketAddr, Option<Arc<str>>);

impl Place {
    pub fn of(listener: &ListenerConfig, address: SocketAddr) -> Self {
        Self(address, (address.port() == 0).then(|| listener.name.clone()))
    }
}

/// Which addresses are open, and the connection seats of listeners.
#[derive(Default)]
pub struct Sockets {
    /// The address bound, which differs from the configured one for port 0.
    open: HashMap<Place, SocketAddr>,
    seats: HashMap<Arc<str>, Arc<Seats>>,
}

/// What `prepare` opened for one worker.
pub type Opened = Vec<(Place, TcpListener)>;

impl Sockets {
    /// Opens what `config` needs and is not open yet, one socket a worker. Nothing is kept when one fails.
    pub fn prepare(&mut self, config: &Config) -> Result<Vec<Opened>, BindError> {
        let mut per_worker: Vec<Opened> = (0..config.workers).map(|_| Vec::new()).collect();
        let mut opened = HashMap::new();
        for listener in &config.listeners {
            for &address in &listener.bind {
                let place = Place::of(listener, address);
                if self.open.contains_key(&place) {
                    continue;
                }
                let claim = if self.overlaps(address) { Claim::Shared } else { Claim::Alone };
                let bound = crate::listen::bind(&listener.name, address, config.workers, &listener.tcp, claim)?;
                for (worker, socket) in per_worker.iter_mut().zip(bound.sockets) {
                    worker.push((place.clone(), socket));
                }
                opened.insert(place, bound.address);
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
        let places = config.listeners.iter().flat_map(|l| l.bind.iter().map(|&address| Place::of(l, address)));
        let wanted: HashSet<Place> = places.collect();
        self.open.retain(|place, _| wanted.contains(place));
        self.seats.retain(|name, _| config.listeners.iter().any(|l| l.name == *name));
    }

    /// The connection limit of each listener; one that exists keeps its count and takes the new limit.
    pub fn seats(&mut self, config: &Config) -> HashMap<Arc<str>, Arc<Seats>> {
        for listener in &config.listeners {
            let limit = listener.limits.connections;
            let seats = self.seats.entry(listener.name.clone()).or_insert_with(|| Seats::new(limit));
            seats.set_limit(limit);
        }
        self.seats.clone()
    }

    /// Where a listener can be reached: the bound addresses, real ports.
    pub fn addresses(&self, listener: &ListenerConfig) -> Vec<SocketAddr> {
        listener.bind.iter().filter_map(|&address| self.open.get(&Place::of(listener, address)).copied()).collect()
    }
}
