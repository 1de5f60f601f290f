//! What the metrics pull from pools and filters at each scrape.

use crate::generation::Generation;
use crate::telemetry::{EndpointSample, FilterSample, Metrics};
use crate::upstream::State;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Adds the endpoints and filters of whatever generation serves at the time of a scrape.
pub fn register(metrics: &Metrics, serving: Arc<ArcSwap<Generation>>) {
    metrics.register(Box::new(move |visitor| {
        let generation = serving.load();
        for pool in &generation.pools {
            for report in pool.report() {
                let endpoint = &report.endpoint;
                let sample = EndpointSample {
                    requests: endpoint.picks(),
                    connect_failures: endpoint.connect_failures(),
                    failures: endpoint.failures(),
                    active: endpoint.active().into(),
                    up: matches!(report.state, State::Up | State::Unchecked),
                    downs: endpoint.ejections(),
                    ..EndpointSample::default()
                };
                visitor.endpoint(&pool.config.name, &endpoint.text, &sample);
            }
        }
        for used in &generation.filters {
            let sample = FilterSample { generation: generation.number, ..FilterSample::default() };
            visitor.filter(used.filter.name(), &sample);
        }
    }));
}
