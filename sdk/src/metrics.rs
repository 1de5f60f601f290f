//! Metrics of the filter's own in the proxy's `/metrics`, as `sluicegate_filter_FILTER_NAME`.
//!
//! The capability `metrics` must be granted in the YAML. A filter that never calls this module does not import it. Handles
//! are made in [`Filter::configure`](crate::Filter::configure); all instances of the filter count in the same place, and
//! go on there after a reload that leaves the definition as it is. Natively the [test harness](crate::testing::metric)
//! collects.
//!
//! What the proxy cannot have is a trap, which fails the load: a name that is not a name of a metric or defined twice in
//! different ways, more than 64 metrics or 8 labels. A set of label values beyond the 1000th counts as `other`.

/// Only goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter(u32);

/// Goes up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge(u32);

/// Counts observations by size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Defines a counter. The proxy adds `_total` to its name.
pub fn counter(name: &str, help: &str, labels: &[&str]) -> Counter {
    Counter(host::define(Kind::Counter, name, help, labels, &[]))
}

pub fn gauge(name: &str, help: &str, labels: &[&str]) -> Gauge {
    Gauge(host::define(Kind::Gauge, name, help, labels, &[]))
}

/// `buckets` are upper bounds, ascending, 1 to 64; infinity is added.
pub fn histogram(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Histogram {
    Histogram(host::define(Kind::Histogram, name, help, labels, buckets))
}

impl Counter {
    /// `labels` are the values, in the order of the definition. What is negative or not finite is ignored.
    pub fn add(&self, labels: &[&str], amount: f64) {
        host::add(self.0, labels, amount);
    }

    /// One more.
    pub fn increment(&self, labels: &[&str]) {
        self.add(labels, 1.0);
    }
}

impl Gauge {
    pub fn add(&self, labels: &[&str], amount: f64) {
        host::add(self.0, labels, amount);
    }

    /// The last of all instances counts.
    pub fn set(&self, labels: &[&str], value: f64) {
        host::set(self.0, labels, value);
    }
}

impl Histogram {
    pub fn observe(&self, labels: &[&str], value: f64) {
        host::observe(self.0, labels, value);
    }
}

#[cfg(not(target_family = "wasm"))]
use crate::testing::metrics as host;

#[cfg(target_family = "wasm")]
mod host {
    use super::Kind;
    use super::bindings::sluicegate::filter::metrics;

    fn owned(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    pub fn define(kind: Kind, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> u32 {
        let kind = match kind {
            Kind::Counter => metrics::Kind::Counter,
            Kind::Gauge => metrics::Kind::Gauge,
            Kind::Histogram => metrics::Kind::Histogram,
        };
        metrics::define(kind, name, help, &owned(labels), buckets)
    }

    pub fn add(metric: u32, labels: &[&str], amount: f64) {
        metrics::add(metric, &owned(labels), amount);
    }

    pub fn set(metric: u32, labels: &[&str], value: f64) {
        metrics::set(metric, &owned(labels), value);
    }

    pub fn observe(metric: u32, labels: &[&str], value: f64) {
        metrics::observe(metric, &owned(labels), value);
    }
}

#[cfg(target_family = "wasm")]
#[allow(unsafe_code, clippy::all, missing_docs)]
mod bindings {
    sluicegate_sdk_macros::__import_bindings!(metrics);
}
