//! The time, for filters that are granted the capability `clock` in the YAML. A filter that never calls this module does
//! not import it. Natively the time is what [`testing::set_clock`](crate::testing::set_clock) says.

use std::time::Duration;

/// Since 1970-01-01T00:00:00Z.
pub fn now() -> Duration {
    Duration::from_nanos(host::now())
}

/// Of a clock that never goes back, since some time: differences tell, values do not.
pub fn monotonic() -> Duration {
    Duration::from_nanos(host::monotonic())
}

#[cfg(not(target_family = "wasm"))]
mod host {
    pub fn now() -> u64 {
        crate::testing::clock()
    }

    pub fn monotonic() -> u64 {
        crate::testing::clock()
    }
}

#[cfg(target_family = "wasm")]
use bindings::sluicegate::filter::clock as host;

#[cfg(target_family = "wasm")]
#[allow(unsafe_code, clippy::all, missing_docs)]
mod bindings {
    sluicegate_sdk_macros::__import_bindings!(clock);
}
