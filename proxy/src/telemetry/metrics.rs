//! The metrics of the process: handles that workers count with, values pulled from other rooms, and one text of all.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;

use super::exposition::{Scrape, Visitor};
use super::process;
use super::shards::{Shard, Shards};
use crate::error::Reason;

/// Upper bounds of request durations in microseconds; one more bucket takes what is longer.
const DURATION_BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
/// `none` is an exchange that was answered nothing; `other` a status over 599.
const CODE_CLASSES: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];
const HANDSHAKES: [&str; 3] = ["full", "resumed", "failed"];
const VERDICTS: [&str; 5] = ["next", "edit", "reply", "drop", "reset"];
/// Kinds of faults that are told apart; what else a caller names counts as `other`.
const FAULTS: [&str; 8] = [
    "trap", "deadline", "memory", "output", "invalid", "poisoned", "busy", "other",
];

// Where each counter of a listener lies. What is counted later in a life has the higher index (see `Cells::add_to`).
const ACCEPTED: usize = 0;
const EXCHANGES: usize = 1;
const SESSIONS: usize = 2;
const SESSIONS_ENDED: usize = 3;
const BYTES_IN: usize = 4;
const BYTES_OUT: usize = 5;
const DURATION_US: usize = 6;
const HANDSHAKE: usize = 7;
const REASON: usize = HANDSHAKE + HANDSHAKES.len();
const BUCKET: usize = REASON + Reason::ALL.len();
const CODE: usize = BUCKET + DURATION_BOUNDS_US.len() + 1;
const CLOSED: usize = CODE + CODE_CLASSES.len();
const LISTENER_CELLS: usize = CLOSED + 1;

// Where each counter of a filter lies.
const CALLS: usize = 0;
const TIME_NS: usize = 1;
const VERDICT: usize = 2;
const FAULT: usize = VERDICT + VERDICTS.len();
const FILTER_CELLS: usize = FAULT + FAULTS.len();

/// All metrics of one process. Shared by its threads; workers count through handles of their own.
pub struct Metrics {
    listeners: Arc<Shards<LISTENER_CELLS>>,
    filters: Arc<Shards<FILTER_CELLS>>,
    reloads: Arc<Reloads>,
    sources: Arc<Mutex<Vec<Source>>>,
    access_log_dropped: Arc<AtomicU64>,
    registry: Registry,
}

/// Adds the samples of a room that keeps its own counters. Called on the thread that serves the scrape.
type Source = Box<dyn Fn(&mut Visitor) + Send + Sync>;

#[derive(Debug, Default)]
struct Reloads {
    generation: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_successful: AtomicU64,
    last_ms: AtomicU64,
}

/// A worker's counters of one listener. One per worker and listener; not shared between threads.
#[derive(Debug)]
pub struct ListenerMetrics(Shard<LISTENER_CELLS>);

/// A worker's counters of one filter. One per worker and filter; not shared between threads.
#[derive(Debug)]
pub struct FilterMetrics(Shard<FILTER_CELLS>);

/// How a TLS handshake with a client ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    Full,
    Resumed,
    Failed,
}

/// What a filter answered, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Next,
    Edit,
    Reply,
    Drop,
    Reset,
}

impl Metrics {
    /// `version` is the build's.
    pub fn new(version: &'static str) -> Self {
        let listeners = Shards::new();
        let filters = Shards::new();
        let reloads = Arc::new(Reloads::default());
        let sources = Arc::new(Mutex::new(Vec::<Source>::new()));
        let access_log_dropped = Arc::new(AtomicU64::new(0));
        let started = SystemTime::now();

        let mut registry = Registry::default();
        let collect = {
            let (listeners, filters) = (listeners.clone(), filters.clone());
            let (reloads, sources) = (reloads.clone(), sources.clone());
            let dropped = access_log_dropped.clone();
            move |visitor: &mut Visitor| {
                listeners.for_each(|name, sums| visit_listener(visitor, name, sums));
                filters.for_each(|name, sums| visit_filter(visitor, name, sums));
                reloads.visit(visitor);
                visitor.info(
                    "sluicegate_build",
                    "The build that runs",
                    &[("version", version)],
                );
                visitor.counter(
                    "sluicegate_access_log_dropped",
                    "Access log lines lost because they could not be written in time",
                    &[],
                    dropped.load(Ordering::Relaxed),
                );
                process::visit(visitor, started);
                for source in lock(&sources).iter() {
                    source(visitor);
                }
            }
        };
        registry.register_collector(Box::new(Scrape(collect)));
        Self {
            listeners,
            filters,
            reloads,
            sources,
            access_log_dropped,
            registry,
        }
    }

