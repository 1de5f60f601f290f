//! One instance of a module: a store with its limits, and the functions of its exports.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;

use super::bindings::{Diagnostic, Plan};
use super::canonical::Canonical;
use super::context::{Context, InstanceOptions, PLAN_BYTES_MAX};
use super::contract::Phase;
use super::deadline::Budget;
use super::direct::{self, Direct};
use super::facts::{Facts, Shown};
use super::fault::{Fault, FaultKind, too_much};
use super::module::{Module, Way};
use super::{handover, packed};
use crate::config::FilterLimits;

/// Settings are larger than this in no sane configuration.
pub const SETTINGS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What one call may copy out of a guest at least: a log line must fit, whatever the output limit is.
const COPIED_BYTES_MIN: usize = 64 * 1024;
/// Bytes shown of a guest's reason not to take a state.
const REASON_SHOWN: usize = 256;
/// Bytes shown of what a guest panicked with.
const PANIC_SHOWN: usize = 1024;
/// Handles of resources at one time. The tables are the host's memory, which the limit of the guest's does not cover.
const HANDLES_MAX: usize = 1024;

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
    // Keeps the engine and its deadlines going.
    _module: Arc<Module>,
}

/// How its functions are called.
// The large one is what nearly every instance has, and every call goes through it.
#[allow(clippy::large_enum_variant)]
enum Functions {
    Direct(Direct),
    Component(Box<Canonical>),
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

