//! Metrics as text: samples are collected by family from everyone who has some, then written in OpenMetrics form.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

/// Collects samples. Two samples of one family with the same labels are added up, so that an old and a new generation
/// may both report while one drains; a text never has a series twice, which readers would refuse as a whole.
#[derive(Debug, Default)]
pub struct Visitor {
    families: BTreeMap<Cow<'static, str>, Family>,
}

/// Counters of one endpoint, as the pool's room keeps them.
#[derive(Debug, Clone, Default)]
pub struct EndpointSample {
    pub requests: u64,
    pub connects: u64,
    pub connect_failures: u64,
    pub failures: u64,
    pub active: u64,
    /// Usable, as checks, passive failures and the operator see it.
    pub up: bool,
    /// Times it went out of use.
    pub downs: u64,
    /// HTTP/2 connections to it that this side ended with GOAWAY, by reason.
    pub goaways: [(&'static str, u64); 2],
    /// Probes that passed, and that failed.
    pub probes: (u64, u64),
    /// Since when it is up or not, in seconds since 1970.
    pub since: f64,
}

/// A pool as a whole, as its room keeps it.
#[derive(Debug, Clone, Default)]
pub struct PoolSample {
    pub endpoints: u64,
    /// Of these, those that may be used.
    pub healthy: u64,
    /// Host names without an address now.
    pub unresolved: u64,
    /// Times a name's addresses were dropped because it has none any more.
    pub names_gone: u64,
}

/// What a filter did, as its room keeps it.
#[derive(Debug, Clone, Default)]
pub struct FilterSample {
    pub calls: u64,
    /// Time spent in calls.
    pub seconds: f64,
    /// Verdicts by kind.
    pub verdicts: Vec<(&'static str, u64)>,
    /// Failed calls by kind.
    pub faults: Vec<(&'static str, u64)>,
    /// Times it was left alone and its policy applied, by kind.
    pub uncalled: Vec<(&'static str, u64)>,
    /// Workers that leave it alone now because it failed for everybody.
    pub suspended: u64,
    /// Instances alive.
    pub instances: u64,
    /// Name and SHA-256 of its module.
    pub module: (String, String),
}

/// The store of a filter, as its room keeps it.
#[derive(Debug, Clone, Default)]
pub struct StoreSample {
    /// Else what it holds is not known here.
    pub in_memory: bool,
    pub entries: u64,
    pub bytes: u64,
    pub evictions: u64,
    /// Operations by kind and result, those that there were.
    pub operations: Vec<(&'static str, &'static str, u64)>,
}

/// A value of a metric that a filter defined.
#[derive(Debug, Clone)]
pub enum FilterValue {
    Counter(f64),
    Gauge(f64),
    /// Upper bounds, ascending and ending with infinity, with the count of each alone; and the sum.
    Histogram(Vec<(f64, u64)>, f64),
}

#[derive(Debug)]
struct Family {
    help: Cow<'static, str>,
    samples: BTreeMap<Labels, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels(Vec<(Cow<'static, str>, String)>);

#[derive(Debug, Clone)]
enum Value {
    Counter(u64),
    /// A counter of seconds, or of what else comes in fractions.
    Seconds(f64),
    Gauge(f64),
    Info,
    /// Upper bounds with their own (not cumulated) counts, and the sum.
    Histogram(Vec<(f64, u64)>, f64),
}

impl Visitor {
    /// `name` without `_total`, which the text adds. `labels` must be bounded: listener, pool, endpoint, filter, code
    /// class and the like, never anything a client chooses.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        self.add(name, help, labels, Value::Counter(value));
    }

    /// A counter of seconds; `name` ends in `_seconds`.
    pub fn seconds(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(name, help, labels, Value::Seconds(value));
    }

    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(name, help, labels, Value::Gauge(value));
    }

    /// Facts as labels; `name` without `_info`, which the text adds.
    pub fn info(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) {
        self.add(name, help, labels, Value::Info);
    }

    /// `buckets` are upper bounds, ascending and ending with infinity, with the count of each alone.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        buckets: Vec<(f64, u64)>,
        sum: f64,
    ) {
        self.add(name, help, labels, Value::Histogram(buckets, sum));
    }

    /// Adds how many generations of the configuration are in use.
    pub fn generations(&mut self, count: u64) {
        self.gauge(
            "sluicegate_config_generations",
            "Generations of the configuration in use: the one that serves, and those whose exchanges have not ended",
            &[],
            count as f64,
        );
    }

    /// Every family about endpoints, so that their names are in one place.
    pub fn endpoint(&mut self, pool: &str, endpoint: &str, sample: &EndpointSample) {
        let labels = &[("pool", pool), ("endpoint", endpoint)];
        for (name, help, value) in [
            (
                "sluicegate_endpoint_requests",
                "Tries sent to the endpoint: requests and sessions",
                sample.requests,
            ),
            (
                "sluicegate_endpoint_connects",
                "Connections opened to the endpoint",
                sample.connects,
            ),
            (
                "sluicegate_endpoint_connect_failures",
                "Connections to the endpoint that could not be opened",
                sample.connect_failures,
            ),
            (
                "sluicegate_endpoint_failures",
                "Tries that the endpoint failed",
                sample.failures,
            ),
            (
                "sluicegate_endpoint_downs",
                "Times the endpoint went out of use, by its checks or by failures of traffic",
                sample.downs,
            ),
        ] {
            self.counter(name, help, labels, value);
        }
        for (result, count) in [("passed", sample.probes.0), ("failed", sample.probes.1)] {
            self.counter(
                "sluicegate_endpoint_probes",
                "Probes of the endpoint by checks",
                &[("pool", pool), ("endpoint", endpoint), ("result", result)],
                count,
            );
        }
        for (reason, count) in sample.goaways {
            // Most never happen: a series begins with its first count.
            if count > 0 {
                self.counter(
                    "sluicegate_endpoint_http2_goaways",
                    "HTTP/2 connections to the endpoint that this side ended with GOAWAY, by reason",
                    &[("pool", pool), ("endpoint", endpoint), ("reason", reason)],
                    count,
                );
            }
        }
        self.gauge(
            "sluicegate_endpoint_since_timestamp_seconds",
            "Since when the endpoint has been up, or not, in seconds since 1970",
            labels,
            sample.since,
        );
        self.gauge(
            "sluicegate_endpoint_active",
            "Exchanges and sessions running on the endpoint",
            labels,
            sample.active as f64,
        );
        self.gauge(
            "sluicegate_endpoint_up",
            "Whether the endpoint may be used",
            labels,
            f64::from(u8::from(sample.up)),
        );
    }

    /// Every family about pools as a whole.
    pub fn pool(&mut self, pool: &str, sample: &PoolSample) {
        let only = &[("pool", pool)];
        for (name, help, value) in [
            (
                "sluicegate_pool_endpoints",
                "Endpoints of the pool",
                sample.endpoints,
            ),
            (
                "sluicegate_pool_healthy_endpoints",
                "Endpoints of the pool that may be used",
                sample.healthy,
            ),
            (
                "sluicegate_pool_unresolved_names",
                "Host names of the pool that have no address",
                sample.unresolved,
            ),
        ] {
            self.gauge(name, help, only, value as f64);
        }
        self.counter(
            "sluicegate_pool_names_gone",
            "Times the addresses of a host name were dropped because it has none any more",
            only,
            sample.names_gone,
        );
    }

    /// Every family about filters.
    pub fn filter(&mut self, filter: &str, sample: &FilterSample) {
        let only = &[("filter", filter)];
        self.counter(
            "sluicegate_filter_calls",
            "Calls into the filter",
            only,
            sample.calls,
        );
        let help = "Time spent in calls into the filter";
        self.seconds("sluicegate_filter_seconds", help, only, sample.seconds);
        for &(verdict, count) in &sample.verdicts {
            let labels = &[("filter", filter), ("verdict", verdict)];
            self.counter(
                "sluicegate_filter_verdicts",
                "What the filter answered",
                labels,
                count,
            );
        }
        for &(kind, count) in &sample.faults {
            let labels = &[("filter", filter), ("kind", kind)];
            self.counter(
                "sluicegate_filter_faults",
                "Calls that failed",
                labels,
                count,
            );
        }
        for &(kind, count) in &sample.uncalled {
            let labels = &[("filter", filter), ("kind", kind)];
            self.counter(
                "sluicegate_filter_uncalled",
                "Times the filter was skipped and its policy applied without a call",
                labels,
                count,
            );
        }
        self.gauge(
            "sluicegate_filter_suspended",
            "Workers that leave the filter alone for a while because it failed for everybody",
            only,
            sample.suspended as f64,
        );
        self.gauge(
            "sluicegate_filter_instances",
            "Instances of the filter that are alive",
            only,
            sample.instances as f64,
        );
        let (module, sha256) = &sample.module;
        let labels = &[("filter", filter), ("module", module), ("sha256", sha256)];
        self.info("sluicegate_filter", "The module of the filter", labels);
    }

    /// Every family about the store of a filter, once the filter has used it.
    pub fn store(&mut self, filter: &str, sample: &StoreSample) {
        if sample.operations.is_empty() {
            return;
        }
        let only = &[("filter", filter)];
        if sample.in_memory {
            let help = "Entries in the filter's store in memory";
            self.gauge(
                "sluicegate_store_entries",
                help,
                only,
                sample.entries as f64,
            );
            let help = "What the filter's store in memory takes";
            self.gauge("sluicegate_store_bytes", help, only, sample.bytes as f64);
            self.counter(
                "sluicegate_store_evictions",
                "Entries that made room for others before their time",
                only,
                sample.evictions,
            );
        }
        for &(operation, result, count) in &sample.operations {
            self.counter(
                "sluicegate_store_operations",
                "Operations on the filter's store",
                &[
                    ("filter", filter),
                    ("operation", operation),
                    ("result", result),
                ],
                count,
            );
        }
    }

    /// One series of a metric that a filter defined itself. `name` and the names of labels are checked; several filters
    /// may come to one family, which the label `filter` keeps apart. The sample is left out when the family is of another
    /// type.
    pub fn filter_metric(
        &mut self,
        filter: &str,
        (name, help): (&str, &str),
        labels: &[(&str, String)],
        value: FilterValue,
    ) {
        let family = format!("sluicegate_filter_{}_{name}", metric_name(filter));
        // The writer of the text takes the help as it stands.
        let help = help.replace('\\', "\\\\").replace('"', "\\\"");
        let mut all = vec![(Cow::Borrowed("filter"), filter.to_owned())];
        let own = labels.iter();
        all.extend(own.map(|(name, value)| (Cow::Owned((*name).to_owned()), value.clone())));
        let value = match value {
            FilterValue::Counter(n) => Value::Seconds(n),
            FilterValue::Gauge(n) => Value::Gauge(n),
            FilterValue::Histogram(buckets, sum) => Value::Histogram(buckets, sum),
        };
        self.put(family.into(), help.into(), Labels(all), value);
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: Value,
    ) {
        let labels = labels.iter();
        let labels = labels.map(|&(name, value)| (name.into(), value.to_owned()));
        let fits = self.put(name.into(), help.into(), Labels(labels.collect()), value);
        debug_assert!(fits, "family {name} has samples of two types");
    }

    /// False when the family is of another type: one family has one type, and a sample of another would break the text.
    fn put(
        &mut self,
        name: Cow<'static, str>,
        help: Cow<'static, str>,
        labels: Labels,
        value: Value,
    ) -> bool {
        let family = self.families.entry(name).or_insert_with(|| Family {
            help,
            samples: BTreeMap::new(),
        });
        if let Some(first) = family.samples.values().next()
            && !first.is_like(&value)
        {
            return false;
        }
        match family.samples.entry(labels) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(value)),
            std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().merge(value),
        }
        true
    }
}

/// The name of a filter as part of a metric's: what is no letter, digit or `_` becomes `_`, so that `a/b-c` is `a_b_c`.
fn metric_name(filter: &str) -> String {
    let part = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c,
        _ => '_',
    };
    filter.chars().map(part).collect()
}

impl Value {
    /// Of the same type, so that both can be in one family.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn merge(&mut self, other: Value) {
        match (self, other) {
            (Value::Counter(a), Value::Counter(b)) => *a = a.wrapping_add(b),
            (Value::Seconds(a), Value::Seconds(b)) | (Value::Gauge(a), Value::Gauge(b)) => *a += b,
            (Value::Histogram(a, sum), Value::Histogram(b, more)) => {
                for ((_, count), (_, n)) in a.iter_mut().zip(b) {
                    *count += n;
                }
                *sum += more;
            }
            _ => {}
        }
    }

    fn encode(&self, labels: &Labels, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        let no_exemplar = None::<&Exemplar<NoLabelSet, f64>>;
        match self {
            Value::Counter(n) => metric.encode_counter(n, no_exemplar),
            Value::Seconds(n) => metric.encode_counter(n, no_exemplar),
            Value::Gauge(n) => metric.encode_gauge(n),
            Value::Info => metric.encode_info(labels),
            Value::Histogram(buckets, sum) => {
                let count = buckets.iter().map(|(_, n)| n).sum();
                metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
        }
    }

    fn kind(&self) -> MetricType {
        match self {
            Value::Counter(_) | Value::Seconds(_) => MetricType::Counter,
            Value::Gauge(_) => MetricType::Gauge,
            Value::Info => MetricType::Info,
            Value::Histogram(..) => MetricType::Histogram,
        }
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        for (name, value) in &self.0 {
            (name.as_ref(), value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// Asks whoever has samples, on each scrape, and hands them to the encoder.
pub struct Scrape<F>(pub F);

impl<F> fmt::Debug for Scrape<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl<F: Fn(&mut Visitor) + Send + Sync + 'static> Collector for Scrape<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut visitor = Visitor::default();
        (self.0)(&mut visitor);
        for (name, family) in &visitor.families {
            let Some(kind) = family.samples.values().next().map(Value::kind) else {
                continue;
            };
            let mut metric = encoder.encode_descriptor(name, &family.help, None, kind)?;
            for (labels, value) in &family.samples {
                if labels.0.is_empty() || matches!(value, Value::Info) {
                    value.encode(labels, &mut metric)?;
                } else {
                    value.encode(labels, &mut metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition_format::{Exposition, to_text};
    use super::*;
    use prometheus_client::registry::Registry;

    fn text(collect: impl Fn(&mut Visitor) + Send + Sync + 'static) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(collect)));
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &registry).expect("encode");
        out
    }

    #[test]
    fn families_are_whole_sorted_and_escaped() {
        let out = text(|v| {
            v.counter("b", "Bees", &[("x", "2")], 2);
            v.gauge("a", "Ays", &[], 1.5);
            v.counter("b", "Bees", &[("x", "1\"\n")], 1);
            v.counter("b", "Bees", &[("x", "2")], 3);
            v.info("build", "Build", &[("version", "1")]);
        });
        assert_eq!(
            out,
            "# HELP a Ays\n# TYPE a gauge\na 1.5\n\
             # HELP b Bees\n# TYPE b counter\nb_total{x=\"1\\\"\\n\"} 1\nb_total{x=\"2\"} 5\n\
             # HELP build Build\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n"
        );
    }

    #[test]
    fn a_client_gets_the_format_that_it_prefers() {
        use Exposition::{OpenMetrics, Text};
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (None, OpenMetrics),
            (Some("*/*"), Text),
            (Some("text/plain"), Text),
            (Some("Text/Plain; version=0.0.4"), Text),
            (Some(prometheus), OpenMetrics),
            (Some("application/openmetrics-text"), OpenMetrics),
            (
                Some("application/openmetrics-text;q=0.3, text/plain;q=0.8"),
                Text,
            ),
            (Some("application/openmetrics-text; q=0, */*"), Text),
            (Some("application/openmetrics-text; Q=x"), Text),
            (Some(""), Text),
        ] {
            assert_eq!(Exposition::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_older_text_names_families_by_their_samples() {
        let out = to_text(&text(|v| {
            v.counter("b", "Bees", &[("x", "1")], 1);
            v.info("build", "Build", &[("version", "1")]);
            v.filter_metric("f", ("g", "\"Gs\""), &[], FilterValue::Gauge(1.0));
        }));
        assert_eq!(
            out,
            "# HELP b_total Bees\n# TYPE b_total counter\nb_total{x=\"1\"} 1\n\
             # HELP build_info Build\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
             # HELP sluicegate_filter_f_g \"Gs\"\n# TYPE sluicegate_filter_f_g gauge\n\
             sluicegate_filter_f_g{filter=\"f\"} 1.0\n"
        );
    }

    #[test]
    fn histograms_cumulate() {
        let out = text(|v| {
            for _ in 0..2 {
                let buckets = vec![(0.5, 1), (1.0, 0), (f64::INFINITY, 2)];
                v.histogram("h_seconds", "Time", &[("listener", "web")], buckets, 4.25);
            }
        });
        for line in [
            "h_seconds_sum{listener=\"web\"} 8.5",
            "h_seconds_count{listener=\"web\"} 6",
            "h_seconds_bucket{le=\"0.5\",listener=\"web\"} 2",
            "h_seconds_bucket{le=\"1.0\",listener=\"web\"} 2",
            "h_seconds_bucket{le=\"+Inf\",listener=\"web\"} 6",
        ] {
            assert!(out.lines().any(|l| l == line), "{line} in {out}");
        }
    }

    #[test]
    fn endpoints_and_filters() {
        let out = text(|v| {
            let sample = EndpointSample {
                requests: 7,
                up: true,
                ..EndpointSample::default()
            };
            v.endpoint("web", "10.0.0.1:80", &sample);
            let sample = FilterSample {
                calls: 3,
                verdicts: vec![("drop", 2)],
                faults: vec![("trap", 1)],
                uncalled: vec![("backoff", 4)],
                suspended: 1,
                instances: 3,
                module: ("builtin:ua-block".to_owned(), "ab".to_owned()),
                ..FilterSample::default()
            };
            v.filter("ua", &sample);
        });
        let labels = "{pool=\"web\",endpoint=\"10.0.0.1:80\"}";
        assert!(
            out.contains(&format!("sluicegate_endpoint_requests_total{labels} 7\n")),
            "{out}"
        );
        assert!(
            out.contains(&format!("sluicegate_endpoint_up{labels} 1.0\n")),
            "{out}"
        );
        for line in [
            "sluicegate_filter_calls_total{filter=\"ua\"} 3",
            "sluicegate_filter_verdicts_total{filter=\"ua\",verdict=\"drop\"} 2",
            "sluicegate_filter_faults_total{filter=\"ua\",kind=\"trap\"} 1",
            "sluicegate_filter_uncalled_total{filter=\"ua\",kind=\"backoff\"} 4",
            "sluicegate_filter_suspended{filter=\"ua\"} 1.0",
            "sluicegate_filter_instances{filter=\"ua\"} 3.0",
            "sluicegate_filter_info{filter=\"ua\",module=\"builtin:ua-block\",sha256=\"ab\"} 1",
        ] {
            assert!(out.lines().any(|l| l == line), "{line} in {out}");
        }
    }
}
