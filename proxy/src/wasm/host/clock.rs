//! The capability `clock`: the time of day, and one that never goes back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wasmtime::component::Linker;
use wasmtime::{Caller, Linker as CoreLinker, StoreContextMut};

use super::access::Access;

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

pub(super) fn link_component<T: 'static>(
    linker: &mut Linker<T>,
    import: &str,
    access: Access<T, Clock>,
) -> wasmtime::Result<()> {
    let mut clock = linker.instance(import)?;
    clock.func_wrap("now", move |mut store: StoreContextMut<'_, T>, (): ()| {
        Ok((access.enter(store.data_mut())?.now(),))
    })?;
    clock.func_wrap(
        "monotonic",
        move |mut store: StoreContextMut<'_, T>, (): ()| {
            Ok((access.enter(store.data_mut())?.monotonic(),))
        },
    )
}

pub(super) fn link_core<T: 'static>(
    linker: &mut CoreLinker<T>,
    import: &str,
    access: Access<T, Clock>,
) -> wasmtime::Result<()> {
    linker.func_wrap(import, "now", move |mut caller: Caller<'_, T>| {
        Ok(access.enter(caller.data_mut())?.now())
    })?;
    linker.func_wrap(import, "monotonic", move |mut caller: Caller<'_, T>| {
        Ok(access.enter(caller.data_mut())?.monotonic())
    })?;
    Ok(())
}