    /// A worker's counters of the listener `name`. The counts of a name survive the handles and reloads; a listener that
    /// is gone keeps its series until the process ends, at most 1024 names.
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics(self.listeners.shard(name))
    }

    /// A worker's counters of the filter `name`; they survive as those of listeners do.
    pub fn filter(&self, name: &str) -> FilterMetrics {
        FilterMetrics(self.filters.shard(name))
    }

    /// Asks `source` for its samples at every scrape, for as long as the process lives.
    pub fn register(&self, source: Box<dyn Fn(&mut Visitor) + Send + Sync>) {
        lock(&self.sources).push(source);
    }

    /// A generation serves now: the first, or that of a reload that succeeded.
    pub fn generation_serves(&self, generation: u64) {
        let reloads = &self.reloads;
        reloads.generation.store(generation, Ordering::Relaxed);
        reloads.succeeded.fetch_add(1, Ordering::Relaxed);
        reloads.ended(true);
    }

    /// A reload failed and the old generation goes on.
    pub fn reload_failed(&self) {
        self.reloads.failed.fetch_add(1, Ordering::Relaxed);
        self.reloads.ended(false);
    }

    /// What [`super::AccessLog::open`] counts lost lines in.
    pub fn access_log_dropped(&self) -> Arc<AtomicU64> {
        self.access_log_dropped.clone()
    }

    /// Everything as OpenMetrics text (see [`Metrics::CONTENT_TYPE`]).
    pub fn expose(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String does not fail, and samples write nothing else.
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            tracing::error!("the metrics could not be written");
        }
        text
    }

    /// The media type of [`Metrics::expose`].
    pub const CONTENT_TYPE: &'static str = super::exposition::CONTENT_TYPE;
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl ListenerMetrics {
    pub fn name(&self) -> &str {
        self.0.name()
    }

    pub fn connection_opened(&self) {
        self.0.add(ACCEPTED, 1);
    }

    pub fn connection_closed(&self) {
        self.0.add(CLOSED, 1);
    }

    pub fn handshake(&self, how: Handshake) {
        self.0.add(HANDSHAKE + how as usize, 1);
    }

    /// An exchange began; [`ListenerMetrics::request`] ends it, exactly once.
    pub fn exchange_started(&self) {
        self.0.add(EXCHANGES, 1);
    }

    /// An exchange ended. `status` is what the client was sent: 499 when it went away, 0 when it was answered nothing.
    pub fn request(&self, status: u16, duration: Duration, bytes_in: u64, bytes_out: u64) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.add(BYTES_IN, bytes_in);
        self.0.add(BYTES_OUT, bytes_out);
        self.0.add(DURATION_US, us);
        self.0
            .add(BUCKET + DURATION_BOUNDS_US.partition_point(|&b| b < us), 1);
        let class = usize::from(status / 100).min(CODE_CLASSES.len() - 1);
        self.0.add(CODE + class, 1);
    }

    /// Why an exchange or session ended as it did, when there is a reason.
    pub fn reason(&self, reason: Reason) {
        self.0.add(REASON + reason as usize, 1);
    }

    /// A session began; [`ListenerMetrics::session_ended`] ends it, exactly once.
    pub fn session_started(&self) {
        self.0.add(SESSIONS, 1);
    }

    pub fn session_ended(&self, bytes_in: u64, bytes_out: u64) {
        self.0.add(BYTES_IN, bytes_in);
        self.0.add(BYTES_OUT, bytes_out);
        self.0.add(SESSIONS_ENDED, 1);
    }
}

impl FilterMetrics {
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// One call of a phase that was answered.
    pub fn call(&self, time: Duration, verdict: Verdict) {
        self.time(time);
        self.0.add(VERDICT + verdict as usize, 1);
    }

    /// One call that failed; `kind` is a word of the fault's own, such as `trap`, `deadline`, `memory`, `output` or
    /// `invalid`; words that are not known here count as `other`.
    pub fn fault(&self, time: Duration, kind: &str) {
        self.time(time);
        let kind = FAULTS.iter().position(|&k| k == kind);
        self.0.add(FAULT + kind.unwrap_or(FAULTS.len() - 1), 1);
    }

