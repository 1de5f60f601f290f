//! Lines in the proxy's own log, under the filter's name.
//!
//! The capability `log` must be granted in the YAML. A filter that never calls this module does not import it and needs
//! no grant. Natively the lines go to the [test harness](crate::testing::lines).

use std::fmt;

/// How loud a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

pub fn debug(message: impl fmt::Display) {
    line(Level::Debug, &message);
}

pub fn info(message: impl fmt::Display) {
    line(Level::Info, &message);
}

pub fn warn(message: impl fmt::Display) {
    line(Level::Warn, &message);
}

pub fn error(message: impl fmt::Display) {
    line(Level::Error, &message);
}

#[cfg(not(target_family = "wasm"))]
fn line(level: Level, message: &dyn fmt::Display) {
    crate::testing::collect(level, message.to_string());
}

#[cfg(target_family = "wasm")]
fn line(level: Level, message: &dyn fmt::Display) {
    use bindings::sluicegate::filter::log;

    let level = match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::log(level, &message.to_string());
}

#[cfg(target_family = "wasm")]
#[allow(unsafe_code, clippy::all, missing_docs)]
mod bindings {
    sluicegate_sdk_macros::__log_bindings!();
}
