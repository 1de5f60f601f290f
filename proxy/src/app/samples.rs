//! What the metrics pull from pools and filters at each scrape.

use super::follower::{Follower, Next};
use crate::chain::{Counts, VerdictKind};
use crate::generation::Generation;
use crate::telemetry::{EndpointSample, FilterSample, FilterValue, Metrics, PoolSample, Visitor};
use crate::upstream::{Offence, State};
use crate::wasm::{FaultKind, MetricKind, MetricValue};
use futures_util::future::LocalBoxFuture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::UNIX_EPOCH;

/// The generation that serves, and the counts of filters that reloads replaced, so that counters only ever grow.
pub struct ScrapeView(Mutex<Serving>);

struct Serving {
    generation: Arc<Generation>,
    /// Those before it, for as long as exchanges go on that began with them.
    ending: Vec<Weak<Generation>>,
    /// By name; names that left the configuration are forgotten.
    replaced: HashMap<Arc<str>, Counts>,
}

/// Keeps the metrics with the serving generation.
pub struct Scrape {
    metrics: Arc<Metrics>,
    view: Option<Arc<ScrapeView>>,
}

impl Scrape {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            view: None,
        }
    }
}

impl Follower for Scrape {
    fn settle<'a>(&'a mut self, next: &'a Next) -> LocalBoxFuture<'a, ()> {
        self.metrics.generation_serves(next.generation.number);
        match &self.view {
            Some(view) => view.serve(next.generation.clone()),
            None => {
                let view = ScrapeView::register(&self.metrics, next.generation.clone());
                self.view = Some(view);
            }
        }
        Box::pin(std::future::ready(()))
    }
}

impl ScrapeView {
    /// Makes the samples part of every scrape.
    pub fn register(metrics: &Metrics, generation: Arc<Generation>) -> Arc<Self> {
        let samples = Arc::new(Self(Mutex::new(Serving {
            generation,
            ending: Vec::new(),
            replaced: HashMap::new(),
        })));
        let read = samples.clone();
        metrics.register(Box::new(move |visitor| read.visit(visitor)));
        samples
    }

    /// Another generation serves from now on.
    pub fn serve(&self, generation: Arc<Generation>) {
        let mut serving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = &mut *serving;
        for old in serving.generation.filters() {
            if !generation
                .filters()
                .any(|new| Arc::ptr_eq(&new.filter, &old.filter))
            {
                serving
                    .replaced
                    .entry(old.filter.name().clone())
                    .or_default()
                    .add(&old.filter.counts());
            }
        }
        serving
            .replaced
            .retain(|name, _| generation.filters().any(|f| f.filter.name() == name));
        serving.ending.retain(|old| old.strong_count() > 0);
        let old = std::mem::replace(&mut serving.generation, generation);
        serving.ending.push(Arc::downgrade(&old));
    }

    fn visit(&self, visitor: &mut Visitor) {
        let serving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ending = serving.ending.iter().filter(|old| old.strong_count() > 0);
        visitor.generations(1 + ending.count() as u64);
        for pool in &serving.generation.pools {
            let mut whole = PoolSample {
                unresolved: pool.unresolved() as u64,
                names_gone: pool.names_gone(),
                ..PoolSample::default()
            };
            for report in pool.report() {
                let endpoint = &report.endpoint;
                let sample = EndpointSample {
                    requests: endpoint.picks(),
                    connects: endpoint.connects(),
                    connect_failures: endpoint.connect_failures(),
                    failures: endpoint.failures(),
                    active: endpoint.active().into(),
                    up: matches!(report.state, State::Up | State::Unchecked),
                    probes: endpoint.probes(),
                    since: (report.since.duration_since(UNIX_EPOCH))
                        .map_or(0.0, |since| since.as_secs_f64()),
                    downs: endpoint.downs(),
                    goaways: Offence::ALL
                        .map(|offence| (offence.as_str(), endpoint.goaways(offence))),
                };
                whole.endpoints += 1;
                whole.healthy += u64::from(sample.up);
                visitor.endpoint(&pool.config.name, &endpoint.text, &sample);
            }
            visitor.pool(&pool.config.name, &whole);
        }
        for used in serving.generation.filters() {
            let mut counts = used.filter.counts();
            if let Some(before) = serving.replaced.get(used.filter.name()) {
                counts.add(before);
            }
            let kinds = |uncalled: bool| {
                FaultKind::ALL
                    .iter()
                    .filter(|kind| kind.is_uncalled() == uncalled)
                    .map(|&kind| (kind.as_str(), counts.faults(kind)))
                    .collect()
            };
            let module = used.filter.module();
            let sample = FilterSample {
                calls: counts.calls,
                seconds: counts.nanoseconds as f64 / 1e9,
                verdicts: VerdictKind::ALL
                    .iter()
                    .map(|&kind| (kind.as_str(), counts.verdicts(kind)))
                    .collect(),
                faults: kinds(false),
                uncalled: kinds(true),
                suspended: used.filter.suspended() as u64,
                instances: used.filter.instances() as u64,
                module: (module.name().to_owned(), module.digest_hex()),
            };
            visitor.filter(used.filter.name(), &sample);
            visitor.store(used.filter.name(), &used.store.sample());
            let metrics = used.filter.metrics();
            metrics.for_each(|kind, name, help, labels, value| {
                let value = match (kind, value) {
                    (MetricKind::Counter, MetricValue::Number(n)) => FilterValue::Counter(n),
                    (_, MetricValue::Number(n)) => FilterValue::Gauge(n),
                    (_, MetricValue::Histogram(buckets, sum)) => {
                        FilterValue::Histogram(buckets, sum)
                    }
                };
                visitor.filter_metric(used.filter.name(), (name, help), labels, value);
            });
        }
    }
}
