//! What follows the generations of the process, and how all of it moves from one to the next, or none of it.
//!
//! A reload asks every follower in turn to get ready, then every one to put the next generation to work, and at last lets
//! every one forget the generation before. Whoever refuses in the first two rounds has all taken back. What cannot be
//! taken back belongs into the last round, in which nobody can refuse.

use crate::config::Problem;
use crate::generation::Generation;
use crate::listen::Seats;
use crate::telemetry::WorkerLog;
use futures_util::future::LocalBoxFuture;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::socket_key::Opened;

/// Something of the process that is as the serving generation says.
pub trait Follower {
    /// Gets ready for the next generation. Nothing that serves may change by it, and a failure leaves nothing behind.
    fn prepare(&mut self, _next: &mut Next) -> Result<(), Refused> {
        Ok(())
    }

    /// Puts the next generation to work, where that can still fail: a thread may have ended, the kernel may refuse.
    fn commit<'a>(&'a mut self, _next: &'a mut Next) -> LocalBoxFuture<'a, Result<(), Refused>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Takes back what [`Follower::prepare`] and [`Follower::commit`] did, whichever of them was called, and whether or not
    /// the last of them failed. The generation that served goes on.
    fn undo<'a>(&'a mut self, _next: &'a mut Next) -> LocalBoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// All have committed: the next generation serves, and the one before is over.
    fn settle<'a>(&'a mut self, _next: &'a Next) -> LocalBoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A generation that is to serve.
pub struct Next {
    pub generation: Arc<Generation>,
    /// The one that serves; none at the start.
    pub present: Option<Arc<Generation>>,
    /// Every file and directory whose change may change the configuration.
    pub watched: Vec<PathBuf>,
    pub parcels: Parcels,
}

/// What followers get ready for others behind them in the list.
#[derive(Default)]
pub struct Parcels {
    /// The sockets that no earlier generation had, by worker.
    pub sockets: Vec<Opened>,
    /// The connection limit of each listener.
    pub seats: HashMap<Arc<str>, Arc<Seats>>,
    /// None: records go on where they went.
    pub log: Option<LogChange>,
}

/// Where records go, by worker; none: nowhere.
pub type Writers = Option<Vec<WorkerLog>>;

/// Other places for records, and the present ones to come back to.
pub struct LogChange {
    pub to: Writers,
    pub back: Writers,
}

/// Why the next generation cannot serve.
#[derive(Debug)]
pub enum Refused {
    /// At a place of the configuration.
    Placed(Problem),
    /// The system does not allow it.
    System(anyhow::Error),
}

impl Next {
    pub fn new(
        generation: Arc<Generation>,
        present: Option<Arc<Generation>>,
        watched: Vec<PathBuf>,
    ) -> Self {
        Self {
            generation,
            present,
            watched,
            parcels: Parcels::default(),
        }
    }
}

/// Moves all `followers`, in their order, to the next generation; or none.
pub async fn advance(followers: &mut [&mut dyn Follower], next: &mut Next) -> Result<(), Refused> {
    for at in 0..followers.len() {
        if let Err(refused) = followers[at].prepare(next) {
            take_back(&mut followers[..at], next).await;
            return Err(refused);
        }
    }
    for at in 0..followers.len() {
        if let Err(refused) = followers[at].commit(next).await {
            take_back(followers, next).await;
            return Err(refused);
        }
    }
    for follower in followers {
        follower.settle(next).await;
    }
    Ok(())
}

/// In the reverse order, since later ones may use what earlier ones have got ready.
async fn take_back(followers: &mut [&mut dyn Follower], next: &mut Next) {
    for follower in followers.iter_mut().rev() {
        follower.undo(next).await;
    }
}
