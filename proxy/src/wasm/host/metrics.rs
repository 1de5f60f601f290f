//! The capability `metrics`: counters, gauges and histograms of a filter's own.
//!
//! The definitions and their series belong to the filter ([`FilterMetrics`]) and are shared by its instances; each instance
//! remembers the series that it met ([`Metrics`]), so that counting is one look-up in a map of its own and one atomic
//! operation. The lock of a metric is taken when an instance meets a series for the first time.

mod link;

pub(super) use link::{link_component, link_core};

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::words::tame;

const METRICS_MAX: usize = 64;
const LABELS_MAX: usize = 8;
/// Bytes of a metric's or a label's name.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a label's value; the rest is cut.
const VALUE_BYTES_MAX: usize = 128;
const HELP_BYTES_MAX: usize = 512;
/// Sets of label values of one metric; further ones are counted as [`OTHER`].
const SERIES_MAX: usize = 1000;
const BUCKETS_MAX: usize = 64;
const OTHER: &str = "other";
/// Endings that the exposition gives to samples: with them a name could be that of another metric's sample.
const ENDINGS: [&str; 6] = ["total", "created", "info", "bucket", "count", "sum"];
/// Labels that the proxy writes.
const OWN_LABELS: [&str; 3] = ["filter", "le", "quantile"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Why a call is refused. The guest traps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::wasm) enum BadMetric {
    #[error("the metrics of the filter are more than {METRICS_MAX}")]
    TooMany,
    #[error(
        "{0:?} is not a name of a metric: letters, digits and _, not a digit first, at most {NAME_BYTES_MAX}"
    )]
    Name(String),
    #[error("the name {0:?} ends as the proxy ends names of samples; leave _{1} out")]
    Ending(String, &'static str),
    #[error("{0:?} is not a name of a label, or is one that the proxy writes, or there twice")]
    Label(String),
    #[error("the metric {0:?} has more than {LABELS_MAX} labels")]
    TooManyLabels(String),
    #[error("the buckets of {0:?} are none, more than {BUCKETS_MAX}, or do not ascend")]
    Buckets(String),
    #[error("the metric {0:?} was defined before in another way")]
    Conflict(String),
    #[error("metric number {0} was not defined")]
    Unknown(u32),
    #[error("the metric {name:?} is a {kind}, which has no such operation")]
    Operation { name: String, kind: &'static str },
    #[error("the metric {name:?} has {wanted} labels, and {given} values were given")]
    Values {
        name: String,
        wanted: usize,
        given: usize,
    },
}

/// What `define` says.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::wasm) struct Definition {
    pub(in crate::wasm) kind: MetricKind,
    pub(in crate::wasm) name: String,
    pub(in crate::wasm) help: String,
    pub(in crate::wasm) labels: Vec<String>,
    /// Upper bounds, ascending, without infinity.
    pub(in crate::wasm) buckets: Vec<f64>,
}

impl Definition {
    /// The definition as it is kept, or why it cannot be.
    fn checked(mut self) -> Result<Self, BadMetric> {
        // Many write counters with the ending that the exposition adds.
        if self.kind == MetricKind::Counter
            && let Some(stem) = self.name.strip_suffix("_total")
        {
            self.name = stem.to_owned();
        }
        if !is_name(&self.name) {
            return Err(BadMetric::Name(tame(&self.name, NAME_BYTES_MAX)));
        }
        if let Some(ending) = ENDINGS.iter().find(|ending| {
            let stem = self.name.strip_suffix(**ending);
            stem.is_some_and(|stem| stem.is_empty() || stem.ends_with('_'))
        }) {
            return Err(BadMetric::Ending(self.name, ending));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(BadMetric::TooManyLabels(self.name));
        }
        for (n, label) in self.labels.iter().enumerate() {
            let reserved = label.starts_with("__") || OWN_LABELS.contains(&label.as_str());
            if !is_name(label) || reserved || self.labels[..n].contains(label) {
                return Err(BadMetric::Label(tame(label, NAME_BYTES_MAX)));
            }
        }
        if self.kind == MetricKind::Histogram {
            if self.buckets.last() == Some(&f64::INFINITY) {
                self.buckets.pop();
            }
            let ascends = self.buckets.windows(2).all(|pair| pair[0] < pair[1]);
            let finite = self.buckets.iter().all(|bound| bound.is_finite());
            if !(1..=BUCKETS_MAX).contains(&self.buckets.len()) || !ascends || !finite {
                return Err(BadMetric::Buckets(self.name));
            }
        } else {
            self.buckets.clear();
        }
        self.help = tame(&self.help, HELP_BYTES_MAX);
        Ok(self)
    }
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && !bytes[0].is_ascii_digit()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

// ---------------------------------------------------------------- the filter's

/// The metrics of one filter, shared by its instances. Their numbers are the order of their first definition.
#[derive(Debug, Default)]
pub struct FilterMetrics {
    metrics: Mutex<Vec<Arc<Metric>>>,
    /// What the filter had before a reload replaced it. A definition that did not change goes on counting.
    before: Vec<Arc<Metric>>,
}

#[derive(Debug)]
struct Metric {
    definition: Definition,
    series: Mutex<HashMap<Arc<[u8]>, Arc<Series>>>,
}

/// One set of label values.
#[derive(Debug)]
struct Series {
    /// The bits of an f64: the count, the gauge, or the sum of the observations.
    value: AtomicU64,
    /// Observations for each bucket alone; the last is that of infinity.
    buckets: Box<[AtomicU64]>,
}

/// Names of labels with their values.
pub type MetricLabels<'a> = Vec<(&'a str, String)>;

