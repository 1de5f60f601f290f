//! Core modules that are called in one crossing (PACKED.md, "One crossing"), without the canonical ABI around each call.
//!
//! A module qualifies when it exports the three functions and imports nothing but capabilities of the contract; so does
//! a component that is nothing more than such a module in its wrapping. All others take the component's way, with the
//! same meaning.

use wasmparser::{Parser, Payload};
use wasmtime::{Linker, Memory, Store, TypedFunc};

use super::bindings::{Diagnostic, Plan};
use super::context::{Context, PLAN_BYTES_MAX};
use super::contract::{ModuleError, PACKAGE, Phase, check_version, newest};
use super::engine::Host;
use super::fault::{Fault, FaultKind, too_much};
use super::host;

const BLOCK: &str = "sluicegate:one-crossing@0.1.0#block";
const CONFIGURE: &str = "sluicegate:one-crossing@0.1.0#configure";
const CALL: &str = "sluicegate:one-crossing@0.1.0#call";
/// The number of `on-resume`.
pub(super) const RESUME: i32 = 13;
/// Those of `save` and `restore`.
pub(super) const SAVE: i32 = 14;
pub(super) const RESTORE: i32 = 15;
/// A global: where the guest writes down what it panicked with, as length and text.
const PANIC: &str = "sluicegate:one-crossing@0.1.0#panic";
/// Bytes of that which are read.
const PANIC_BYTES_MAX: usize = 1024;
const SCHEMA: &str = "sluicegate:filter/settings-schema@0.1.0#schema";
/// Room that is asked for at first, so that heads of usual size ask once.
const ROOM_BYTES_MIN: usize = 4096;

/// The core module that can be called in one crossing, when `bytes` are one or the wrapping of one.
///
/// A wrapping, as `wit-component` makes it, has the module, at most two small ones that pass imports on, and components
/// without modules of their own that give the exports their types. What is wired together out of several parts with
/// memories is a composition, and takes the component's way.
pub(super) fn core_module(bytes: &[u8]) -> Option<&[u8]> {
    let mut modules = Vec::new();
    let mut is_component = None;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.ok()? {
            Payload::Version { encoding, .. } => {
                is_component.get_or_insert(encoding == wasmparser::Encoding::Component);
            }
            Payload::ModuleSection {
                unchecked_range, ..
            } => modules.push(bytes.get(unchecked_range)?),
            _ => {}
        }
    }
    if is_component != Some(true) {
        modules.push(bytes);
    }
    let kinds: Vec<Kind> = modules.iter().map(|module| kind(module)).collect();
    if kinds.contains(&Kind::Other) {
        return None;
    }
    let mut direct = modules
        .iter()
        .zip(kinds)
        .filter(|(_, k)| *k == Kind::Direct);
    match (direct.next(), direct.next()) {
        (Some((module, _)), None) => Some(module),
        _ => None,
    }
}

/// What a core module is here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To be called in one crossing.
    Direct,
    /// Has no memory and imports nothing by name: it passes on what others import.
    Shim,
    Other,
}

fn kind(module: &[u8]) -> Kind {
    let (mut found, mut memory, mut offered, mut unnamed) = (0, false, true, true);
    for payload in Parser::new(0).parse_all(module) {
        match payload {
            Ok(Payload::ExportSection(exports)) => {
                let names = exports.into_iter().flatten().map(|export| export.name);
                found += names
                    .filter(|name| [BLOCK, CONFIGURE, CALL].contains(name))
                    .count();
            }
            Ok(Payload::ImportSection(imports)) => {
                for import in imports.into_imports() {
                    let Ok(import) = import else {
                        return Kind::Other;
                    };
                    offered &= host::capability(import.module).is_some();
                    unnamed &= import.module.is_empty();
                }
            }
            Ok(Payload::MemorySection(_)) => memory = true,
            Ok(_) => {}
            Err(_) => return Kind::Other,
        }
    }
    if found == 3 && offered {
        Kind::Direct
    } else if found == 0 && !memory && unnamed {
        Kind::Shim
    } else {
        Kind::Other
    }
}

/// A module that is ready to be instantiated.
pub(super) struct Linked {
    pre: wasmtime::InstancePre<Context>,
    pub(super) has_schema: bool,
    pub(super) can_resume: bool,
    pub(super) phases: [bool; Phase::ALL.len()],
    /// Capabilities that it imports, as `capabilities:` spells them.
    pub(super) wanted: Vec<&'static str>,
    pub(super) can_hand_over: bool,
    /// The newest version of the contract that is exported.
    pub(super) built: String,
}

