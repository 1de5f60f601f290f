//! One configured filter: loaded, configured and stocked with instances on the control thread, shared by the workers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::counters::{Counts, Shard};
use super::grants;
use super::plan::CheckedPlan;
use super::problem::{problem as finding, setting};
use super::refusal::{not_granted, problems, unknown_pool};
use super::seats::{Seat, Seated, Seats};
use crate::config::{ConfigPath, FilterConfig, Isolation, PoolConfig, Problem, quoted};
use crate::wasm::{
    ConfigureError, Fault, FaultKind, FilterMetrics, Instance, InstanceOptions, Module, Phases,
    Plan, SETTINGS_BYTES_MAX,
};

/// Ready instances kept beside those in use, for workers whose instance faulted.
const SPARE: usize = 2;
/// Instances of a filter of which each exchange has one, unless the configuration says another number.
const ISOLATED_MAX: usize = 256;
/// Instances that wait for the control thread to take them apart, and the memory from which on they do: giving pages back
/// takes a worker about as long as the guest took to write them.
const SPENT_MAX: usize = 4;
const SPENT_BYTES: usize = 1024 * 1024;
/// One warning per filter in this time; the others are counted.
const WARN_INTERVAL_MS: u64 = 1000;
/// Called by a worker that took from the stock of a filter: the control thread is to call [`Filter::restock`] on it.
/// Called at most once until that happened. Must not block.
pub type Refill = Arc<dyn Fn(Arc<Filter>) + Send + Sync>;

pub struct Filter {
    config: Arc<FilterConfig>,
    module: Arc<Module>,
    options: InstanceOptions,
    settings: String,
    plan: CheckedPlan,
    phases: Phases,
    seats: Arc<Seats>,
    stock: Mutex<Vec<Seated>>,
    spent: Mutex<Vec<Seated>>,
    refill: Refill,
    refill_asked: AtomicBool,
    /// It was told that the filter starts without the state of the one before.
    emptiness_told: AtomicBool,
    shards: Box<[Shard]>,
    born: Instant,
    /// When a fault was last warned about (ms after `born`, plus one), and how many were not since.
    warned_ms: AtomicU64,
    silent: AtomicU64,
    /// The least time that making an instance took, in microseconds.
    quickest_us: AtomicU64,
}

impl Filter {
    /// Configures the filter and makes an instance for each worker and some to spare. For the control thread: takes as
    /// long as `configure` does, within its deadline, a few times over. The pools it names are looked up later, by
    /// [`Filter::pool_table`], since they belong to a generation and a filter may outlive one.
    pub fn load(
        module: Arc<Module>,
        config: Arc<FilterConfig>,
        workers: usize,
        refill: Refill,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        Self::load_after(None, module, config, workers, refill)
    }

    /// As [`Filter::load`], in the place of a filter of the same name, whose metrics go on where they stay the same.
    pub fn load_after(
        replaced: Option<&Filter>,
        module: Arc<Module>,
        config: Arc<FilterConfig>,
        workers: usize,
        refill: Refill,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let missing = module.missing_capabilities(&config.capabilities);
        if !missing.is_empty() {
            return Err(vec![not_granted(&config, &missing)]);
        }
        let settings = config.settings.to_string();
        if settings.len() > SETTINGS_BYTES_MAX {
            let message = format!(
                "the settings have {} bytes, more than 8 MiB",
                settings.len()
            );
            let at = setting(&config.at, "");
            return Err(vec![finding(at, "settings-too-large", message)]);
        }
        let options = InstanceOptions {
            filter: config.name.clone(),
            limits: config.limits.clone(),
            capabilities: config.capabilities.clone(),
            metrics: Arc::new(FilterMetrics::after(
                replaced.map(|old| &*old.options.metrics),
            )),
        };
        let seats = seats(&config, workers)?;
        let deadline = config.limits.configure_deadline;
        let began = Instant::now();
        let (first, plan) = make(&module, &options, &settings, deadline)
            .map_err(|error| problems(&config, error))?;
        let took = began.elapsed().as_micros() as u64;
        let phases = plan.phases;
        let plan = CheckedPlan::check(plan, &module, &config.at)?;
        grants::check(&plan, &module, &config)?;

        let filter = Arc::new(Self {
            shards: (0..workers.max(1)).map(|_| Shard::default()).collect(),
            stock: Mutex::new(
                seats
                    .take()
                    .map(|seat| Seated::new(first, seat))
                    .into_iter()
                    .collect(),
            ),
            seats,
            spent: Mutex::default(),
            config,
            module,
            options,
            settings,
            plan,
            phases,
            refill,
            refill_asked: AtomicBool::new(false),
            emptiness_told: AtomicBool::new(false),
            born: Instant::now(),
            warned_ms: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            quickest_us: AtomicU64::new(took),
        });
        let wanted = match filter.config.isolation {
            Isolation::Worker => workers + SPARE,
            Isolation::Request => SPARE,
        };
        filter
            .fill(wanted)
            .map_err(|error| problems(&filter.config, ConfigureError::Fault(error)))?;
        Ok(filter)
    }

