//! One instance of a module: a store with its limits, and the typed functions of its exports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Lift, Lower, TypedFunc};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use super::bindings::{Diagnostic, Field, Plan, ReadableFacts, RequestVerdict, ResponseVerdict};
use super::deadline::{Budget, Pulse};
use super::facts::{Facts, Shown};
use super::fault::{Fault, FaultKind};
use super::host::{Clock, FilterMetrics, Log, Metrics, Random};
use super::log::LogSink;
use super::module::{Form, Module, Phase};
use super::{handover, packed, readable};
use crate::config::{Capabilities, FilterLimits};

/// Settings are larger than this in no sane configuration.
pub const SETTINGS_BYTES_MAX: usize = 1024 * 1024;
/// What one call may copy out of a guest at least: a log line must fit, whatever the output limit is.
const COPIED_BYTES_MIN: usize = 64 * 1024;
/// What the answer to `configure`, or a schema, may take.
const PLAN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes shown of a guest's reason not to take a state.
const REASON_SHOWN: usize = 256;
const TABLE_ELEMENTS_MAX: usize = 20_000;
const CORE_INSTANCES_MAX: usize = 32;
const MEMORIES_MAX: usize = 8;
/// Handles of resources at one time. The tables are the host's memory, which the limit of the guest's does not cover.
const HANDLES_MAX: usize = 1024;
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
                configure_deadline: Duration::from_secs(2),
                output: 1024 * 1024,
                state: 1024 * 1024,
            },
            capabilities: Capabilities::ALL,
            metrics: Arc::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigureError {
    /// The filter says what is wrong with its settings.
    Rejected(Vec<Diagnostic>),
    Fault(Fault),
}

/// One instance. Not shared: it is called by one thread at a time and may move between threads in between.
pub struct Instance {
    store: Store<Context>,
    functions: Functions,
    limits: FilterLimits,
    /// The block of the last call, kept for its allocation.
    block: Vec<u8>,
    // Keeps the engine and its deadlines going.
    _module: Arc<Module>,
}

struct Functions {
    configure: TypedFunc<(&'static str,), (Result<Plan, Vec<Diagnostic>>,)>,
    schema: Option<TypedFunc<(), (String,)>>,
    phases: [Option<Function>; Phase::ALL.len()],
    handover: Option<(handover::Save, handover::Restore)>,
}

type ReadableResponseParams = (ReadableFacts, u16, Option<String>, Vec<Field>);

#[derive(Clone, Copy)]
enum Function {
    Packed(TypedFunc<(&'static [u8],), (Vec<u8>,)>),
    Log(TypedFunc<(&'static [u8],), ()>),
    ReadableRequest(TypedFunc<(ReadableFacts, Vec<Field>), (RequestVerdict,)>),
    ReadableResponse(TypedFunc<ReadableResponseParams, (ResponseVerdict,)>),
}

impl Instance {
    pub(super) fn new(
        module: Arc<Module>,
        options: &InstanceOptions,
        deadline: Duration,
    ) -> Result<Self, Fault> {
        let missing = module.missing_capabilities(&options.capabilities);
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(Fault::new(
                FaultKind::Instance,
                format!("imports {missing}, which it was not granted"),
            ));
        }
        let host = module.host();
        let pulse = host.pulse().clone();
        pulse.cover(options.limits.deadline);
        pulse.cover(options.limits.configure_deadline);
        let mut store = Store::new(
            host.engine(),
            Context::new(options, host.log().clone(), pulse),
        );
        store.limiter(|context| context);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().late()));
        store.set_hostcall_fuel(options.limits.output.max(COPIED_BYTES_MIN));
        store.set_max_component_handles(HANDLES_MAX);
        begin(&mut store, deadline);

        let failed = |store: &mut Store<Context>, error: wasmtime::Error| {
            let context = store.data();
            if context.memory_refused {
                let message = format!(
                    "needs more memory to begin with than its limit of {} KiB",
                    context.memory_max / 1024
                );
                return Fault::new(FaultKind::Memory, message);
            }
            Fault::from_start(&error)
        };
        let instance = match module.pre().instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => return Err(failed(&mut store, error)),
        };
        let functions = match functions(&module, &instance, &mut store) {
            Ok(functions) => functions,
            Err(error) => return Err(failed(&mut store, error)),
        };
        Ok(Self {
            store,
            functions,
            limits: options.limits.clone(),
            block: Vec::new(),
            _module: module,
        })
    }

