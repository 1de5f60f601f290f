//! Components, called as the component model says: typed functions of their exports, in either form of the contract.

use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower, TypedFunc,
};

use super::bindings::{Diagnostic, Field, Plan, ReadableFacts, RequestVerdict, ResponseVerdict};
use super::context::Context;
use super::contract::{Form, Phase};
use super::facts::{Facts, Shown};
use super::handover::{Restore, Save};
use super::module::Exports;
use super::{packed, readable};

/// The functions of one instance.
pub(super) struct Canonical {
    configure: TypedFunc<(&'static str,), (Result<Plan, Vec<Diagnostic>>,)>,
    schema: Option<TypedFunc<(), (String,)>>,
    phases: [Option<Function>; Phase::ALL.len()],
    resume: Option<Blocks>,
    handover: Option<(Save, Restore)>,
    /// The block of the last call, kept for its allocation.
    block: Vec<u8>,
}

/// A function from block to block.
type Blocks = TypedFunc<(&'static [u8],), (Vec<u8>,)>;
type ReadableResponseParams = (ReadableFacts, u16, Option<String>, Vec<Field>);

#[derive(Clone, Copy)]
enum Function {
    Packed(Blocks),
    Log(TypedFunc<(&'static [u8],), ()>),
    ReadableRequest(TypedFunc<(ReadableFacts, Vec<Field>), (RequestVerdict,)>),
    ReadableResponse(TypedFunc<ReadableResponseParams, (ResponseVerdict,)>),
}

impl Canonical {
    pub(super) fn new(
        pre: &InstancePre<Context>,
        exports: &Exports,
        store: &mut Store<Context>,
    ) -> wasmtime::Result<Self> {
        let instance = pre.instantiate(&mut *store)?;
        let mut phases = [None; Phase::ALL.len()];
        for phase in Phase::ALL {
            let Some((form, index)) = &exports.phases[phase as usize] else {
                continue;
            };
            let name = phase.as_str();
            phases[phase as usize] = Some(match (form, phase) {
                (Form::Packed, Phase::Log) => Function::Log(typed(&instance, store, index, name)?),
                (Form::Packed, _) => Function::Packed(typed(&instance, store, index, name)?),
                (Form::Readable, Phase::Response) => {
                    Function::ReadableResponse(typed(&instance, store, index, name)?)
                }
                (Form::Readable, _) => {
                    Function::ReadableRequest(typed(&instance, store, index, name)?)
                }
            });
        }
        Ok(Self {
            configure: typed(&instance, store, &exports.configure, "configure")?,
            schema: match &exports.schema {
                Some(index) => Some(typed(&instance, store, index, "schema")?),
                None => None,
            },
            resume: match &exports.resume {
                Some(index) => Some(typed(&instance, store, index, "resume")?),
                None => None,
            },
            handover: match &exports.handover {
                Some((save, restore)) => Some((
                    typed(&instance, store, save, "save")?,
                    typed(&instance, store, restore, "restore")?,
                )),
                None => None,
            },
            phases,
            block: Vec::new(),
        })
    }

    pub(super) fn configure(
        &self,
        store: &mut Store<Context>,
        settings: &str,
    ) -> wasmtime::Result<Result<Plan, Vec<Diagnostic>>> {
        let configure: TypedFunc<(&str,), _> = self.configure;
        configure.call(store, (settings,)).map(|(answer,)| answer)
    }

    pub(super) fn schema(&self, store: &mut Store<Context>) -> wasmtime::Result<Option<String>> {
        match self.schema {
            Some(schema) => schema.call(store, ()).map(|(schema,)| Some(schema)),
            None => Ok(None),
        }
    }

    /// Hands results over; a module without the function answers next, and is not asked.
    pub(super) fn resume(
        &mut self,
        store: &mut Store<Context>,
        block: &[u8],
        answer: &mut Vec<u8>,
    ) -> wasmtime::Result<()> {
        answer.clear();
        if let Some(resume) = self.resume {
            let resume: TypedFunc<(&[u8],), (Vec<u8>,)> = resume;
            *answer = resume.call(store, (block,))?.0;
        }
        Ok(())
    }

    /// What it keeps for the instance that takes its place; nothing where it has no such function.
    pub(super) fn save(
        &self,
        store: &mut Store<Context>,
        state: &mut Vec<u8>,
    ) -> wasmtime::Result<()> {
        if let Some((save, _)) = self.handover {
            *state = save.call(store, ())?.0;
        }
        Ok(())
    }

    /// Hands over what another saved; `reason` is why it was not taken, empty when it was.
    pub(super) fn restore(
        &self,
        store: &mut Store<Context>,
        state: &[u8],
        reason: &mut Vec<u8>,
    ) -> wasmtime::Result<()> {
        if let Some((_, restore)) = self.handover {
            let restore: TypedFunc<(&[u8],), (Vec<u8>,)> = restore;
            *reason = restore.call(store, (state,))?.0;
        }
        Ok(())
    }

    /// Puts the verdict over what `answer` held.
    pub(super) fn call(
        &mut self,
        store: &mut Store<Context>,
        phase: Phase,
        facts: &Facts<'_>,
        shown: Shown<'_>,
        answer: &mut Vec<u8>,
    ) -> wasmtime::Result<()> {
        let Some(function) = self.phases[phase as usize] else {
            answer.clear();
            return Ok(());
        };
        *answer = match function {
            Function::Packed(function) => {
                packed::Block::new(facts, shown).write_to(&mut self.block);
                let function: TypedFunc<(&[u8],), (Vec<u8>,)> = function;
                function.call(store, (&self.block,))?.0
            }
            Function::Log(function) => {
                packed::Block::new(facts, shown).write_to(&mut self.block);
                let function: TypedFunc<(&[u8],), ()> = function;
                function.call(store, (&self.block,))?;
                Vec::new()
            }
            Function::ReadableRequest(function) => {
                let request = (readable::facts(facts), readable::fields(shown));
                readable::pack_request(function.call(store, request)?.0)
            }
            Function::ReadableResponse(function) => {
                let response = (
                    readable::facts(facts),
                    facts.status,
                    readable::endpoint(facts),
                    readable::fields(shown),
                );
                readable::pack_response(function.call(store, response)?.0)
            }
        };
        Ok(())
    }
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
