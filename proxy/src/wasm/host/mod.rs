//! What filters may call, one capability a file: what a call does, in plain Rust, and how it is linked.
//!
//! Each capability is a part of an instance's context. Its logic takes plain arguments and knows nothing of wasmtime; the
//! function `link_component` beside it only lifts them out of a call.

mod clock;
mod log;
mod metrics;
mod random;

use wasmtime::component::Linker;

use super::instance::Context;
use super::module::PACKAGE;

pub(super) use clock::Clock;
pub(super) use log::Log;
pub(super) use metrics::Metrics;
pub(super) use random::Random;

pub use metrics::{FilterMetrics, MetricKind, MetricLabels, MetricValue};

/// Those that are imported, each an interface of its own name.
const CAPABILITIES: [&str; 4] = ["log", "metrics", "clock", "random"];

/// The capability that the interface `import` is, as `capabilities:` spells it.
pub(super) fn capability(import: &str) -> Option<&'static str> {
    let name = import.strip_prefix(PACKAGE).unwrap_or_default();
    let (name, _) = name.split_once('@').unwrap_or_default();
    CAPABILITIES.into_iter().find(|known| *known == name)
}

/// Links the interface `import` when it is that of a capability, and answers the capability as `capabilities:` spells it.
pub(super) fn link_component(
    linker: &mut Linker<Context>,
    import: &str,
) -> wasmtime::Result<Option<&'static str>> {
    let capability = capability(import);
    match capability {
        Some("log") => log::link_component(linker, import)?,
        Some("metrics") => metrics::link_component(linker, import)?,
        Some("clock") => clock::link_component(linker, import)?,
        Some("random") => random::link_component(linker, import)?,
        _ => {}
    }
    Ok(capability)
}
