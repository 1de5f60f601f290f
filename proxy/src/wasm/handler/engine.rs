//! The engines of handlers: asynchronous calls, an instance for each request, the processor given back at each epoch.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::super::deadline::{Pulse, Ticker};
use super::super::engine::{HostError, open_cache};
use super::super::log::LogSink;
use super::guest::Guest;
use super::imports;
use super::version::Version;

/// Instances of one [`Version`] alive at one time, over all handlers, workers and generations that still drain.
pub const HANDLER_INSTANCES_MAX: u32 = 1024;
const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
const MEMORIES_PER_COMPONENT: u32 = 2;
const TABLES_PER_COMPONENT: u32 = 8;
/// Stacks for each instance of 0.3: the tasks of a component that is made of several may each wait on one of its own.
const STACKS_PER_INSTANCE: u32 = 2;
/// The stack an instance runs on, and how much of it is the guest's; the rest is for what the guest calls.
const FIBER_BYTES: usize = 1024 * 1024;
const STACK_BYTES: usize = 512 * 1024;
/// How long the epochs go on after a guest was last polled: longer than a slice, after which it is polled again.
const SLICE_MAX: Duration = Duration::from_millis(50);

/// What handlers are compiled with and their instances share. Cheap to clone; lives as long as the last of them.
#[derive(Clone)]
pub struct HandlerHost {
    shared: Arc<Shared>,
}

/// Each version has its engine, made when the first component of it is loaded.
struct Shared {
    cache: Option<PathBuf>,
    log: LogSink,
    v2: OnceLock<Arc<Lane>>,
    v3: OnceLock<Arc<Lane>>,
}

/// An engine, what its components may import, and the clock of its slices.
pub(super) struct Lane {
    pub(super) engine: Engine,
    pub(super) linker: Linker<Guest>,
    ticker: Ticker,
}

impl HandlerHost {
    /// `cache` is where compiled code is kept between runs; none compiles each time.
    pub fn new(cache: Option<PathBuf>, log: LogSink) -> Self {
        Self {
            shared: Arc::new(Shared {
                cache,
                log,
                v2: OnceLock::new(),
                v3: OnceLock::new(),
            }),
        }
    }

    pub(super) fn lane(&self, version: Version) -> Result<&Arc<Lane>, HostError> {
        let slot = match version {
            Version::V2 => &self.shared.v2,
            Version::V3 => &self.shared.v3,
        };
        if let Some(lane) = slot.get() {
            return Ok(lane);
        }
        let lane = Lane::new(version, self.shared.cache.clone())?;
        Ok(slot.get_or_init(|| Arc::new(lane)))
    }

    pub(super) fn log(&self) -> &LogSink {
        &self.shared.log
    }
}

impl Lane {
    fn new(version: Version, cache: Option<PathBuf>) -> Result<Self, HostError> {
        let engine = engine(version, cache)?;
        let ticker = Ticker::start(&engine).map_err(HostError::Thread)?;
        ticker.pulse().cover(SLICE_MAX);
        let mut linker = Linker::new(&engine);
        // What a compiler puts into a component of 0.3 beside it may still be of 0.2.
        let linked = wasmtime_wasi::p2::add_to_linker_async(&mut linker)
            .and_then(|()| wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker))
            .and_then(|()| match version {
                Version::V2 => Ok(()),
                Version::V3 => wasmtime_wasi::p3::add_to_linker(&mut linker)
                    .and_then(|()| wasmtime_wasi_http::p3::add_to_linker(&mut linker))
                    .and_then(|()| imports::add_to_linker(&mut linker)),
            });
        linked.map_err(|e| HostError::Engine(format!("{e:#}")))?;
        Ok(Self {
            engine,
            linker,
            ticker,
        })
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        self.ticker.pulse()
    }
}

/// Pooled as filters are; where address space is limited, memories and stacks are mapped one by one.
fn engine(version: Version, cache: Option<PathBuf>) -> Result<Engine, HostError> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // What 0.3 needs; calls of 0.2 cost less without.
        .concurrency_support(version == Version::V3)
        .wasm_component_model_async(version == Version::V3)
        .epoch_interruption(true)
        .async_stack_size(FIBER_BYTES)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(true)
        .cache(cache.and_then(open_cache))
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(version)));
    Engine::new(&config).or_else(|error| {
        tracing::warn!("handler instances are not pooled: {error:#}");
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config).map_err(|e| HostError::Engine(format!("{e:#}")))
    })
}

fn pool(version: Version) -> PoolingAllocationConfig {
    let stacks = match version {
        Version::V2 => 1,
        Version::V3 => STACKS_PER_INSTANCE,
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(HANDLER_INSTANCES_MAX)
        .total_core_instances(HANDLER_INSTANCES_MAX * 8)
        .total_memories(HANDLER_INSTANCES_MAX)
        .total_tables(HANDLER_INSTANCES_MAX * 4)
        .total_stacks(HANDLER_INSTANCES_MAX * stacks)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        // The pages that the next request would touch first stay; everything else goes back.
        .linear_memory_keep_resident(128 * 1024)
        .table_keep_resident(16 * 1024);
    pool
}
