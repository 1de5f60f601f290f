//! What control knows while the server runs.

use super::access_log::Records;
use super::build::{Build, Builder};
use super::checks::PoolChecks;
use super::follower::{Follower, Next, advance};
use super::restart::Restart;
use super::run_error::RunError;
use super::samples::Scrape;
use super::sockets::Sockets;
use super::state::State;
use super::watch::Watch;
use super::workers::Workers;
use crate::generation::Generation;
use crate::telemetry::Metrics;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

pub struct Server {
    pub builder: Arc<Mutex<Builder>>,
    pub metrics: Arc<Metrics>,
    /// None before the first one serves.
    pub generation: Option<Arc<Generation>>,
    pub followers: Followers,
    pub state: Rc<State>,
}

/// All that follows the generations.
pub struct Followers {
    pub restart: Restart,
    pub records: Records,
    pub sockets: Sockets,
    pub workers: Workers,
    pub checks: PoolChecks,
    pub watch: Option<Watch>,
    pub scrape: Scrape,
}

/// What serves.
pub struct Ready {
    /// Listener names with the addresses they are bound to; real ports.
    pub listeners: Vec<(Arc<str>, Vec<SocketAddr>)>,
}

impl Followers {
    /// In the order in which they are asked. What gets something ready for others stands before them.
    pub fn list(&mut self) -> Vec<&mut dyn Follower> {
        let mut list: Vec<&mut dyn Follower> = vec![
            &mut self.restart,
            &mut self.records,
            &mut self.sockets,
            &mut self.workers,
            &mut self.checks,
        ];
        list.extend(self.watch.as_mut().map(|watch| watch as &mut dyn Follower));
        list.push(&mut self.scrape);
        list
    }
}

impl Server {
    /// Puts what was built to work. On failure nothing has changed.
    pub async fn put_to_work(&mut self, build: Build) -> Result<(), RunError> {
        let present = self.generation.clone();
        let mut next = Next::new(build.generation, present, build.watched);
        advance(&mut self.followers.list(), &mut next)
            .await
            .map_err(|refused| RunError::refused(&build.sources, refused))?;
        self.generation = Some(next.generation);
        Ok(())
    }

    /// The number of the generation that serves; 0 before the first.
    pub fn number(&self) -> u64 {
        self.generation.as_ref().map_or(0, |g| g.number)
    }

    pub fn ready(&self) -> Ready {
        let listeners = self.generation.iter().flat_map(|g| &g.config.listeners);
        Ready {
            listeners: listeners
                .map(|l| (l.name.clone(), self.followers.sockets.addresses(l)))
                .collect(),
        }
    }
}