    fn time(&self, time: Duration) {
        self.0.add(CALLS, 1);
        self.0
            .add(TIME_NS, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Reloads {
    fn ended(&self, successful: bool) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
        self.last_successful
            .store(successful.into(), Ordering::Relaxed);
    }

    fn visit(&self, visitor: &mut Visitor) {
        let value = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        visitor.gauge(
            "sluicegate_config_generation",
            "The generation that serves",
            &[],
            value(&self.generation) as f64,
        );
        visitor.gauge(
            "sluicegate_config_last_reload_successful",
            "Whether the last load of the configuration succeeded",
            &[],
            value(&self.last_successful) as f64,
        );
        visitor.gauge(
            "sluicegate_config_last_reload_timestamp_seconds",
            "When the configuration was last loaded, successfully or not, in seconds since 1970",
            &[],
            value(&self.last_ms) as f64 / 1000.0,
        );
        for (result, count) in [("ok", &self.succeeded), ("failed", &self.failed)] {
            visitor.counter(
                "sluicegate_config_reloads",
                "Loads of the configuration, the first included",
                &[("result", result)],
                value(count),
            );
        }
    }
}

fn visit_listener(visitor: &mut Visitor, listener: &str, sums: &[u64; LISTENER_CELLS]) {
    let only = &[("listener", listener)];
    let codes = &sums[CODE..CLOSED];
    let ended: u64 = codes.iter().sum();
    for (name, help, value) in [
        (
            "sluicegate_connections_accepted",
            "Client connections accepted",
            sums[ACCEPTED],
        ),
        ("sluicegate_sessions", "Sessions begun", sums[SESSIONS]),
        (
            "sluicegate_received_bytes",
            "Bytes of bodies and streams read from clients",
            sums[BYTES_IN],
        ),
        (
            "sluicegate_sent_bytes",
            "Bytes of bodies and streams written to clients",
            sums[BYTES_OUT],
        ),
    ] {
        visitor.counter(name, help, only, value);
    }
    for (name, help, begun, ended) in [
        (
            "sluicegate_connections_active",
            "Client connections open now",
            sums[ACCEPTED],
            sums[CLOSED],
        ),
        (
            "sluicegate_exchanges_active",
            "Exchanges running now",
            sums[EXCHANGES],
            ended,
        ),
        (
            "sluicegate_sessions_active",
            "Sessions running now",
            sums[SESSIONS],
            sums[SESSIONS_ENDED],
        ),
    ] {
        visitor.gauge(name, help, only, begun.saturating_sub(ended) as f64);
    }
    for (result, &count) in HANDSHAKES.iter().zip(&sums[HANDSHAKE..REASON]) {
        visitor.counter(
            "sluicegate_tls_handshakes",
            "TLS handshakes with clients",
            &[("listener", listener), ("result", result)],
            count,
        );
    }
    for (&code, &count) in CODE_CLASSES.iter().zip(codes) {
        visitor.counter(
            "sluicegate_requests",
            "Exchanges ended, by class of the status the client got",
            &[("listener", listener), ("code", code)],
            count,
        );
    }
    for (&reason, &count) in Reason::ALL.iter().zip(&sums[REASON..BUCKET]) {
        // Most never happen: a series begins with its first count.
        if count > 0 {
            visitor.counter(
                "sluicegate_endings",
                "Exchanges, sessions and handshakes that ended for a reason of their own: failures, and filters that \
                 replied, dropped or reset",
                &[("listener", listener), ("reason", reason.as_str())],
                count,
            );
        }
    }
    let bounds = DURATION_BOUNDS_US.iter().map(|&us| us as f64 / 1e6);
    let buckets = bounds
        .chain([f64::INFINITY])
        .zip(sums[BUCKET..CODE].iter().copied())
        .collect();
    visitor.histogram(
        "sluicegate_request_duration_seconds",
        "From the first byte of a request to the end of its response",
        only,
        buckets,
        sums[DURATION_US] as f64 / 1e6,
    );
}

fn visit_filter(visitor: &mut Visitor, filter: &str, sums: &[u64; FILTER_CELLS]) {
    let only = &[("filter", filter)];
    visitor.counter(
        "sluicegate_filter_calls",
        "Calls into the filter",
        only,
        sums[CALLS],
    );
    visitor.seconds(
        "sluicegate_filter_seconds",
        "Time spent in calls into the filter",
        only,
        sums[TIME_NS] as f64 / 1e9,
    );
    for (&verdict, &count) in VERDICTS.iter().zip(&sums[VERDICT..FAULT]) {
        visitor.counter(
            "sluicegate_filter_verdicts",
            "What the filter answered",
            &[("filter", filter), ("verdict", verdict)],
            count,
        );
    }
    for (&kind, &count) in FAULTS.iter().zip(&sums[FAULT..]) {
        visitor.counter(
            "sluicegate_filter_faults",
            "Calls that failed",
            &[("filter", filter), ("kind", kind)],
            count,
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.expose();
        assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
    }

    #[test]
    fn every_reason_has_its_own_cell() {
        for (i, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, i, "{reason}");
        }
    }

    #[test]
    fn requests() {
        let metrics = Metrics::new("1.2.3");
        let (a, b) = (metrics.listener("web"), metrics.listener("web"));
        a.connection_opened();
        b.connection_opened();
        b.connection_closed();
        a.handshake(Handshake::Resumed);
        for status in [200, 204, 499, 0, 999] {
            a.exchange_started();
            a.request(status, Duration::from_millis(1), 1, 10);
        }
        b.exchange_started();
        b.reason(Reason::ClientGone);
        has(
            &metrics,
            "sluicegate_connections_accepted_total{listener=\"web\"} 2",
        );
        has(
            &metrics,
            "sluicegate_connections_active{listener=\"web\"} 1.0",
        );
        has(
            &metrics,
            "sluicegate_exchanges_active{listener=\"web\"} 1.0",
        );
        for (code, count) in [
            ("none", 1),
            ("2xx", 2),
            ("4xx", 1),
            ("5xx", 0),
            ("other", 1),
        ] {
            has(
                &metrics,
                &format!("sluicegate_requests_total{{listener=\"web\",code=\"{code}\"}} {count}"),
            );
        }
        has(&metrics, "sluicegate_sent_bytes_total{listener=\"web\"} 50");
        has(
            &metrics,
            "sluicegate_endings_total{listener=\"web\",reason=\"client-gone\"} 1",
        );
        has(
            &metrics,
            "sluicegate_tls_handshakes_total{listener=\"web\",result=\"resumed\"} 1",
        );
        has(
            &metrics,
            "sluicegate_request_duration_seconds_count{listener=\"web\"} 5",
        );
        has(
            &metrics,
            "sluicegate_request_duration_seconds_bucket{le=\"0.0005\",listener=\"web\"} 0",
        );
        has(
            &metrics,
            "sluicegate_request_duration_seconds_bucket{le=\"0.001\",listener=\"web\"} 5",
        );
        has(&metrics, "sluicegate_build_info{version=\"1.2.3\"} 1");
        drop((a, b));
        has(
            &metrics,
            "sluicegate_connections_accepted_total{listener=\"web\"} 2",
        );
    }

    #[test]
    fn sessions_filters_reloads_and_sources() {
        let metrics = Metrics::new("0");
        let listener = metrics.listener("ssh");
        listener.session_started();
        listener.session_started();
        listener.session_ended(5, 7);
        let filter = metrics.filter("ua");
        filter.call(Duration::from_millis(500), Verdict::Drop);
        filter.fault(Duration::ZERO, "trap");
        filter.fault(Duration::ZERO, "something new");
        metrics.generation_serves(7);
        metrics.reload_failed();
        metrics.register(Box::new(|v| v.gauge("sluicegate_x", "X", &[], 3.0)));
        metrics.access_log_dropped().store(4, Ordering::Relaxed);
        for line in [
            "sluicegate_sessions_active{listener=\"ssh\"} 1.0",
            "sluicegate_received_bytes_total{listener=\"ssh\"} 5",
            "sluicegate_filter_calls_total{filter=\"ua\"} 3",
            "sluicegate_filter_seconds_total{filter=\"ua\"} 0.5",
            "sluicegate_filter_verdicts_total{filter=\"ua\",verdict=\"drop\"} 1",
            "sluicegate_filter_faults_total{filter=\"ua\",kind=\"trap\"} 1",
            "sluicegate_filter_faults_total{filter=\"ua\",kind=\"other\"} 1",
            "sluicegate_config_generation 7.0",
            "sluicegate_config_last_reload_successful 0.0",
            "sluicegate_config_reloads_total{result=\"ok\"} 1",
            "sluicegate_access_log_dropped_total 4",
            "sluicegate_x 3.0",
            "# EOF",
        ] {
            has(&metrics, line);
        }
    }

    #[test]
    fn the_kernel_s_numbers_are_there() {
        let text = Metrics::new("0").expose();
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
            "process_start_time_seconds ",
        ] {
            assert!(
                text.lines().any(|l| l.starts_with(name)),
                "{name} in {text}"
            );
        }
    }
}
