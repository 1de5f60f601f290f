//! The checks and the name look-ups of the pools that serve.

use super::follower::{Follower, Next};
use crate::discovery::{Resolve, SystemResolver};
use crate::upstream::{Checks, Pool};
use futures_util::future::LocalBoxFuture;
use std::sync::Arc;

pub struct PoolChecks {
    resolver: Arc<dyn Resolve>,
    /// They stop when their guard is dropped.
    running: Vec<(Arc<Pool>, Checks)>,
}

impl PoolChecks {
    pub fn new() -> Self {
        Self {
            resolver: Arc::new(SystemResolver::new()),
            running: Vec::new(),
        }
    }
}

#[cfg(test)]
impl PoolChecks {
    /// The names of the pools that are checked.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.running.iter().map(|(pool, _)| &*pool.config.name)
    }
}

impl Follower for PoolChecks {
    /// Starts the checks of pools that are new and stops those of pools that are gone. Requests to a new pool wait for its
    /// first checks; what these find is true of endpoints that an earlier pool has too, so that nothing is checked for a
    /// generation that may yet be refused.
    fn settle<'a>(&'a mut self, next: &'a Next) -> LocalBoxFuture<'a, ()> {
        let mut before = std::mem::take(&mut self.running);
        for pool in &next.generation.pools {
            let known = before.iter().position(|(p, _)| Arc::ptr_eq(p, pool));
            let checks = match known {
                Some(at) => before.swap_remove(at).1,
                None => Checks::spawn(pool, &self.resolver),
            };
            self.running.push((pool.clone(), checks));
        }
        Box::pin(std::future::ready(()))
    }
}
