//! The standard filters, compiled into the proxy by its build script.

/// In alphabetical order.
const MODULES: &[(&str, &[u8])] = &[
    (
        "auth-request",
        include_bytes!(concat!(env!("OUT_DIR"), "/auth-request.wasm")),
    ),
    (
        "headers",
        include_bytes!(concat!(env!("OUT_DIR"), "/headers.wasm")),
    ),
    (
        "rate-limit",
        include_bytes!(concat!(env!("OUT_DIR"), "/rate-limit.wasm")),
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

#[cfg(test)]
mod tests {
    use wit_component::{ComponentEncoder, DecodedWasm, decode};

    use super::*;

    /// The interfaces that `module` imports and exports once it is a component, without package and version.
    fn world(module: &[u8]) -> (Vec<String>, Vec<String>) {
        let component = ComponentEncoder::default()
            .module(module)
            .and_then(|encoder| encoder.validate(true).encode())
            .expect("a builtin module becomes a component");
        let Ok(DecodedWasm::Component(resolve, world)) = decode(&component) else {
            panic!("not a component");
        };
        let short = |key| {
            let name = resolve.name_world_key(key);
            let name = name.strip_prefix("sluicegate:filter/").unwrap_or(&name);
            name.strip_suffix("@0.1.0").unwrap_or(name).to_owned()
        };
        let world = &resolve.worlds[world];
        let mut exports: Vec<String> = world.exports.keys().map(short).collect();
        exports.sort();
        (world.imports.keys().map(short).collect(), exports)
    }

    #[test]
    fn modules_export_what_they_use_and_import_what_they_need() {
        let phases: [(&str, &[&str]); 6] = [
            ("auth-request", &["http-request"]),
            ("headers", &["http-request", "http-response"]),
            ("rate-limit", &["http-request", "http-response"]),
            ("router", &["http-request"]),
            (
                "sticky",
                &["http-request", "http-response", "stream-connect"],
            ),
            ("ua-block", &["http-request"]),
        ];
        assert_eq!(names(), phases.map(|(name, _)| name));
        for (name, phases) in phases {
            let (imports, exports) = world(builtin(name).expect("it is listed"));
            let mut expected = vec!["configuration"];
            expected.extend(phases);
            // Of every filter that the SDK makes: any phase may answer later.
            expected.extend(["resume", "settings-schema"]);
            expected.sort_unstable();
            assert_eq!(exports, expected, "{name}");
            let needs: &[&str] = match name {
                "rate-limit" => &["clock"],
                _ => &[],
            };
            assert_eq!(imports, needs, "{name}");
        }
        assert_eq!(builtin("no-such"), None);
    }
}
