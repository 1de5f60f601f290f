//! The engine: one per process, set up for short synchronous calls into instances that live long.

use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::{
    Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
};

use super::deadline::{Pulse, Ticker};
use super::log::LogSink;

/// Instances alive at one time, over all filters, workers and generations that still drain.
const INSTANCES_MAX: u32 = 4096;
/// Core instances, memories and tables of one component: the guest, its shims and an adapter.
const CORE_INSTANCES_PER_COMPONENT: u32 = 8;
const MEMORIES_PER_COMPONENT: u32 = 2;
const TABLES_PER_COMPONENT: u32 = 4;
/// Native stack a guest may use; worker threads have 2 MiB.
const STACK_BYTES: usize = 512 * 1024;

#[derive(Clone)]
pub struct HostOptions {
    /// Where compiled code is kept between runs; none compiles each time.
    pub cache: Option<PathBuf>,
    /// Where guests with the capability `log` write to.
    pub log: LogSink,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            cache: None,
            log: LogSink::tracing(),
        }
    }
}

/// Why there is no host. Nothing of it depends on configuration or modules.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot set up the wasm engine: {0}")]
    Engine(String),
    #[error("cannot start the thread that keeps filter deadlines: {}", crate::error::why(.0))]
    Thread(#[source] std::io::Error),
}

/// What modules are compiled with and their instances share. Cheap to clone; lives as long as the last instance.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    ticker: Ticker,
    log: LogSink,
    pooled: bool,
}

impl Host {
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let cache = options.cache.and_then(open_cache);
        let (engine, pooled) = engine(cache)?;
        let ticker = Ticker::start(&engine).map_err(HostError::Thread)?;
        Ok(Self {
            shared: Arc::new(Shared {
                engine,
                ticker,
                log: options.log,
                pooled,
            }),
        })
    }

    /// False when address space was too short for the pool: instances then cost more to make, calls the same.
    pub fn is_pooled(&self) -> bool {
        self.shared.pooled
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        self.shared.ticker.pulse()
    }

    pub(super) fn log(&self) -> &LogSink {
        &self.shared.log
    }
}

/// A cache that cannot be opened costs time at start, not the service.
pub(super) fn open_cache(directory: PathBuf) -> Option<Cache> {
    let opened = std::fs::create_dir_all(&directory)
        .map_err(|e| crate::error::why(&e))
        .and_then(|()| {
            let mut config = CacheConfig::new();
            // An absolute path without symbolic links is what the cache insists on.
            let directory = directory
                .canonicalize()
                .map_err(|e| crate::error::why(&e))?;
            config.with_directory(directory);
            Cache::new(config).map_err(|e| format!("{e:#}"))
        });
    match opened {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::warn!(
                directory = %directory.display(),
                "filters are compiled anew at each start because their cache cannot be used: {error}; `modules: {{cache: …}}` names another place",
            );
            None
        }
    }
}

/// Pooled slots with a full 4 GiB reservation each, so that the compiler leaves bounds checks to the MMU. The pages
/// are only reserved: what an instance uses is what it touches. Where address space is limited (`ulimit -v`, small
/// virtual addresses) memories are mapped one by one.
fn engine(cache: Option<Cache>) -> Result<(Engine, bool), HostError> {
    let mut config = config(cache);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    match Engine::new(&config) {
        Ok(engine) => Ok((engine, true)),
        Err(error) => {
            tracing::warn!("filter instances are not pooled: {error:#}");
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            Engine::new(&config)
                .map(|engine| (engine, false))
                .map_err(|e| HostError::Engine(format!("{e:#}")))
        }
    }
}

fn config(cache: Option<Cache>) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Async calls cost ten times as much as sync ones; nothing here waits inside a guest.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(true)
        .cache(cache);
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX)
        .total_core_instances(INSTANCES_MAX * 4)
        .total_memories(INSTANCES_MAX)
        .total_tables(INSTANCES_MAX * 2)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        // What a replaced instance leaves behind is given back, but for the pages a new one will touch at once.
        .linear_memory_keep_resident(64 * 1024)
        .table_keep_resident(16 * 1024);
    pool
}
