//! The metrics of the process: handles that workers count with, values pulled from other rooms, and one text of all.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;

use super::exposition::{Scrape, Visitor};
use super::exposition_format::Exposition;
use super::listener::{LISTENER_CELLS, ListenerMetrics, visit_listener};
use super::pool::{POOL_CELLS, PoolMetrics, visit_pool};
use super::process;
use super::shards::Shards;

/// All metrics of one process. Shared by its threads; workers count through handles of their own.
pub struct Metrics {
    listeners: Arc<Shards<LISTENER_CELLS>>,
    pools: Arc<Shards<POOL_CELLS>>,
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

impl Metrics {
    /// `version` is the build's.
    pub fn new(version: &'static str) -> Self {
        let (listeners, pools) = (Shards::new(), Shards::new());
        let reloads = Arc::new(Reloads::default());
        let sources = Arc::new(Mutex::new(Vec::<Source>::new()));
        let access_log_dropped = Arc::new(AtomicU64::new(0));
        let started = SystemTime::now();

        let mut registry = Registry::default();
        let collect = {
            let (listeners, pools) = (listeners.clone(), pools.clone());
            let (reloads, sources) = (reloads.clone(), sources.clone());
            let dropped = access_log_dropped.clone();
            move |visitor: &mut Visitor| {
                listeners.for_each(|name, sums| visit_listener(visitor, name, sums));
                pools.for_each(|name, sums| visit_pool(visitor, name, sums));
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
            pools,
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

    /// A worker's counters of pools.
    pub fn pools(&self) -> PoolMetrics {
        PoolMetrics::new(self.pools.clone())
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

    /// Everything, in `format`.
    pub fn expose_as(&self, format: Exposition) -> String {
        match format {
            Exposition::OpenMetrics => self.expose(),
            Exposition::Text => super::exposition_format::to_text(&self.expose()),
        }
    }

    /// Everything as OpenMetrics text.
    pub fn expose(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String does not fail, and samples write nothing else.
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            tracing::error!("the metrics could not be written");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::exposition::StoreSample;
    use super::super::listener::Handshake;
    use super::*;
    use crate::error::Reason;
    use std::time::Duration;

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.expose();
        assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
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
    fn sessions_reloads_and_sources() {
        let metrics = Metrics::new("0");
        let listener = metrics.listener("ssh");
        listener.session_started();
        listener.session_started();
        listener.session_ended(5, 7);
        metrics.generation_serves(7);
        metrics.reload_failed();
        metrics.register(Box::new(|v| v.gauge("sluicegate_x", "X", &[], 3.0)));
        metrics.register(Box::new(|v| {
            let used = StoreSample {
                in_memory: true,
                entries: 2,
                bytes: 400,
                evictions: 1,
                operations: vec![("get", "absent", 5)],
            };
            v.store("f", &used);
            v.store("unused", &StoreSample::default());
        }));
        metrics.access_log_dropped().store(4, Ordering::Relaxed);
        for line in [
            "sluicegate_sessions_active{listener=\"ssh\"} 1.0",
            "sluicegate_received_bytes_total{listener=\"ssh\"} 5",
            "sluicegate_config_generation 7.0",
            "sluicegate_config_last_reload_successful 0.0",
            "sluicegate_config_reloads_total{result=\"ok\"} 1",
            "sluicegate_access_log_dropped_total 4",
            "sluicegate_x 3.0",
            "sluicegate_store_entries{filter=\"f\"} 2.0",
            "sluicegate_store_bytes{filter=\"f\"} 400.0",
            "sluicegate_store_evictions_total{filter=\"f\"} 1",
            "sluicegate_store_operations_total{filter=\"f\",operation=\"get\",result=\"absent\"} 5",
            "# EOF",
        ] {
            has(&metrics, line);
        }
        assert!(!metrics.expose().contains("unused"));
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
