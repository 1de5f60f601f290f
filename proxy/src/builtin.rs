//! The standard filters, compiled into the proxy by its build script.

/// In alphabetical order.
const MODULES: &[(&str, &[u8])] = &[
    (
        "headers",
        include_bytes!(concat!(env!("OUT_DIR"), "/headers.wasm")),
    ),
    (
        "router",
        include_bytes!(concat!(env!("OUT_DIR"), "/router.wasm")),
    ),
    (
        "sticky",
        include_bytes!(concat!(env!("OUT_DIR"), "/sticky.wasm")),
    ),
    (
        "ua-block",
        include_bytes!(concat!(env!("OUT_DIR"), "/ua-block.wasm")),
    ),
];

const NAMES: [&str; MODULES.len()] = {
    let mut names = [""; MODULES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = MODULES[i].0;
        i += 1;
    }
    names
};

/// The module that `builtin:<name>` means: a core module with the component's type in a custom section.
pub fn builtin(name: &str) -> Option<&'static [u8]> {
    MODULES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, module)| *module)
}

/// What can stand after `builtin:`.
pub fn names() -> &'static [&'static str] {
    &NAMES
}