        let made = match &module.way {
            Way::Direct(linked) => linked.instantiate(&mut store).map(Functions::Direct),
            Way::Component { pre, exports } => Canonical::new(pre, exports, &mut store)
                .map(|made| Functions::Component(Box::new(made))),
        };
        let functions = match made {
            Ok(functions) => functions,
            Err(_) if store.data().memory_refused => {
                let message = format!(
                    "needs more memory to begin with than its limit of {} KiB",
                    store.data().memory_max / 1024
                );
                return Err(Fault::new(FaultKind::Memory, message));
            }
            Err(error) => return Err(Fault::from_start(&error)),
        };
        Ok(Self {
            store,
            functions,
            limits: options.limits.clone(),
            _module: module,
        })
    }

    /// Hands over the settings, as JSON. To be called once, before any phase. `deadline` bounds the call.
    pub fn configure(
        &mut self,
        settings: &str,
        deadline: Duration,
    ) -> Result<Plan, ConfigureError> {
        begin(&mut self.store, deadline);
        let answer = match &mut self.functions {
            Functions::Direct(direct) => direct.configure(&mut self.store, settings),
            Functions::Component(canonical) => with_fuel(&mut self.store, |store| {
                canonical.configure(store, settings)
            })
            .map(Ok),
        };
        match answer {
            Ok(Ok(Ok(plan))) => Ok(plan),
            Ok(Ok(Err(diagnostics))) => Err(ConfigureError::Rejected(diagnostics)),
            Ok(Err(fault)) => Err(ConfigureError::Fault(fault)),
            Err(error) => {
                let mut fault = self.fault(&error);
                if fault.kind == FaultKind::Deadline {
                    fault.message = late("limits.configure-deadline", deadline);
                }
                Err(ConfigureError::Fault(fault))
            }
        }
    }

    /// The JSON Schema of the settings, when it is exported.
    pub fn schema(&mut self) -> Result<Option<String>, Fault> {
        begin(&mut self.store, self.limits.configure_deadline);
        let answer = match &mut self.functions {
            Functions::Direct(direct) => direct.schema(&mut self.store),
            Functions::Component(canonical) => {
                with_fuel(&mut self.store, |store| canonical.schema(store)).map(Ok)
            }
        };
        match answer {
            Ok(schema) => schema,
            Err(error) => {
                let mut fault = self.fault(&error);
                if fault.kind == FaultKind::Deadline {
                    let deadline = self.limits.configure_deadline;
                    fault.message = late("limits.configure-deadline", deadline);
                }
                Err(fault)
            }
        }
    }

    /// As [`Instance::call_into`], with an answer of its own.
    pub fn call(
        &mut self,
        phase: Phase,
        facts: &Facts<'_>,
        shown: Shown<'_>,
    ) -> Result<Vec<u8>, Fault> {
        let mut answer = Vec::new();
        self.call_into(phase, facts, shown, &mut answer)?;
        Ok(answer)
    }

    /// Calls one phase. What is put into `answer` is a packed verdict that was not looked at yet (empty for next, and
    /// always for the log phase); a phase that is not exported answers next. After a fault the instance is not to be
    /// called again.
    pub fn call_into(
        &mut self,
        phase: Phase,
        facts: &Facts<'_>,
        shown: Shown<'_>,
        answer: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        begin(&mut self.store, self.limits.deadline);
        let (store, max) = (&mut self.store, self.limits.output);
        let called = match &mut self.functions {
            Functions::Direct(direct) => {
                let block = packed::Block::new(facts, shown);
                let write = |room: &mut [u8]| block.write(room);
                direct.call(store, phase as i32, block.size(), write, answer, max)
            }
            Functions::Component(canonical) => canonical
                .call(store, phase, facts, shown, answer)
                .map(|()| {
                    if answer.len() <= max {
                        return Ok(());
                    }
                    Err(Fault::new(FaultKind::Output, too_much(answer.len(), max)))
                }),
        };
        match called {
            Ok(answered) => answered,
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Hands the results of a suspended call's effects over, packed. What is put into `answer` is a verdict of the phase
    /// that was suspended, not looked at yet. After a fault the instance is not to be called again.
    pub fn resume_into(&mut self, block: &[u8], answer: &mut Vec<u8>) -> Result<(), Fault> {
        begin(&mut self.store, self.limits.deadline);
        let (store, max) = (&mut self.store, self.limits.output);
        let called = match &mut self.functions {
            Functions::Direct(direct) => {
                let write = |room: &mut [u8]| room.copy_from_slice(block);
                direct.call(store, direct::RESUME, block.len(), write, answer, max)
            }
            Functions::Component(canonical) => canonical
                .resume(store, block, answer)
                .map(|()| within(answer, max)),
        };
        match called {
            Ok(answered) => answered,
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// What the instance hands over to the one that takes its place, headed by a version of its own; none when it keeps
    /// nothing. After a fault of any kind but output it is not to be called again.
    pub fn save(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let bytes_max = self.limits.state;
        let fuel = self.store.hostcall_fuel();
        self.store
            .set_hostcall_fuel(bytes_max.max(COPIED_BYTES_MIN));
        begin(&mut self.store, self.limits.deadline);
        let (store, mut state) = (&mut self.store, Vec::new());
        let saved = match &mut self.functions {
            Functions::Direct(direct) if direct.can_hand_over => {
                direct.call(store, direct::SAVE, 0, |_| {}, &mut state, bytes_max)
            }
            Functions::Direct(_) => Ok(Ok(())),
            Functions::Component(canonical) => canonical.save(store, &mut state).map(Ok),
        };
        self.store.set_hostcall_fuel(fuel);
        let saved = match saved {
            Ok(saved) => saved,
            Err(error) => Err(self.fault(&error)),
        };
        match saved {
            Ok(()) => handover::checked(state, bytes_max),
            Err(fault) if fault.kind == FaultKind::Output => Err(handover::too_large(bytes_max)),
            Err(fault) => Err(fault),
        }
    }

    /// Hands over what another instance saved. Inside is the guest's reason when it does not take it.
    pub fn restore(&mut self, state: &[u8]) -> Result<Result<(), String>, Fault> {
        begin(&mut self.store, self.limits.deadline);
        let (store, mut reason) = (&mut self.store, Vec::new());
        let max = self.limits.output;
        let restored = match &mut self.functions {
            Functions::Direct(direct) if direct.can_hand_over => {
                let write = |room: &mut [u8]| room.copy_from_slice(state);
                direct.call(store, direct::RESTORE, state.len(), write, &mut reason, max)
            }
            Functions::Direct(_) => Ok(Ok(())),
            Functions::Component(canonical) => canonical.restore(store, state, &mut reason).map(Ok),
        };
        match restored {
            Ok(Ok(())) if reason.is_empty() => Ok(Ok(())),
            Ok(Ok(())) => {
                let reason = String::from_utf8_lossy(&reason);
                Ok(Err(super::words::tame(&reason, REASON_SHOWN)))
            }
            Ok(Err(fault)) => Err(fault),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Linear memory in use, in bytes.
    pub fn memory(&self) -> usize {
        self.store.data().memory_used
    }

    fn fault(&self, error: &wasmtime::Error) -> Fault {
        let mut fault = Fault::from_call(error, self.store.data().memory_refused);
        match fault.kind {
            FaultKind::Deadline => fault.message = late("limits.deadline", self.limits.deadline),
            FaultKind::Memory => {
                let kib = self.limits.memory / 1024;
                fault.message =
                    format!("wanted more memory than the {kib} KiB of its `limits.memory`");
            }
            FaultKind::Trap => {
                let panic = match &self.functions {
                    Functions::Direct(direct) => direct.panic_text(&self.store),
                    Functions::Component(_) => None,
                };
                if let Some(panic) = panic {
                    fault.message = super::words::tame_lines(&panic, PANIC_SHOWN);
                }
            }
            _ => {}
        }
        fault
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
    context.host_calls.begin();
    context.budget = budget;
    context.pulse.arm();
    store.set_epoch_deadline(ticks);
}

/// An answer may have so many bytes.
fn within(answer: &[u8], max: usize) -> Result<(), Fault> {
    if answer.len() <= max {
        return Ok(());
    }
    Err(Fault::new(FaultKind::Output, too_much(answer.len(), max)))
}

fn late(limit: &str, deadline: Duration) -> String {
    format!("ran longer than its deadline, the {deadline:?} of `{limit}`")
}

/// Answers to `configure`, and schemas, may be larger than those of calls.
fn with_fuel<T>(store: &mut Store<Context>, f: impl FnOnce(&mut Store<Context>) -> T) -> T {
    let fuel = store.hostcall_fuel();
    store.set_hostcall_fuel(PLAN_BYTES_MAX);
    let answer = f(store);
    store.set_hostcall_fuel(fuel);
    answer
}

impl Module {
    /// A new instance that was not configured yet.
    pub fn instantiate(self: &Arc<Self>, options: &InstanceOptions) -> Result<Instance, Fault> {
        self.instantiate_within(options, options.limits.configure_deadline)
    }

    /// As [`Module::instantiate`], with a deadline for what the module does at its start.
    pub fn instantiate_within(
        self: &Arc<Self>,
        options: &InstanceOptions,
        deadline: Duration,
    ) -> Result<Instance, Fault> {
        Instance::new(self.clone(), options, deadline)
    }

    /// The JSON Schema of its settings, from an instance made for this; none when it has none.
    pub fn schema(self: &Arc<Self>) -> Result<Option<String>, Fault> {
        if !self.has_schema() {
            return Ok(None);
        }
        let options = InstanceOptions::for_inspection(self.name().into());
        self.instantiate(&options)?.schema()
    }
}
