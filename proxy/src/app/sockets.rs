//! The listening sockets of all workers: opened by control before a generation is adopted, so that a port that cannot
//! be had fails the reload and not the service.

use super::follower::{Follower, Next, Refused};
use super::socket_key::{Opened, SocketKey};
use crate::config::{Config, ConfigPath, ListenerConfig, Problem};
use crate::listen::{BindError, Claim, Seats};
use futures_util::future::LocalBoxFuture;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Which addresses are open, and the connection seats of listeners.
#[derive(Default)]
pub struct Sockets {
    /// The address each is bound to: with the real port where 0 was configured.
    open: HashMap<SocketKey, SocketAddr>,
    /// Those that were opened for the next generation.
    opened: HashMap<SocketKey, SocketAddr>,
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

impl Follower for Sockets {
    /// Opens what is needed and is not open yet, one socket a worker.
    fn prepare(&mut self, next: &mut Next) -> Result<(), Refused> {
        let config = &next.generation.config;
        let (per_worker, opened) = self.open(config).map_err(Refused::Placed)?;
        self.opened = opened;
        next.parcels.sockets = per_worker;
        next.parcels.seats = self.seats(config);
        Ok(())
    }

    /// Workers that have adopted what was opened close it when they go back.
    fn undo<'a>(&'a mut self, next: &'a mut Next) -> LocalBoxFuture<'a, ()> {
        self.opened.clear();
        next.parcels.sockets.clear();
        Box::pin(std::future::ready(()))
    }

    /// What the configuration no longer has is forgotten; the workers have closed it.
    fn settle<'a>(&'a mut self, next: &'a Next) -> LocalBoxFuture<'a, ()> {
        let listeners = &next.generation.config.listeners;
        self.open.extend(self.opened.drain());
        let wanted: HashSet<SocketKey> = listeners.iter().flat_map(|l| SocketKey::all(l)).collect();
        self.open.retain(|key, _| wanted.contains(key));
        self.seats = next.parcels.seats.clone();
        for listener in listeners {
            if let Some(seats) = self.seats.get(&listener.name) {
                seats.set_limit(listener.limits.connections);
            }
        }
        Box::pin(std::future::ready(()))
    }
}

type OpenSockets = (Vec<Opened>, HashMap<SocketKey, SocketAddr>);

impl Sockets {
    /// What `config` needs beside what is open, by worker, and the addresses; nothing is kept when one fails.
    fn open(&self, config: &Config) -> Result<OpenSockets, Problem> {
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
        Ok((per_worker, opened))
    }

    /// True when this process listens on the port already, on an address that may cover this one.
    fn overlaps(&self, address: SocketAddr) -> bool {
        self.open.values().any(|open| open.port() == address.port())
    }

    /// Those of each listener: one that stays keeps its count.
    fn seats(&self, config: &Config) -> HashMap<Arc<str>, Arc<Seats>> {
        let of = |listener: &Arc<ListenerConfig>| {
            let known = self.seats.get(&listener.name).cloned();
            let seats = known.unwrap_or_else(|| Seats::new(listener.limits.connections));
            (listener.name.clone(), seats)
        };
        config.listeners.iter().map(of).collect()
    }

    /// Where a listener can be reached: the bound addresses, real ports.
    pub fn addresses(&self, listener: &ListenerConfig) -> Vec<SocketAddr> {
        SocketKey::all(listener)
            .filter_map(|key| self.open.get(&key).copied())
            .collect()
    }
}
