//! Resolves a pool's host names again and again, and decides what becomes of addresses that are no longer answered.
//!
//! An answer is believed: an address that is missing from it gets no more traffic. But some name servers give only a part
//! of the addresses each time. So an address that went and came back once stays when it is missing again, until it has
//! been missing for long. And an answer that there is nothing (the name does not exist, or has no address) is an answer,
//! but a grave one: it must hold for a grace time. No answer at all changes nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::discovery::{Answer, Resolve, ResolveError};
use crate::upstream::Pool;

/// Names of one pool that are asked for at one time.
const CONCURRENT: usize = 8;
/// One answer may take this long.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Answers that claim to hold for less are believed to hold for this long.
const TTL_MIN: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_secs(1);
/// What a pool's resolution remembers from round to round.
#[derive(Default)]
pub struct NameWatch {
    failed_rounds: u32,
}

impl NameWatch {
    /// Asks for every name once and hands the answers to `pool`.
    /// Answers when the next round is due: after the pool's interval, or when the first answer expires before that,
    /// or soon when a name failed.
    pub async fn round(&mut self, pool: &Pool, resolver: &dyn Resolve) -> Duration {
        let interval = pool.config.resolve_interval;
        let mut next = interval;
        let mut failed = false;
        let mut answers = futures_util::stream::iter(pool.hosts.clone())
            .map(|host| async move {
                let asked = tokio::time::timeout(TIMEOUT, resolver.resolve(&host));
                let answer = asked.await.unwrap_or(Err(ResolveError::Timeout));
                (host, answer)
            })
            .buffer_unordered(CONCURRENT);
        while let Some((host, answer)) = answers.next().await {
            let now = Instant::now();
            let mut names = pool.lineage.names();
            let state = names.entry(Arc::clone(&host)).or_default();
            match answer {
                Ok(Answer { addresses, ttl }) => {
                    let holds = ttl.unwrap_or(interval);
                    state.ttl = holds;
                    let grace = state.grace(&pool.config);
                    let meaning = state.answered(&addresses, holds, now, grace);
                    pool.resolved(&host, &meaning.addresses, &meaning.absent);
                    next = next.min(holds.max(TTL_MIN));
                }
                Err(error) => {
                    failed = true;
                    if error == ResolveError::NoAddress && pool.knows(&host) {
                        match state.denied(now, state.grace(&pool.config)) {
                            Ok(first) => self.drop_name(pool, &host, first),
                            Err(left) => {
                                next = next.min(left.max(Duration::from_millis(10)));
                                self.complain(pool, &host, &error);
                            }
                        }
                    } else {
                        self.complain(pool, &host, &error);
                    }
                }
            }
        }
        drop(answers);
        pool.resolution_done();
        if !failed {
            self.failed_rounds = 0;
            return next;
        }
        let soon = RETRY_MIN.saturating_mul(1 << self.failed_rounds.min(16));
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        next.min(soon)
    }

    /// Also when another pool of this line did it before, from which this one has taken over.
    fn drop_name(&self, pool: &Pool, host: &Arc<str>, first: bool) {
        if first {
            pool.lineage.count_gone();
            let pool = &*pool.config.name;
            tracing::warn!(pool, %host, "name is gone: its addresses are no longer used");
        }
        pool.resolved(host, &[], &[]);
    }

    /// Loud the first time, quiet while it lasts.
    fn complain(&self, pool: &Pool, host: &Arc<str>, error: &ResolveError) {
        let pool = &*pool.config.name;
        if self.failed_rounds == 0 {
            tracing::warn!(pool, %host, %error, "name not resolved; its last addresses stay");
        } else {
            tracing::debug!(pool, %host, %error, "name still not resolved");
        }
    }
}