impl Linked {
    pub(super) fn new(host: &Host, bytes: &[u8]) -> Result<Self, ModuleError> {
        let invalid = |e: wasmtime::Error| ModuleError::Invalid(format!("{e:#}"));
        let module = wasmtime::Module::from_binary(host.engine(), bytes).map_err(invalid)?;
        let names = module.exports().map(|export| export.name());
        let interfaces: Vec<String> = names
            .filter_map(|name| Some(name.split_once('#')?.0.to_owned()))
            .collect();
        for interface in &interfaces {
            check_version(interface)?;
        }
        let ours = interfaces.iter().filter(|name| name.starts_with(PACKAGE));
        let exports = |interface: &str, function: &str| {
            let name = format!("{PACKAGE}{interface}@0.1.0#{function}");
            module.get_export_index(&name).is_some()
        };
        let phases = Phase::ALL.map(|phase| {
            let (interface, function) = phase.packed();
            exports(interface, function)
        });
        let mut linker = Linker::new(host.engine());
        let mut imports: Vec<&str> = module.imports().map(|import| import.module()).collect();
        imports.dedup();
        imports.sort_unstable();
        imports.dedup();
        for import in &imports {
            check_version(import)?;
            host::link_core(&mut linker, import, &Context::CAPABILITIES).map_err(invalid)?;
        }
        let wanted = imports.iter().filter_map(|import| host::capability(import));
        Ok(Self {
            built: newest(&ours.collect::<Vec<_>>()),
            has_schema: module.get_export_index(SCHEMA).is_some(),
            can_resume: exports("resume", "on-resume"),
            phases,
            wanted: wanted.collect(),
            can_hand_over: exports("handover", "save") && exports("handover", "restore"),
            pre: linker.instantiate_pre(&module).map_err(invalid)?,
        })
    }

    pub(super) fn instantiate(&self, store: &mut Store<Context>) -> wasmtime::Result<Direct> {
        let instance = self.pre.instantiate(&mut *store)?;
        if let Ok(start) = instance.get_typed_func::<(), ()>(&mut *store, "_initialize") {
            start.call(&mut *store, ())?;
        }
        let memory = instance
            .get_memory(&mut *store, "memory")
            .ok_or_else(|| wasmtime::Error::msg("it exports no memory"))?;
        store.data_mut().memory = Some(memory);
        Ok(Direct {
            memory,
            block: instance.get_typed_func(&mut *store, BLOCK)?,
            configure: instance.get_typed_func(&mut *store, CONFIGURE)?,
            call: instance.get_typed_func(&mut *store, CALL)?,
            schema: match self.has_schema {
                true => Some(instance.get_typed_func(&mut *store, SCHEMA)?),
                false => None,
            },
            can_hand_over: self.can_hand_over,
            panic: instance
                .get_global(&mut *store, PANIC)
                .and_then(|global| global.get(&mut *store).i32())
                .map(|at| at as u32 as usize),
            room: (0, 0),
        })
    }
}

/// The functions of one instance.
pub(super) struct Direct {
    memory: Memory,
    block: TypedFunc<i32, i32>,
    configure: TypedFunc<i32, i64>,
    call: TypedFunc<(i32, i32), i64>,
    schema: Option<TypedFunc<(), i32>>,
    pub(super) can_hand_over: bool,
    /// Where its panics are written down, if it does that.
    panic: Option<usize>,
    /// Address and size of what `block` gave last.
    room: (usize, usize),
}

/// What `configure` answers.
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Configured {
    Plan(Plan),
    Diagnostics(Vec<Diagnostic>),
}

impl Direct {
    /// Calls function number `function` with `size` bytes that `write` fills; the answer is put over what `answer` held.
    #[inline]
    pub(super) fn call(
        &mut self,
        store: &mut Store<Context>,
        function: i32,
        size: usize,
        write: impl FnOnce(&mut [u8]),
        answer: &mut Vec<u8>,
        answer_max: usize,
    ) -> wasmtime::Result<Result<(), Fault>> {
        write(self.room(store, size)?);
        let packed = self.call.call(&mut *store, (function, size as i32))?;
        answer.clear();
        if (packed as u64) >> 32 == 0 {
            return Ok(Ok(()));
        }
        Ok(self
            .range(store, packed, answer_max)
            .map(|bytes| answer.extend_from_slice(bytes)))
    }

