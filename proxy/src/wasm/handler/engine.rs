//! The engine of handlers: asynchronous calls, an instance for each request, the processor given back at each epoch.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::super::deadline::{Pulse, Ticker};
use super::super::engine::{HostError, open_cache};
use super::super::log::LogSink;
use super::guest::Guest;
use super::module::{Handler, HandlerError};

/// Instances alive at one time, over all handlers, workers and generations that still drain.
pub const HANDLER_INSTANCES_MAX: u32 = 1024;
const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
const MEMORIES_PER_COMPONENT: u32 = 2;
const TABLES_PER_COMPONENT: u32 = 8;
/// The stack an instance runs on, and how much of it is the guest's; the rest is for what the guest calls.
const FIBER_BYTES: usize = 1024 * 1024;
const STACK_BYTES: usize = 512 * 1024;
/// How long the epochs go on after a guest was last polled: longer than a slice, after which it is polled again.
const SLICE_MAX: Duration = Duration::from_millis(50);

/// Compiles handlers and keeps what their instances share. Cheap to clone; lives as long as the last of them.
#[derive(Clone)]
pub struct HandlerHost {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    linker: Linker<Guest>,
    ticker: Ticker,
    log: LogSink,
}

impl HandlerHost {
    /// `cache` is where compiled code is kept between runs; none compiles each time.
    pub fn new(cache: Option<PathBuf>, log: LogSink) -> Result<Self, HostError> {
        let engine = engine(cache)?;
        let ticker = Ticker::start(&engine).map_err(HostError::Thread)?;
        ticker.pulse().cover(SLICE_MAX);
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)
            .and_then(|()| wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker))
            .map_err(|e| HostError::Engine(format!("{e:#}")))?;
        Ok(Self {
            shared: Arc::new(Shared {
                engine,
                linker,
                ticker,
                log,
            }),
        })
    }

    /// Compiles a component and looks at what it is. Takes from milliseconds to seconds of processor time: for the
    /// control thread. `name` is for messages.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Arc<Handler>, HandlerError> {
        Handler::load(self, name, bytes).map(Arc::new)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(super) fn linker(&self) -> &Linker<Guest> {
        &self.shared.linker
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        self.shared.ticker.pulse()
    }

    pub(super) fn log(&self) -> &LogSink {
        &self.shared.log
    }
}

/// Pooled as filters are; where address space is limited, memories and stacks are mapped one by one.
fn engine(cache: Option<PathBuf>) -> Result<Engine, HostError> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // What 0.3 would need; calls of 0.2 cost less without.
        .concurrency_support(false)
        .epoch_interruption(true)
        .async_stack_size(FIBER_BYTES)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(true)
        .cache(cache.and_then(open_cache))
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    Engine::new(&config).or_else(|error| {
        tracing::warn!("handler instances are not pooled: {error:#}");
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config).map_err(|e| HostError::Engine(format!("{e:#}")))
    })
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(HANDLER_INSTANCES_MAX)
        .total_core_instances(HANDLER_INSTANCES_MAX * 8)
        .total_memories(HANDLER_INSTANCES_MAX)
        .total_tables(HANDLER_INSTANCES_MAX * 4)
        .total_stacks(HANDLER_INSTANCES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        // The pages that the next request would touch first stay; everything else goes back.
        .linear_memory_keep_resident(128 * 1024)
        .table_keep_resident(16 * 1024);
    pool
}
