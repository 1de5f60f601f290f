//! What the code written by `#[filter]` calls. No part of the interface that filters see.

use std::cell::RefCell;

use crate::filter::{Exports, Filter};
use crate::plan::{Diagnostic, Plan, Setup};
use crate::settings;

pub use crate::plan::{BodyMode, Interest, OverCap, Phases};
pub use crate::predicate::Test;
#[cfg(target_family = "wasm")]
pub use wit_bindgen;

/// Makes the filter from its settings.
pub fn configure<F: Filter + Exports>(text: &str) -> Result<(F, Plan), Vec<Diagnostic>> {
    let settings = settings::parse::<F::Settings>(text)?;
    let mut setup = Setup::new(F::PHASES);
    let made = F::configure(settings, &mut setup);
    let (plan, mut problems) = setup.finish();
    match made {
        Ok(filter) if problems.is_empty() => Ok((filter, plan)),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more.0);
            if problems.is_empty() {
                problems.push(Diagnostic::new("", "the filter refused its settings"));
            }
            Err(problems)
        }
    }
}

/// Goes on with a verdict that comes later: the host's results in, the answer of the suspended call out.
pub fn resume(results: &[u8]) -> Vec<u8> {
    crate::effect::executor::resume(results)
}

/// The JSON Schema of the settings.
pub fn schema<F: Filter>() -> String {
    schemars::schema_for!(F::Settings).as_value().to_string()
}

/// The one filter of a wasm instance.
#[derive(Debug)]
pub struct Instance<F>(RefCell<Option<F>>);

impl<F> Instance<F> {
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    pub fn put(&self, filter: F) {
        *self.0.borrow_mut() = Some(filter);
    }

    /// Calls the filter. The host configures an instance first and never calls it from inside itself; a host that did
    /// would see a trap.
    pub fn call<R>(&self, f: impl FnOnce(&mut F) -> R) -> R {
        f(self
            .0
            .borrow_mut()
            .as_mut()
            .expect("the host configures a filter before it calls it"))
    }
}

impl<F> Default for Instance<F> {
    fn default() -> Self {
        Self::new()
    }
}

/// The state of the filter as the contract has it; nothing when it keeps none.
pub fn save<F: Filter>(filter: &F) -> Vec<u8> {
    filter
        .save()
        .map_or_else(Vec::new, crate::Saved::into_block)
}

/// Hands a state to the filter. What it has against it comes back; nothing when it took it.
pub fn restore<F: Filter>(filter: &mut F, block: &[u8]) -> Vec<u8> {
    let Some((version, state)) = block.split_first_chunk() else {
        return b"the state has no version".to_vec();
    };
    match filter.restore(u32::from_le_bytes(*version), state) {
        Ok(()) => Vec::new(),
        Err(why) if why.0.is_empty() => b"the filter does not take it".to_vec(),
        Err(why) => why.0.into_bytes(),
    }
}
