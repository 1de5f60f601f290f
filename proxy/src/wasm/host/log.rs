//! The capability `log`: lines in the proxy's own log, under the filter's name.

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::super::bindings::LogLevel;
use super::super::instance::Context;
use super::super::log::{Level, LogSink};

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

pub(super) fn link_component(linker: &mut Linker<Context>, import: &str) -> wasmtime::Result<()> {
    linker.instance(import)?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, Context>, (level, message): (LogLevel, String)| {
            let level = match level {
                LogLevel::Debug => Level::Debug,
                LogLevel::Info => Level::Info,
                LogLevel::Warn => Level::Warn,
                LogLevel::Error => Level::Error,
            };
            store.data_mut().log.print(level, &message);
            Ok(())
        },
    )
}
