//! The loops on the control runtime: one for each pool that watches its names, one for each endpoint that is checked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::http::Request;
use super::names::NameWatch;
use super::pace::Pace;
use super::probe::Probe;
use super::{Verdict, announce, http, tcp};
use crate::config::{CheckConfig, CheckKind};
use crate::discovery::{Resolve, SystemResolver};
use crate::upstream::endpoint::{AdminState, Endpoint};
use crate::upstream::pool::Pool;
use crate::upstream::registry::EndpointId;

/// Probes of one pool that are out at one time.
const PROBES_MAX: usize = 256;

/// The running checks and name watches of one pool. They stop when this is dropped.
///
/// Started once a generation is committed, for pools that are new in it: a pool that was used on keeps the `Checks`
/// it has, and those of a pool that was replaced are dropped with it.
#[derive(Debug)]
#[must_use = "checks stop when this is dropped"]
pub struct Checks {
    task: Option<AbortHandle>,
}

impl Checks {
    /// Must be called within a tokio runtime, control's. A pool without checks and names needs no task.
    pub fn spawn(pool: &Arc<Pool>, resolver: &Arc<dyn Resolve>) -> Self {
        let needed = pool.config.check.is_some() || !pool.hosts.is_empty();
        let task = needed.then(|| {
            let watch = watch_pool(Arc::clone(pool), Arc::clone(resolver));
            tokio::spawn(watch).abort_handle()
        });
        Self { task }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn watch_pool(pool: Arc<Pool>, resolver: Arc<dyn Resolve>) {
    pool.lineage.keep_names(&pool.hosts);
    let own = pool.config.name_servers.clone();
    let resolver = match own.is_empty() {
        true => resolver,
        false => Arc::new(SystemResolver::asking(own)),
    };
    let mut watched = Watched::default();
    let mut names = NameWatch::default();
    let gate = Arc::new(Semaphore::new(PROBES_MAX));
    loop {
        // Before the names, so that what is known already need not wait for them.
        watched.follow(&pool, &gate);
        if pool.hosts.is_empty() {
            return std::future::pending().await;
        }
        let next = names.round(&pool, &*resolver).await;
        watched.follow(&pool, &gate);
        tokio::time::sleep(jittered(next)).await;
    }
}

/// The endpoints that have a loop; all loops end when this is dropped.
#[derive(Default)]
struct Watched {
    loops: JoinSet<()>,
    handles: HashMap<EndpointId, AbortHandle>,
}

impl Watched {
    /// Starts loops for new members and ends those of members that are gone.
    fn follow(&mut self, pool: &Arc<Pool>, gate: &Arc<Semaphore>) {
        let Some(check) = &pool.config.check else {
            return;
        };
        let members = pool.members();
        self.handles.retain(|id, handle| {
            let stays = members.iter().any(|m| m.endpoint.id == *id);
            if !stays {
                handle.abort();
            }
            stays
        });
        for member in members.iter() {
            let endpoint = &member.endpoint;
            self.handles.entry(endpoint.id).or_insert_with(|| {
                self.loops.spawn(watch_endpoint(
                    Arc::clone(pool),
                    Arc::clone(endpoint),
                    check.clone(),
                    Arc::clone(gate),
                ))
            });
        }
        while self.loops.try_join_next().is_some() {}
    }
}

async fn watch_endpoint(
    pool: Arc<Pool>,
    endpoint: Arc<Endpoint>,
    check: CheckConfig,
    gate: Arc<Semaphore>,
) {
    let mut decide = pool.check_is_new;
    let mut pace = Pace::default();
    let mut prompted = None;
    let (schedule, registry) = (&endpoint.standing.schedule, &endpoint.lineage.registry);
    loop {
        if endpoint.admin_state() != AdminState::Disabled {
            let Ok(_permit) = gate.acquire().await else {
                return;
            };
            schedule.begin();
            let probe = probe(&pool, &endpoint, &check).await;
            schedule.count(probe.is_ok());
            record(&pool, &endpoint, &check, decide, &probe);
            decide = false;
        }
        let wait = pace.next(&endpoint.standing, &check, pool.is_just_lost());
        let wait = match wait < check.interval {
            true => hastened(wait),
            false => jittered(wait),
        };
        let wait = schedule.wait(wait, &mut prompted, registry);
        // Who waits for news is to see when the next probe is due.
        tokio::join!(wait, async { pool.probed() });
    }
}

async fn probe(pool: &Pool, endpoint: &Endpoint, check: &CheckConfig) -> Probe {
    let tls = pool.tls.as_deref();
    let probe = async {
        match &check.kind {
            CheckKind::Tcp => tcp::probe(endpoint, tls).await,
            CheckKind::Http {
                method,
                path,
                host,
                status,
            } => {
                let request = Request {
                    method,
                    path,
                    host: host.as_deref().unwrap_or(&endpoint.authority),
                };
                http::probe(endpoint, tls, pool.config.protocol, &request, status).await
            }
        }
    };
    let late = |_| Err(format!("no answer within {} ms", check.timeout.as_millis()));
    tokio::time::timeout(check.timeout, probe)
        .await
        .unwrap_or_else(late)
}

fn record(pool: &Pool, endpoint: &Endpoint, check: &CheckConfig, decide: bool, probe: &Probe) {
    let standing = &endpoint.standing;
    let first = standing.verdict() == Verdict::Unknown;
    let was_rising = standing.is_rising();
    let (turn, reason) = match probe {
        Ok(()) => {
            let now = endpoint.lineage.registry.now_ms();
            let turn = standing.check_passed(decide, check.rise, now);
            (turn, "check passed")
        }
        Err(error) => (
            standing.check_failed(decide, check.fall, error),
            error.as_str(),
        ),
    };
    if let Some(turn) = turn {
        announce(endpoint, turn, reason);
    }
    if turn.is_some() || first || was_rising != standing.is_rising() {
        endpoint.lineage.changed();
        pool.refresh();
    }
}

/// `interval` ±10 %, so that the checks of many endpoints and many proxies do not march in step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Up to 10 % less than `interval`: what is waited for does not come later than was said.
fn hastened(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.1 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_differ_by_a_tenth_at_most() {
        let waits = || (0..1000).map(|_| jittered(Duration::from_secs(10)));
        let (early, late) = (Duration::from_secs(9), Duration::from_secs(11));
        assert!(waits().all(|wait| wait >= early && wait <= late));
        assert!(waits().any(|wait| wait < Duration::from_millis(9900)));
    }
}