    /// True when a filter loaded from this configuration and module would be this one. A reload keeps it then, with
    /// its instances and counters.
    pub fn is_same(&self, config: &FilterConfig, digest: &[u8; 32]) -> bool {
        let own = &self.config;
        own.name == config.name
            && own.settings == config.settings
            && own.limits == config.limits
            && own.capabilities == config.capabilities
            && own.on_error == config.on_error
            && own.isolation == config.isolation
            && self.module.digest() == digest
    }

    /// The pools of the plan as indices into `pools`. `config` is this generation's, whose paths are right for it.
    pub fn pool_table(
        &self,
        config: &FilterConfig,
        pools: &[Arc<PoolConfig>],
    ) -> Result<Arc<[usize]>, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut table = Vec::with_capacity(self.plan.pools.len());
        for wanted in &self.plan.pools {
            match pools.iter().position(|pool| *pool.name == *wanted.name) {
                Some(index) => table.push(index),
                None => problems.push(unknown_pool(config, wanted, pools)),
            }
        }
        if problems.is_empty() {
            Ok(table.into())
        } else {
            Err(problems)
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    pub fn config(&self) -> &Arc<FilterConfig> {
        &self.config
    }

    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    pub fn plan(&self) -> &CheckedPlan {
        &self.plan
    }

    /// The sums over all workers since the filter was loaded.
    pub fn counts(&self) -> Counts {
        Counts::sum(&self.shards)
    }

    /// Instances that are alive, at work or to spare.
    pub fn instances(&self) -> usize {
        self.seats.taken()
    }

    /// Workers that leave the filter alone now, for it failed for everybody.
    pub fn suspended(&self) -> usize {
        let now = self.age_ms();
        let suspended = |shard: &&Shard| shard.is_suspended(now);
        self.shards.iter().filter(suspended).count()
    }

    /// The metrics it defined.
    pub fn metrics(&self) -> &FilterMetrics {
        &self.options.metrics
    }

    /// Fills the stock up after workers took from it. For the control thread.
    pub fn restock(&self) {
        self.refill_asked.store(false, Ordering::SeqCst);
        let spent = std::mem::take(&mut *lock(&self.spent));
        drop(spent);
        if let Err(fault) = self.fill(SPARE) {
            tracing::warn!(filter = %self.config.name, "cannot make spare instances: {fault}");
        }
    }

    /// A ready instance from the stock. When it runs low the control thread is asked to fill it.
    pub(super) fn stocked(self: &Arc<Self>) -> Option<Seated> {
        let taken = {
            let mut stock = lock(&self.stock);
            let taken = stock.pop();
            (taken, stock.len())
        };
        if taken.1 < SPARE {
            self.ask_for_refill();
        }
        taken.0
    }

    /// Takes back an instance that faulted. A large one is taken apart by the control thread, unless that is behind or
    /// its seat is needed.
    pub(super) fn discard(self: &Arc<Self>, instance: Seated) {
        if instance.memory() < SPENT_BYTES || self.seats.taken() >= self.seats.max() {
            return;
        }
        let mut spent = lock(&self.spent);
        if spent.len() < SPENT_MAX {
            spent.push(instance);
            drop(spent);
            self.ask_for_refill();
        }
    }

    fn ask_for_refill(self: &Arc<Self>) {
        if !self.refill_asked.swap(true, Ordering::SeqCst) {
            (self.refill)(self.clone());
        }
    }

    /// Why a worker has none, when it could not make one.
    pub(super) fn no_instance(&self) -> String {
        let max = self.seats.max();
        if self.seats.taken() >= max {
            return format!(
                "all of its {max} instances are taken, as many as `limits.instances` lets it have"
            );
        }
        match self.config.isolation == Isolation::Request && !self.is_quick() {
            true => "no instance is ready: `configure` takes longer than `limits.deadline`, within which \
                     `isolation: request` has one made for each exchange"
                .to_owned(),
            false => "no instance is ready".to_owned(),
        }
    }

    /// Making an instance takes no longer than one call may: a worker can do it itself. Everything else of the worker
    /// waits meanwhile.
    pub(super) fn is_quick(&self) -> bool {
        let deadline = self.options.limits.deadline.as_micros() as u64;
        self.quickest_us.load(Ordering::Relaxed) <= deadline
    }

    /// An instance made by the worker, within the deadline of a call; none when there are as many as may be.
    pub(super) fn made_quickly(&self) -> Result<Option<Seated>, Fault> {
        let limits = &self.options.limits;
        let deadline = limits.deadline.min(limits.configure_deadline);
        let seat = self.seats.take();
        seat.map(|seat| self.make(deadline, seat)).transpose()
    }

    /// Worker number `worker` leaves the filter alone for `length` after `fault`, the last of a row.
    pub(super) fn suspended_by(&self, worker: usize, length: Duration, fault: &Fault) {
        let until = self.age_ms() + length.as_millis() as u64;
        self.shard(worker).suspend(until);
        tracing::warn!(
            filter = %self.config.name,
            worker,
            kind = fault.kind.as_str(),
            "filter skipped for {} s because it failed for one client after the other; `on-error` applies meanwhile",
            length.as_secs(),
        );
    }

    fn age_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    pub(super) fn shard(&self, worker: usize) -> &Shard {
        // `load` makes at least one shard.
        &self.shards[worker % self.shards.len()]
    }

    /// The number of the worker that ticks this filter.
    pub(super) fn elected(&self) -> usize {
        // FNV-1a: stable over reloads and builds, and the name is short.
        let hash = self
            .config
            .name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        // `load` makes at least one shard.
        (hash % self.shards.len() as u64) as usize
    }

    /// One line for all workers: the filter does not get the state of the one that it replaces.
    pub(super) fn starts_empty(&self, step: &'static str, why: &str) {
        if !self.emptiness_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                filter = %self.config.name,
                step,
                module = self.module.name(),
                "the filter starts without the state of the one it replaces: {why}"
            );
        }
    }

    /// One line about a fault, unless there was one in the last second.
    pub(super) fn warn(&self, phase: &'static str, fault: &Fault, request: Option<&[u8]>) {
        let now = self.age_ms() + 1;
        let last = self.warned_ms.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= WARN_INTERVAL_MS;
        let first = due
            && self
                .warned_ms
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !first {
            self.silent.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let silent = self.silent.swap(0, Ordering::Relaxed);
        let backtrace = fault.backtrace.as_deref().unwrap_or("").trim_end();
        tracing::warn!(
            filter = %self.config.name,
            phase,
            kind = fault.kind.as_str(),
            module = self.module.name(),
            request_id = request.map(|id| tracing::field::display(String::from_utf8_lossy(id))),
            suppressed = silent,
            "filter fault: {}{}{backtrace}",
            fault.message,
            if backtrace.is_empty() { "" } else { "\n" },
        );
    }

    /// Makes instances until so many wait, or as many are alive as may be.
    fn fill(&self, wanted: usize) -> Result<(), Fault> {
        loop {
            let stocked = lock(&self.stock).len();
            if stocked >= wanted {
                return Ok(());
            }
            let Some(seat) = self.seats.take() else {
                return Ok(());
            };
            let instance = self.make(self.options.limits.configure_deadline, seat)?;
            lock(&self.stock).push(instance);
        }
    }

    /// One more instance with the same settings. It must answer the same plan where instances are bound to it: an
    /// index into pools that come in another order would route to the wrong one.
    fn make(&self, deadline: Duration, seat: Seat) -> Result<Seated, Fault> {
        let began = Instant::now();
        match make(&self.module, &self.options, &self.settings, deadline) {
            Ok((instance, plan))
                if *plan.pools == *self.plan.pools && plan.phases == self.phases =>
            {
                let took = began.elapsed().as_micros() as u64;
                self.quickest_us.fetch_min(took, Ordering::Relaxed);
                Ok(Seated::new(instance, seat))
            }
            Ok(_) => Err(Fault::new(
                FaultKind::Instance,
                "configure answered another plan than the first time",
            )),
            Err(ConfigureError::Rejected(_)) => Err(Fault::new(
                FaultKind::Instance,
                "configure refused settings that it had accepted",
            )),
            Err(ConfigureError::Fault(fault)) => Err(Fault {
                message: format!("configure: {}", fault.message),
                kind: FaultKind::Instance,
                ..fault
            }),
        }
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter")
            .field("name", &self.config.name)
            .finish_non_exhaustive()
    }
}

/// As many as the filter may have. Each worker needs one.
fn seats(config: &FilterConfig, workers: usize) -> Result<Arc<Seats>, Vec<Problem>> {
    let max = match (config.limits.instances, config.isolation) {
        (Some(count), _) => count as usize,
        (None, Isolation::Worker) => workers + SPARE + SPENT_MAX,
        (None, Isolation::Request) => ISOLATED_MAX,
    };
    if max < workers {
        let message = format!(
            "filter {} may have {max} instances, fewer than the {workers} workers that call it",
            quoted(&config.name)
        );
        let at = ConfigPath(format!("{}/limits/instances", config.at.0));
        let help = format!(
            "write at least {workers}, better {} so that some are to spare, or leave it out",
            workers + SPARE
        );
        return Err(vec![finding(at, "too-few-instances", message).help(help)]);
    }
    Ok(Seats::new(max))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make(
    module: &Arc<Module>,
    options: &InstanceOptions,
    settings: &str,
    deadline: Duration,
) -> Result<(Instance, Plan), ConfigureError> {
    let mut instance = module
        .instantiate_within(options, deadline)
        .map_err(ConfigureError::Fault)?;
    let plan = instance.configure(settings, deadline)?;
    Ok((instance, plan))
}