    /// Hands over the settings, as JSON. To be called once, before any phase. `deadline` bounds the call.
    pub fn configure(
        &mut self,
        settings: &str,
        deadline: Duration,
    ) -> Result<Plan, ConfigureError> {
        let fuel = self.store.hostcall_fuel();
        self.store.set_hostcall_fuel(PLAN_BYTES_MAX);
        begin(&mut self.store, deadline);
        let configure: TypedFunc<(&str,), _> = self.functions.configure;
        let answer = configure.call(&mut self.store, (settings,));
        self.store.set_hostcall_fuel(fuel);
        match answer {
            Ok((Ok(plan),)) => Ok(plan),
            Ok((Err(diagnostics),)) => Err(ConfigureError::Rejected(diagnostics)),
            Err(error) => Err(ConfigureError::Fault(self.fault(&error))),
        }
    }

    /// The JSON Schema of the settings, when it is exported.
    pub fn schema(&mut self) -> Result<Option<String>, Fault> {
        let Some(schema) = self.functions.schema else {
            return Ok(None);
        };
        let fuel = self.store.hostcall_fuel();
        self.store.set_hostcall_fuel(PLAN_BYTES_MAX);
        begin(&mut self.store, self.limits.configure_deadline);
        let answer = schema.call(&mut self.store, ());
        self.store.set_hostcall_fuel(fuel);
        match answer {
            Ok((schema,)) => Ok(Some(schema)),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Calls one phase. What comes back is a packed verdict that was not looked at yet (empty for next, and always
    /// for the log phase); a phase that is not exported answers next. After a fault the instance is not to be called
    /// again.
    pub fn call(
        &mut self,
        phase: Phase,
        facts: &Facts<'_>,
        shown: Shown<'_>,
    ) -> Result<Vec<u8>, Fault> {
        let Some(function) = self.functions.phases[phase as usize] else {
            return Ok(Vec::new());
        };
        begin(&mut self.store, self.limits.deadline);
        let store = &mut self.store;
        let answer = match function {
            Function::Packed(function) => {
                packed::encode(facts, shown, &mut self.block);
                let function: TypedFunc<(&[u8],), (Vec<u8>,)> = function;
                function
                    .call(store, (&self.block,))
                    .map(|(verdict,)| verdict)
            }
            Function::Log(function) => {
                packed::encode(facts, shown, &mut self.block);
                let function: TypedFunc<(&[u8],), ()> = function;
                function.call(store, (&self.block,)).map(|()| Vec::new())
            }
            Function::ReadableRequest(function) => function
                .call(store, (readable::facts(facts), readable::fields(shown)))
                .map(|(verdict,)| readable::pack_request(verdict)),
            Function::ReadableResponse(function) => function
                .call(
                    store,
                    (
                        readable::facts(facts),
                        facts.status,
                        readable::endpoint(facts),
                        readable::fields(shown),
                    ),
                )
                .map(|(verdict,)| readable::pack_response(verdict)),
        };
        match answer {
            Ok(verdict) if verdict.len() > self.limits.output => Err(Fault::new(
                FaultKind::Output,
                format!(
                    "answered with {} bytes, its limit is {}",
                    verdict.len(),
                    self.limits.output
                ),
            )),
            Ok(verdict) => Ok(verdict),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// What the instance hands over to the one that takes its place, headed by a version of its own; none when it keeps
    /// nothing. After a fault of any kind but output it is not to be called again.
    pub fn save(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let Some((save, _)) = self.functions.handover else {
            return Ok(None);
        };
        let fuel = self.store.hostcall_fuel();
        let bytes_max = self.limits.state;
        self.store
            .set_hostcall_fuel(bytes_max.max(COPIED_BYTES_MIN));
        begin(&mut self.store, self.limits.deadline);
        let answer = save.call(&mut self.store, ());
        self.store.set_hostcall_fuel(fuel);
        match answer {
            Ok((state,)) => handover::checked(state, bytes_max),
            Err(error) => match self.fault(&error) {
                fault if fault.kind == FaultKind::Output => Err(handover::too_large(bytes_max)),
                fault => Err(fault),
            },
        }
    }

    /// Hands over what another instance saved. Inside is the guest's reason when it does not take it.
    pub fn restore(&mut self, state: &[u8]) -> Result<Result<(), String>, Fault> {
        let Some((_, restore)) = self.functions.handover else {
            return Ok(Ok(()));
        };
        begin(&mut self.store, self.limits.deadline);
        let restore: TypedFunc<(&[u8],), (Vec<u8>,)> = restore;
        match restore.call(&mut self.store, (state,)) {
            Ok((reason,)) if reason.is_empty() => Ok(Ok(())),
            Ok((reason,)) => {
                let reason = String::from_utf8_lossy(&reason);
                Ok(Err(super::words::tame(&reason, REASON_SHOWN)))
            }
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Linear memory in use, in bytes.
    pub fn memory(&self) -> usize {
        self.store.data().memory_used
    }

    fn fault(&self, error: &wasmtime::Error) -> Fault {
        Fault::from_call(error, self.store.data().memory_refused)
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("filter", &self.store.data().filter)
            .finish_non_exhaustive()
    }
}

/// Starts the clock of a call and gives it its budgets.
fn begin(store: &mut Store<Context>, deadline: Duration) {
    let budget = Budget::new(deadline);
    let ticks = budget.ticks();
    let context = store.data_mut();
    context.memory_refused = false;
    context.log.begin();
    context.budget = budget;
    context.pulse.arm();
    store.set_epoch_deadline(ticks);
}

fn functions(
    module: &Module,
    instance: &wasmtime::component::Instance,
    store: &mut Store<Context>,
) -> wasmtime::Result<Functions> {
    let exports = &module.exports;
    let mut phases = [None; Phase::ALL.len()];
    for phase in Phase::ALL {
        let Some((form, index)) = &exports.phases[phase as usize] else {
            continue;
        };
        let name = phase.as_str();
        phases[phase as usize] = Some(match (form, phase) {
            (Form::Packed, Phase::Log) => Function::Log(typed(instance, store, index, name)?),
            (Form::Packed, _) => Function::Packed(typed(instance, store, index, name)?),
            (Form::Readable, Phase::Response) => {
                Function::ReadableResponse(typed(instance, store, index, name)?)
            }
            (Form::Readable, _) => Function::ReadableRequest(typed(instance, store, index, name)?),
        });
    }
    Ok(Functions {
        configure: typed(instance, store, &exports.configure, "configure")?,
        schema: match &exports.schema {
            Some(index) => Some(typed(instance, store, index, "schema")?),
            None => None,
        },
        phases,
        handover: match &exports.handover {
            Some((save, restore)) => Some((
                typed(instance, store, save, "save")?,
                typed(instance, store, restore, "restore")?,
            )),
            None => None,
        },
    })
}

fn typed<Params, Results>(
    instance: &wasmtime::component::Instance,
    store: &mut Store<Context>,
    index: &ComponentExportIndex,
    name: &str,
) -> wasmtime::Result<TypedFunc<Params, Results>>
where
    Params: ComponentNamedList + Lower,
    Results: ComponentNamedList + Lift,
{
    instance.get_typed_func(store, index).map_err(|error| {
        wasmtime::Error::msg(format!(
            "its function for {name} has another type than the contract says: {error:#}"
        ))
    })
}

/// The host's side of an instance.
pub(super) struct Context {
    pub(super) born: Instant,
    filter: Arc<str>,
    pub(super) log: Log,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) random: Random,
    memory_max: usize,
    memory_used: usize,
    /// Memory was denied during the running call.
    memory_refused: bool,
    budget: Budget,
    pulse: Arc<Pulse>,
}

impl Context {
    fn new(options: &InstanceOptions, log: LogSink, pulse: Arc<Pulse>) -> Self {
        Self {
            born: Instant::now(),
            filter: options.filter.clone(),
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
    fn late(&mut self) -> UpdateDeadline {
        self.pulse.arm();
        match self.budget.extend() {
            Some(ticks) => UpdateDeadline::Continue(ticks),
            None => UpdateDeadline::Interrupt,
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
