//! The capability `log`: lines in the proxy's own log, under the filter's name.

use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{Caller, Linker as CoreLinker, StoreContextMut};

use super::super::bindings::LogLevel;
use super::super::log::{Level, LogSink};
use super::access::Access;
use super::lift;

/// Lines a guest may log in one call; further ones are dropped.
const LINES_MAX: u32 = 64;

/// One instance's use of the log.
pub(in crate::wasm) struct Log {
    filter: Arc<str>,
    /// None when it was not granted.
    sink: Option<LogSink>,
    lines_left: u32,
}

impl Log {
    pub(in crate::wasm) fn new(filter: Arc<str>, sink: Option<LogSink>) -> Self {
        Self {
            filter,
            sink,
            lines_left: LINES_MAX,
        }
    }

    /// A call begins.
    pub(in crate::wasm) fn begin(&mut self) {
        self.lines_left = LINES_MAX;
    }

    /// One line of the guest's, if it may log and has not logged too much in this call.
    pub(in crate::wasm) fn print(&mut self, level: Level, message: &str) {
        let Some(sink) = &self.sink else { return };
        match self.lines_left {
            0 => {}
            1 => {
                self.lines_left = 0;
                sink.write(
                    &self.filter,
                    Level::Warn,
                    "further lines of this call are dropped",
                );
            }
            _ => {
                self.lines_left -= 1;
                sink.write(&self.filter, level, message);
            }
        }
    }
}

pub(super) fn link_component<T: 'static>(
    linker: &mut Linker<T>,
    import: &str,
    access: Access<T, Log>,
) -> wasmtime::Result<()> {
    linker.instance(import)?.func_wrap(
        "log",
        move |mut store: StoreContextMut<'_, T>, (level, message): (LogLevel, String)| {
            let level = match level {
                LogLevel::Debug => Level::Debug,
                LogLevel::Info => Level::Info,
                LogLevel::Warn => Level::Warn,
                LogLevel::Error => Level::Error,
            };
            access.enter(store.data_mut())?.print(level, &message);
            Ok(())
        },
    )
}

pub(super) fn link_core<T: 'static>(
    linker: &mut CoreLinker<T>,
    import: &str,
    access: Access<T, Log>,
) -> wasmtime::Result<()> {
    linker.func_wrap(
        import,
        "log",
        move |mut caller: Caller<'_, T>, level: i32, at: i32, length: i32| {
            access.enter(caller.data_mut())?;
            let level = match level {
                0 => Level::Debug,
                1 => Level::Info,
                2 => Level::Warn,
                3 => Level::Error,
                _ => return Err(wasmtime::Error::msg("no such level of the log")),
            };
            let message = lift::text(&caller, (access.memory)(caller.data()), at, length)?;
            (access.part)(caller.data_mut()).print(level, &message);
            Ok(())
        },
    )?;
    Ok(())
}