    pub(super) fn configure(
        &mut self,
        store: &mut Store<Context>,
        settings: &str,
    ) -> wasmtime::Result<Result<Result<Plan, Vec<Diagnostic>>, Fault>> {
        self.room(store, settings.len())?
            .copy_from_slice(settings.as_bytes());
        let packed = self.configure.call(&mut *store, settings.len() as i32)?;
        // Settings may be much larger than heads: the guest may have given their room back.
        self.room = (0, 0);
        let answer = match self.range(store, packed, PLAN_BYTES_MAX) {
            Ok(answer) => answer,
            Err(fault) => return Ok(Err(fault)),
        };
        Ok(match serde_json::from_slice(answer) {
            Ok(Configured::Plan(plan)) => Ok(Ok(plan)),
            Ok(Configured::Diagnostics(problems)) => Ok(Err(problems)),
            Err(error) => Err(Fault::new(
                FaultKind::Verdict,
                format!("its plan cannot be read: {error}"),
            )),
        })
    }

    /// The schema, as the canonical ABI has it: the function answers the address of address and length.
    pub(super) fn schema(
        &mut self,
        store: &mut Store<Context>,
    ) -> wasmtime::Result<Result<Option<String>, Fault>> {
        let Some(schema) = &self.schema else {
            return Ok(Ok(None));
        };
        let at = schema.call(&mut *store, ())? as u32 as usize;
        let memory = self.memory.data(&*store);
        let pair = at
            .checked_add(8)
            .and_then(|end| memory.get(at..end))
            .and_then(|pair| pair.try_into().ok());
        let text = match pair {
            Some(pair) => self.range(store, i64::from_le_bytes(pair), PLAN_BYTES_MAX),
            None => Err(outside()),
        };
        Ok(text.map(|text| Some(String::from_utf8_lossy(text).into_owned())))
    }

    /// What the guest said when it panicked last. It may lie about it, in as many words as fit.
    pub(super) fn panic_text(&self, store: &Store<Context>) -> Option<String> {
        let memory = self.memory.data(store);
        let (length, text) = memory.get(self.panic?..)?.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let text = text.get(..length.min(PANIC_BYTES_MAX))?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// So many bytes in the guest for the host to write.
    #[inline]
    fn room<'s>(
        &mut self,
        store: &'s mut Store<Context>,
        size: usize,
    ) -> wasmtime::Result<&'s mut [u8]> {
        if size > self.room.1 || self.room.1 == 0 {
            self.make_room(store, size)?;
        }
        let at = self.room.0;
        // `make_room` saw that it lies within the memory, which never shrinks.
        at.checked_add(size)
            .and_then(|end| self.memory.data_mut(store).get_mut(at..end))
            .ok_or_else(|| wasmtime::Error::msg("the room it gave is not in its memory"))
    }

    #[cold]
    fn make_room(&mut self, store: &mut Store<Context>, size: usize) -> wasmtime::Result<()> {
        let wanted = size.next_power_of_two().max(ROOM_BYTES_MIN);
        let wanted_by_guest = i32::try_from(wanted)
            .map_err(|_| wasmtime::Error::msg("a block does not fit into its memory"))?;
        let at = self.block.call(&mut *store, wanted_by_guest)? as u32 as usize;
        if at.saturating_add(wanted) > self.memory.data_size(&*store) {
            return Err(wasmtime::Error::msg(
                "the room it gave is not in its memory",
            ));
        }
        self.room = (at, wanted);
        Ok(())
    }

    /// What an answer points at: address in the low half, length in the high one.
    fn range<'s>(
        &self,
        store: &'s Store<Context>,
        packed: i64,
        max: usize,
    ) -> Result<&'s [u8], Fault> {
        let (at, length) = (packed as u32 as usize, (packed as u64 >> 32) as usize);
        if length > max {
            let message = too_much(length, max);
            return Err(Fault::new(FaultKind::Output, message));
        }
        let memory = self.memory.data(store);
        memory
            .get(at..at.saturating_add(length))
            .ok_or_else(outside)
    }
}

fn outside() -> Fault {
    Fault::new(FaultKind::Verdict, "what it answered is not in its memory")
}
