//! Resolves a pool's host names again and again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

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
    /// Asks for every name once and hands the answers to `pool`; a name that fails keeps its last addresses.
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
            match answer {
                Ok(Answer { addresses, ttl }) => {
                    pool.resolved(&host, &addresses);
                    next = next.min(ttl.unwrap_or(interval).max(TTL_MIN));
                }
                Err(error) => {
                    failed = true;
                    self.complain(pool, &host, &error);
                }
            }
        }
        pool.resolution_done();
        if !failed {
            self.failed_rounds = 0;
            return next;
        }
        let soon = RETRY_MIN.saturating_mul(1 << self.failed_rounds.min(16));
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        next.min(soon)
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
