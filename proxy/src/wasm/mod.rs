//! The wasm host: engine, modules, instances, limits.
