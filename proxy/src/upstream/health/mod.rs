//! Health: probes, how an endpoint stands, and the loop on the control runtime that keeps both up to date.

mod checks;
pub(super) mod ejection;
mod http;
mod names;
mod pace;
mod probe;
mod row;
mod schedule;
mod sightings;
mod standing;
mod tcp;

pub use checks::Checks;
pub(super) use sightings::NameState;
pub(super) use standing::{EJECTION_FALL, LOAD_UNIT, Standing, Turn};
pub use standing::{Note, Verdict};

use super::endpoint::Endpoint;

/// Writes a change of standing to the log.
pub(super) fn announce(endpoint: &Endpoint, turn: Turn, reason: &str) {
    let (pool, name) = (&*endpoint.pool, &*endpoint.text);
    match turn {
        Turn::Up => tracing::info!(pool, endpoint = name, reason, "endpoint is up"),
        Turn::Down => tracing::warn!(pool, endpoint = name, reason, "endpoint is down"),
    }
}

#[cfg(test)]
mod tests;
