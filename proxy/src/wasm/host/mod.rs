//! What filters may call, one capability a file: what a call does, in plain Rust, and how it is linked.
//!
//! Each capability is a part of an instance's context. Its logic takes plain arguments and knows nothing of wasmtime; the
//! functions `link_component` and `link_core` beside it only lift them out of a call: the first for components, the second for
//! modules that are called in one crossing.

mod access;
mod clock;
mod lift;
mod log;
mod metrics;
mod random;

use wasmtime::component::Linker;

use wasmtime::Linker as CoreLinker;

use super::contract::PACKAGE;

pub(super) use access::Access;
pub(super) use clock::Clock;
pub(super) use log::Log;
pub(super) use metrics::Metrics;
pub(super) use random::Random;

pub use metrics::{FilterMetrics, MetricKind, MetricLabels, MetricValue};

/// Where the functions of each capability find theirs.
pub(super) struct Accesses<T> {
    pub(super) log: Access<T, Log>,
    pub(super) metrics: Access<T, Metrics>,
    pub(super) clock: Access<T, Clock>,
    pub(super) random: Access<T, Random>,
}

/// Those that are imported, each an interface of its own name.
const CAPABILITIES: [&str; 4] = ["log", "metrics", "clock", "random"];

/// The capability that the interface `import` is, as `capabilities:` spells it.
pub(super) fn capability(import: &str) -> Option<&'static str> {
    let name = import.strip_prefix(PACKAGE).unwrap_or_default();
    let (name, _) = name.split_once('@').unwrap_or_default();
    CAPABILITIES.into_iter().find(|known| *known == name)
}

/// Links the interface `import` when it is that of a capability, and answers the capability as `capabilities:` spells it.
pub(super) fn link_component<T: 'static>(
    linker: &mut Linker<T>,
    import: &str,
    accesses: &Accesses<T>,
) -> wasmtime::Result<Option<&'static str>> {
    let capability = capability(import);
    match capability {
        Some("log") => log::link_component(linker, import, accesses.log)?,
        Some("metrics") => metrics::link_component(linker, import, accesses.metrics)?,
        Some("clock") => clock::link_component(linker, import, accesses.clock)?,
        Some("random") => random::link_component(linker, import, accesses.random)?,
        _ => {}
    }
    Ok(capability)
}

/// The same for a module that is called in one crossing.
pub(super) fn link_core<T: 'static>(
    linker: &mut CoreLinker<T>,
    import: &str,
    accesses: &Accesses<T>,
) -> wasmtime::Result<()> {
    match capability(import) {
        Some("log") => log::link_core(linker, import, accesses.log),
        Some("metrics") => metrics::link_core(linker, import, accesses.metrics),
        Some("clock") => clock::link_core(linker, import, accesses.clock),
        Some("random") => random::link_core(linker, import, accesses.random),
        _ => Ok(()),
    }
}
