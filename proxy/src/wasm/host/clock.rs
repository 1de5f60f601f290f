//! The capability `clock`: the time of day, and one that never goes back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wasmtime::component::Linker;
use wasmtime::{Caller, Linker as CoreLinker, StoreContextMut};

use super::super::instance::Context;

/// One instance's clocks.
pub(in crate::wasm) struct Clock {
    begun: Instant,
}

impl Clock {
    pub(in crate::wasm) fn new() -> Self {
        Self {
            begun: Instant::now(),
        }
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z; 0 on a system whose clock stands before that.
    pub(in crate::wasm) fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        nanoseconds(since.unwrap_or_default())
    }

    /// Nanoseconds since the instance was made.
    pub(in crate::wasm) fn monotonic(&self) -> u64 {
        nanoseconds(self.begun.elapsed())
    }
}

/// 64 bits last until the year 2554.
fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn link_component(linker: &mut Linker<Context>, import: &str) -> wasmtime::Result<()> {
    let mut clock = linker.instance(import)?;
    clock.func_wrap("now", |mut store: StoreContextMut<'_, Context>, (): ()| {
        store.data_mut().host_calls.take()?;
        Ok((store.data().clock.now(),))
    })?;
    clock.func_wrap(
        "monotonic",
        |mut store: StoreContextMut<'_, Context>, (): ()| {
            store.data_mut().host_calls.take()?;
            Ok((store.data().clock.monotonic(),))
        },
    )
}

pub(super) fn link_core(linker: &mut CoreLinker<Context>, import: &str) -> wasmtime::Result<()> {
    linker.func_wrap(import, "now", |mut caller: Caller<'_, Context>| {
        caller.data_mut().host_calls.take()?;
        Ok(caller.data().clock.now())
    })?;
    linker.func_wrap(import, "monotonic", |mut caller: Caller<'_, Context>| {
        caller.data_mut().host_calls.take()?;
        Ok(caller.data().clock.monotonic())
    })?;
    Ok(())
}