/// What a series came to.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricValue {
    Number(f64),
    /// Upper bounds, ending with infinity, with the count of each alone; and the sum.
    Histogram(Vec<(f64, u64)>, f64),
}

impl FilterMetrics {
    /// Those of a filter that takes the place of another: definitions that stay the same keep their counts.
    pub fn after(replaced: Option<&FilterMetrics>) -> Self {
        Self {
            metrics: Mutex::default(),
            before: replaced.map_or_else(Vec::new, |old| lock(&old.metrics).clone()),
        }
    }

    /// Visits each series: kind, name, help, labels, value.
    pub fn for_each(
        &self,
        mut visit: impl FnMut(MetricKind, &str, &str, &MetricLabels<'_>, MetricValue),
    ) {
        let metrics = lock(&self.metrics).clone();
        for metric in metrics {
            let definition = &metric.definition;
            let all: Vec<_> = lock(&metric.series)
                .iter()
                .map(|(key, series)| (key.clone(), series.clone()))
                .collect();
            for (key, series) in all {
                let names = definition.labels.iter().map(String::as_str);
                let labels = names.zip(values(&key)).collect();
                let (kind, name, help) = (definition.kind, &definition.name, &definition.help);
                visit(kind, name, help, &labels, series.read(definition));
            }
        }
    }

    fn define(&self, definition: Definition) -> Result<u32, BadMetric> {
        let definition = definition.checked()?;
        let mut metrics = lock(&self.metrics);
        let known = metrics
            .iter()
            .position(|metric| metric.definition.name == definition.name);
        if let Some(number) = known {
            return match metrics[number].definition == definition {
                true => Ok(number as u32),
                false => Err(BadMetric::Conflict(definition.name)),
            };
        }
        if metrics.len() >= METRICS_MAX {
            return Err(BadMetric::TooMany);
        }
        let before = self.before.iter().find(|m| m.definition == definition);
        let metric = before.cloned().unwrap_or_else(|| Metric::new(definition));
        metrics.push(metric);
        Ok(metrics.len() as u32 - 1)
    }

    fn metric(&self, number: u32) -> Option<Arc<Metric>> {
        lock(&self.metrics).get(number as usize).cloned()
    }
}

impl Metric {
    fn new(definition: Definition) -> Arc<Self> {
        let metric = Self {
            series: Mutex::default(),
            definition,
        };
        if metric.definition.labels.is_empty() {
            // Shown as 0 before it first counts.
            metric.series(&[]);
        }
        Arc::new(metric)
    }

    /// The series of these values, and with it whether it is theirs alone.
    fn series(&self, key: &[u8]) -> Option<(Arc<[u8]>, Arc<Series>)> {
        let mut series = lock(&self.series);
        if let Some((key, known)) = series.get_key_value(key) {
            return Some((key.clone(), known.clone()));
        }
        if series.len() >= SERIES_MAX {
            return None;
        }
        let (key, new) = (Arc::<[u8]>::from(key), Series::new(&self.definition));
        series.insert(key.clone(), new.clone());
        Some((key, new))
    }

