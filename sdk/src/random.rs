//! Random numbers fit for cryptography, for filters that are granted the capability `random` in the YAML. A filter that never
//! calls this module does not import it. Natively they follow from [`testing::seed`](crate::testing::seed).

/// Any of 2⁶⁴ numbers.
pub fn number() -> u64 {
    host::number()
}

/// Fills `bytes`.
pub fn bytes(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&number().to_le_bytes()[..chunk.len()]);
    }
}

#[cfg(not(target_family = "wasm"))]
mod host {
    pub fn number() -> u64 {
        crate::testing::random()
    }
}

#[cfg(target_family = "wasm")]
use bindings::sluicegate::filter::random as host;

#[cfg(target_family = "wasm")]
#[allow(unsafe_code, clippy::all, missing_docs)]
mod bindings {
    sluicegate_sdk_macros::__import_bindings!(random);
}
