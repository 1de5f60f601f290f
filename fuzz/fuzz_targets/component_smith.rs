//! Components that are valid, of any shape. Hardly one is a filter: what is fuzzed is how they are looked at and refused.
//! What this finds is kept as a component in `corpus/module`.
#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use wasm_smith::{Component, Config};

fuzz_target!(|data: &[u8]| {
    let mut bytes = Unstructured::new(data);
    let Ok(mut config) = Config::arbitrary(&mut bytes) else {
        return;
    };
    config.gc_enabled = false;
    config.threads_enabled = false;
    config.memory64_enabled = false;
    let Ok(component) = Component::new(config, &mut bytes) else {
        return;
    };
    let component = component.to_bytes();
    if std::env::var_os("FUZZ_KEEP").is_some() {
        // For keeping what was found: component_smith ARTIFACT.
        let _ = std::fs::write("component.wasm", &component);
    }
    sluicegate_tests::fuzz::module(&component);
});
