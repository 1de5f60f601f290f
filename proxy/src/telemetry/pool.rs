//! What a worker counts of pools: how long their endpoints take to answer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::exposition::Visitor;
use super::shards::{Shard, Shards};

/// Upper bounds in microseconds; one more bucket takes what is longer.
const BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
const SUM_US: usize = 0;
const BUCKET: usize = 1;
pub(super) const POOL_CELLS: usize = BUCKET + BOUNDS_US.len() + 1;

/// A worker's counters of all pools.
#[derive(Debug)]
pub struct PoolMetrics {
    pub(super) table: Arc<Shards<POOL_CELLS>>,
    /// Allocates when a pool is seen first.
    pools: RefCell<HashMap<Box<str>, Shard<POOL_CELLS>>>,
}

impl PoolMetrics {
    pub(super) fn new(table: Arc<Shards<POOL_CELLS>>) -> Self {
        Self {
            table,
            pools: RefCell::default(),
        }
    }

    /// An endpoint of `pool` has answered; `after` is the time that all tries took.
    pub fn responded(&self, pool: &str, after: Duration) {
        let mut pools = self.pools.borrow_mut();
        let count = |shard: &Shard<POOL_CELLS>| {
            let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            shard.add(SUM_US, us);
            shard.add(BUCKET + BOUNDS_US.partition_point(|&b| b < us), 1);
        };
        match pools.get(pool) {
            Some(shard) => count(shard),
            None => {
                let shard = self.table.shard(pool);
                count(&shard);
                pools.insert(pool.into(), shard);
            }
        }
    }

    /// Lets go of the counters of other pools than those that `stay`; what they have counted remains.
    pub fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.pools.borrow_mut().retain(|name, _| stays(name));
    }
}

/// Adds the family about `pool`.
pub(super) fn visit_pool(visitor: &mut Visitor, pool: &str, sums: &[u64; POOL_CELLS]) {
    let bounds = BOUNDS_US.iter().map(|&us| us as f64 / 1e6);
    let buckets = bounds
        .chain([f64::INFINITY])
        .zip(sums[BUCKET..].iter().copied())
        .collect();
    visitor.histogram(
        "sluicegate_pool_response_seconds",
        "From the choice of an endpoint to the head of a response, further tries included",
        &[("pool", pool)],
        buckets,
        sums[SUM_US] as f64 / 1e6,
    );
}
