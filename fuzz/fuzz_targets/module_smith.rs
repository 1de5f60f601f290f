//! Modules that are valid, with the exports of a filter and anything inside. What this finds is kept as a module in
//! `corpus/module`.
#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use wasm_smith::{Config, Module};

/// A filter that does nothing.
const FILTER: &[u8] = include_bytes!("../corpus/module/filter");

/// A filter that imports the log and nothing else.
const LOGS: &[u8] = include_bytes!("../corpus/module/imports");

fuzz_target!(|data: &[u8]| {
    let mut bytes = Unstructured::new(data);
    let Ok(mut config) = Config::arbitrary(&mut bytes) else {
        return;
    };
    config.exports = Some(FILTER.to_vec());
    config.min_funcs = 0;
    config.max_imports = 0;
    if bool::arbitrary(&mut bytes).unwrap_or_default() {
        config.available_imports = Some(LOGS.to_vec());
    }
    config.max_memories = 1;
    config.gc_enabled = false;
    config.threads_enabled = false;
    config.memory64_enabled = false;
    let Ok(module) = Module::new(config, &mut bytes) else {
        return;
    };
    let module = module.to_bytes();
    if std::env::var_os("FUZZ_KEEP").is_some() {
        // For keeping what was found: cargo fuzz run module_smith ARTIFACT.
        let _ = std::fs::write("module.wasm", &module);
    }
    sluicegate_tests::fuzz::module(&module);
});
