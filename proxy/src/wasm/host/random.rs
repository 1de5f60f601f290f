//! The capability `random`: numbers of the system's generator for cryptography, fetched by the block so that one costs
//! nanoseconds.

use wasmtime::component::Linker;
use wasmtime::{Caller, Linker as CoreLinker, StoreContextMut};

use super::access::Access;

/// What is fetched at one time: one system call for 64 numbers.
const BLOCK: usize = 512;
const NUMBER: usize = 8;

/// One instance's numbers. Two instances never see bytes of the same block.
pub(in crate::wasm) struct Random {
    /// Allocated with the first number.
    block: Vec<u8>,
}

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random numbers: {0}")]
pub(in crate::wasm) struct NoRandom(getrandom::Error);

impl Random {
    pub(in crate::wasm) fn new() -> Self {
        Self { block: Vec::new() }
    }

    /// A number that was never given before and is not kept afterwards.
    pub(in crate::wasm) fn number(&mut self) -> Result<u64, NoRandom> {
        if self.block.len() < NUMBER {
            self.block.resize(BLOCK, 0);
            if let Err(error) = getrandom::fill(&mut self.block) {
                self.block.clear();
                return Err(NoRandom(error));
            }
        }
        let rest = self.block.len() - NUMBER;
        let mut number = [0; NUMBER];
        number.copy_from_slice(&self.block[rest..]);
        self.block[rest..].fill(0);
        self.block.truncate(rest);
        Ok(u64::from_le_bytes(number))
    }
}

pub(super) fn link_component<T: 'static>(
    linker: &mut Linker<T>,
    import: &str,
    access: Access<T, Random>,
) -> wasmtime::Result<()> {
    linker.instance(import)?.func_wrap(
        "number",
        move |mut store: StoreContextMut<'_, T>, (): ()| {
            Ok((number(access.enter(store.data_mut())?)?,))
        },
    )
}

pub(super) fn link_core<T: 'static>(
    linker: &mut CoreLinker<T>,
    import: &str,
    access: Access<T, Random>,
) -> wasmtime::Result<()> {
    linker.func_wrap(import, "number", move |mut caller: Caller<'_, T>| {
        number(access.enter(caller.data_mut())?)
    })?;
    Ok(())
}

fn number(random: &mut Random) -> wasmtime::Result<u64> {
    random
        .number()
        .map_err(|error| wasmtime::Error::msg(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_repeat_over_blocks() {
        let mut random = Random::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(random.number().unwrap()));
        }
    }
}
