//! Requests that wait for an endpoint to come back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::comeback::{NOT_LOST, Patience};
use super::endpoint::AdminState;
use super::pool::Pool;
use super::retry::backoff;
use super::set::Member;

impl Pool {
    /// The last endpoint was lost a moment ago.
    pub(super) fn is_just_lost(&self) -> bool {
        let ends = self.comebacks.hope_ends.load(Ordering::Relaxed);
        ends != NOT_LOST && self.lineage.registry.now_ms() < ends
    }

    /// A probe has ended.
    pub(super) fn probed(&self) {
        if self.comebacks.waiting.load(Ordering::Relaxed) != 0 {
            self.comebacks.news.send_replace(());
        }
    }

    /// Nothing can be picked: waits for an endpoint to come up, a second at most and only while a probe is due within
    /// that. True when it is worth to pick again.
    pub async fn come_back(&self, patience: &mut Patience) -> bool {
        let mut news = self.comebacks.news.subscribe();
        if self.is_available() {
            return patience.again();
        }
        let left = patience.left();
        if !self.may_come_back(left) {
            return false;
        }
        let Some(_seat) = self.comebacks.sit() else {
            return false;
        };
        loop {
            let left = patience.left();
            if left.is_zero() || !self.may_come_back(left) {
                return false;
            }
            if tokio::time::timeout(left, news.changed()).await.is_err() {
                // Nobody brings news to a pool that a reload has replaced; its endpoints are known all the same.
                return self.is_available() && patience.again();
            }
            if self.is_available() {
                return patience.again();
            }
        }
    }

    /// Every endpoint that was tried refused the connection: waits for a probe to end, or a moment; as
    /// [`Pool::come_back`] for what bounds it. True when it is worth to try all again.
    pub async fn hold_on(&self, patience: &mut Patience) -> bool {
        let left = patience.left();
        if left.is_zero() || !self.may_come_back(left) {
            return false;
        }
        let Some(_seat) = self.comebacks.sit() else {
            return false;
        };
        let mut news = self.comebacks.news.subscribe();
        let pause = backoff(patience.rounds + 1).min(left);
        let _ = tokio::time::timeout(pause, news.changed()).await;
        patience.again()
    }

    /// A probe that may bring an endpoint back is due within `left`, and the pool has not been lost for long.
    fn may_come_back(&self, left: Duration) -> bool {
        let now = self.lineage.registry.now_ms();
        if self.config.check.is_none() || now >= self.comebacks.hope_ends.load(Ordering::Relaxed) {
            return false;
        }
        let by = now + u64::try_from(left.as_millis()).unwrap_or_default();
        let is_due = |m: &Member| {
            let endpoint = &m.endpoint;
            m.weight > 0
                && endpoint.admin_state() == AdminState::Enabled
                && endpoint.standing.schedule.is_due(by)
        };
        self.members().iter().any(is_due)
    }
}
