//! Collects the metrics of a filter that runs natively.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::metrics::Kind;

thread_local! {
    static METRICS: RefCell<Vec<Metric>> = const { RefCell::new(Vec::new()) };
}

struct Metric {
    name: String,
    kind: Kind,
    labels: Vec<String>,
    buckets: Vec<f64>,
    values: BTreeMap<Vec<String>, f64>,
}

/// The value of a metric of this thread's filters for these label values: of a histogram the sum of its observations. 0 when
/// nothing was counted.
pub fn metric(name: &str, labels: &[&str]) -> f64 {
    METRICS.with_borrow(|metrics| {
        let metric = metrics.iter().find(|metric| metric.name == name);
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        metric
            .and_then(|metric| metric.values.get(&labels).copied())
            .unwrap_or_default()
    })
}

pub(crate) fn define(kind: Kind, name: &str, _: &str, labels: &[&str], buckets: &[f64]) -> u32 {
    METRICS.with_borrow_mut(|metrics| {
        let known = metrics.iter().position(|metric| metric.name == name);
        let number = known.unwrap_or_else(|| {
            metrics.push(Metric {
                name: name.to_owned(),
                kind,
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                buckets: buckets.to_vec(),
                values: BTreeMap::new(),
            });
            metrics.len() - 1
        });
        let metric = &metrics[number];
        assert!(
            metric.kind == kind && metric.labels == labels && metric.buckets == buckets,
            "the metric {name:?} was defined before in another way"
        );
        number as u32
    })
}

pub(crate) fn add(metric: u32, labels: &[&str], amount: f64) {
    change(metric, labels, |kind, value| {
        assert_ne!(kind, Kind::Histogram, "nothing is added to a histogram");
        let counts = amount.is_finite() && (kind == Kind::Gauge || amount >= 0.0);
        *value += if counts { amount } else { 0.0 };
    });
}

pub(crate) fn set(metric: u32, labels: &[&str], to: f64) {
    change(metric, labels, |_, value| *value = to);
}

pub(crate) fn observe(metric: u32, labels: &[&str], observed: f64) {
    change(metric, labels, |_, value| *value += observed);
}

fn change(metric: u32, labels: &[&str], change: impl FnOnce(Kind, &mut f64)) {
    METRICS.with_borrow_mut(|metrics| {
        let metric = &mut metrics[metric as usize];
        assert_eq!(
            metric.labels.len(),
            labels.len(),
            "the labels of {:?} and the values that are given",
            metric.name
        );
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        change(metric.kind, metric.values.entry(labels).or_default());
    });
}
