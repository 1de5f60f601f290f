//! The host's side of an instance: what it is bounded by, and what its host functions work on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{Memory, ResourceLimiter, UpdateDeadline};

use super::deadline::{Budget, Pulse};
use super::host::{Access, Accesses, Clock, FilterMetrics, Log, Metrics, Random};
use super::hostcalls::HostCalls;
use super::log::LogSink;
use crate::config::{Capabilities, FilterLimits};

/// What the answer to `configure`, or a schema, may take.
pub(super) const PLAN_BYTES_MAX: usize = 4 * 1024 * 1024;
const TABLE_ELEMENTS_MAX: usize = 20_000;
const CORE_INSTANCES_MAX: usize = 32;
const MEMORIES_MAX: usize = 8;
const TABLES_MAX: usize = 32;

/// How an instance is bounded, and what it is called in logs.
#[derive(Debug, Clone)]
pub struct InstanceOptions {
    pub filter: Arc<str>,
    pub limits: FilterLimits,
    pub capabilities: Capabilities,
    /// Shared by the filter's instances.
    pub metrics: Arc<FilterMetrics>,
}

impl InstanceOptions {
    /// For looking at a module outside of any filter: everything granted, usual limits.
    pub fn for_inspection(name: Arc<str>) -> Self {
        Self {
            filter: name,
            limits: FilterLimits {
                memory: 64 * 1024 * 1024,
                deadline: Duration::from_millis(100),
                ..FilterLimits::default()
            },
            capabilities: Capabilities::ALL,
            metrics: Arc::default(),
        }
    }
}

/// The host's side of an instance.
pub(super) struct Context {
    pub(super) born: Instant,
    /// To be counted down first by every function that a guest may call.
    pub(super) host_calls: HostCalls,
    pub(super) filter: Arc<str>,
    /// Of a guest that is called in one crossing, for its host functions.
    pub(super) memory: Option<Memory>,
    pub(super) log: Log,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) memory_max: usize,
    pub(super) memory_used: usize,
    /// Memory was denied during the running call.
    pub(super) memory_refused: bool,
    pub(super) budget: Budget,
    pub(super) pulse: Arc<Pulse>,
}

impl Context {
    pub(super) fn new(options: &InstanceOptions, log: LogSink, pulse: Arc<Pulse>) -> Self {
        Self {
            born: Instant::now(),
            host_calls: HostCalls::new(options.limits.host_calls),
            filter: options.filter.clone(),
            memory: None,
            log: Log::new(
                options.filter.clone(),
                options.capabilities.log.then_some(log),
            ),
            metrics: Metrics::new(options.metrics.clone()),
            clock: Clock::new(),
            random: Random::new(),
            memory_max: options.limits.memory,
            memory_used: 0,
            memory_refused: false,
            budget: Budget::new(options.limits.configure_deadline),
            pulse,
        }
    }

    /// The epoch deadline of the running call was reached.
    pub(super) fn late(&mut self) -> UpdateDeadline {
        self.pulse.arm();
        match self.budget.extend() {
            Some(ticks) => UpdateDeadline::Continue(ticks),
            None => UpdateDeadline::Interrupt,
        }
    }
}

impl Context {
    /// Where the functions of capabilities find theirs.
    pub(super) const CAPABILITIES: Accesses<Self> = Accesses {
        log: Self::access(|context| &mut context.log),
        metrics: Self::access(|context| &mut context.metrics),
        clock: Self::access(|context| &mut context.clock),
        random: Self::access(|context| &mut context.random),
    };

    const fn access<C>(part: fn(&mut Self) -> &mut C) -> Access<Self, C> {
        Access {
            host_calls: |context| &mut context.host_calls,
            part,
            memory: |context| context.memory,
        }
    }
}

impl ResourceLimiter for Context {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .memory_used
            .saturating_sub(current)
            .saturating_add(desired);
        if total > self.memory_max {
            self.memory_refused = true;
            return Ok(false);
        }
        self.memory_used = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
