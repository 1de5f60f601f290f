//! What the metrics pull from pools at each scrape.

use crate::generation::Generation;
use crate::telemetry::{EndpointSample, Metrics};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Adds the endpoints of whatever generation serves at the time of a scrape.
pub fn register(metrics: &Metrics, serving: Arc<ArcSwap<Generation>>) {
    metrics.register(Box::new(move |visitor| {
        for pool in &serving.load().pools {
            for endpoint in pool.endpoints() {
                visitor.endpoint(pool.name(), &endpoint.text, &EndpointSample::default());
            }
        }
    }));
}