    /// The series that counts for all sets of values beyond the most that are kept apart.
    fn other(&self) -> Arc<Series> {
        let mut key = Vec::new();
        for _ in &self.definition.labels {
            push_value(&mut key, OTHER);
        }
        let mut series = lock(&self.series);
        series
            .entry(key.into())
            .or_insert_with(|| Series::new(&self.definition))
            .clone()
    }
}

impl Series {
    fn new(definition: &Definition) -> Arc<Self> {
        let buckets = match definition.kind {
            MetricKind::Histogram => definition.buckets.len() + 1,
            MetricKind::Counter | MetricKind::Gauge => 0,
        };
        Arc::new(Self {
            value: AtomicU64::new(0f64.to_bits()),
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    fn add(&self, amount: f64) {
        let mut bits = self.value.load(Ordering::Relaxed);
        loop {
            let sum = (f64::from_bits(bits) + amount).to_bits();
            let swapped =
                self.value
                    .compare_exchange_weak(bits, sum, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return,
                Err(now) => bits = now,
            }
        }
    }

    fn read(&self, definition: &Definition) -> MetricValue {
        let value = f64::from_bits(self.value.load(Ordering::Relaxed));
        if definition.kind != MetricKind::Histogram {
            return MetricValue::Number(value);
        }
        let bounds = definition.buckets.iter().copied().chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|n| n.load(Ordering::Relaxed));
        MetricValue::Histogram(bounds.zip(counts).collect(), value)
    }
}

/// Values in a key: each a byte of length and its bytes.
fn push_value(key: &mut Vec<u8>, value: &str) {
    let cut = &value[..value.floor_char_boundary(VALUE_BYTES_MAX)];
    key.push(cut.len() as u8);
    key.extend_from_slice(cut.as_bytes());
}

fn values(key: &[u8]) -> impl Iterator<Item = String> {
    let mut rest = key;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (value, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---------------------------------------------------------------- one instance's

/// One instance's use of its filter's metrics.
pub(in crate::wasm) struct Metrics {
    filter: Arc<FilterMetrics>,
    /// By number; those it has not used yet are none.
    known: Vec<Option<Known>>,
    /// The key of the running call, kept for its allocation.
    key: Vec<u8>,
}

struct Known {
    metric: Arc<Metric>,
    /// At most [`SERIES_MAX`].
    series: HashMap<Arc<[u8]>, Arc<Series>>,
    /// The metric has as many series as it may, and all of them are in `series`: what is not there is counted here.
    other: Option<Arc<Series>>,
}

impl Metrics {
    pub(in crate::wasm) fn new(filter: Arc<FilterMetrics>) -> Self {
        Self {
            filter,
            known: Vec::new(),
            key: Vec::new(),
        }
    }

    /// The number of the metric, new or known.
    pub(in crate::wasm) fn define(&mut self, definition: Definition) -> Result<u32, BadMetric> {
        self.filter.define(definition)
    }

    /// Adds to a counter or a gauge. A counter ignores what is not finite or negative, a gauge what is not finite.
    pub(in crate::wasm) fn add<S: AsRef<str>>(
        &mut self,
        metric: u32,
        labels: &[S],
        amount: f64,
    ) -> Result<(), BadMetric> {
        let (definition, series) = self.series(metric, labels)?;
        match definition.kind {
            MetricKind::Counter if amount < 0.0 => {}
            MetricKind::Counter | MetricKind::Gauge if !amount.is_finite() => {}
            MetricKind::Counter | MetricKind::Gauge => series.add(amount),
            MetricKind::Histogram => return Err(unfit(definition)),
        }
        Ok(())
    }

    /// Sets a gauge; the last of all instances counts.
    pub(in crate::wasm) fn set<S: AsRef<str>>(
        &mut self,
        metric: u32,
        labels: &[S],
        value: f64,
    ) -> Result<(), BadMetric> {
        let (definition, series) = self.series(metric, labels)?;
        if definition.kind != MetricKind::Gauge {
            return Err(unfit(definition));
        }
        series.value.store(value.to_bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Counts an observation in a histogram; what is not finite is ignored.
    pub(in crate::wasm) fn observe<S: AsRef<str>>(
        &mut self,
        metric: u32,
        labels: &[S],
        value: f64,
    ) -> Result<(), BadMetric> {
        let (definition, series) = self.series(metric, labels)?;
        if definition.kind != MetricKind::Histogram {
            return Err(unfit(definition));
        }
        if value.is_finite() {
            let bucket = definition.buckets.partition_point(|bound| *bound < value);
            if let Some(count) = series.buckets.get(bucket) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            series.add(value);
        }
        Ok(())
    }

    fn series<S: AsRef<str>>(
        &mut self,
        number: u32,
        labels: &[S],
    ) -> Result<(&Definition, &Series), BadMetric> {
        let index = number as usize;
        if self.known.get(index).is_none_or(Option::is_none) {
            let metric = self.filter.metric(number);
            let metric = metric.ok_or(BadMetric::Unknown(number))?;
            if self.known.len() <= index {
                self.known.resize_with(index + 1, || None);
            }
            self.known[index] = Some(Known {
                metric,
                series: HashMap::new(),
                other: None,
            });
        }
        let Some(Some(known)) = self.known.get_mut(index) else {
            return Err(BadMetric::Unknown(number));
        };
        let definition = &known.metric.definition;
        if labels.len() != definition.labels.len() {
            return Err(BadMetric::Values {
                name: definition.name.clone(),
                wanted: definition.labels.len(),
                given: labels.len(),
            });
        }
        self.key.clear();
        for label in labels {
            push_value(&mut self.key, label.as_ref());
        }
        if known.other.is_none() && !known.series.contains_key(&*self.key) {
            known.meet(&self.key);
        }
        let definition = &known.metric.definition;
        let series = known.series.get(&*self.key).or(known.other.as_ref());
        // One of the two is there after `meet`.
        let series = series.ok_or(BadMetric::Unknown(number))?;
        Ok((definition, series))
    }
}

impl Known {
    fn meet(&mut self, key: &[u8]) {
        match self.metric.series(key) {
            Some((key, series)) => {
                self.series.insert(key, series);
            }
            None => {
                self.other = Some(self.metric.other());
                self.series = lock(&self.metric.series).clone();
            }
        }
    }
}

fn unfit(definition: &Definition) -> BadMetric {
    BadMetric::Operation {
        name: definition.name.clone(),
        kind: definition.kind.as_str(),
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
