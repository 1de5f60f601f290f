//! A compiled handler: what it is, and whether it can be one.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmparser::{Parser, Payload};
use wasmtime::component::Component;
use wasmtime_wasi_http::{p2, p3};

use super::super::log::LogSink;
use super::engine::{HandlerHost, Lane};
use super::guest::Guest;
use super::version::Version;
use crate::wasm::contract::ModuleError;
use crate::wasm::module::sniff;
use crate::wasm::words::{tame, tame_lines};

const HTTP: &str = "wasi:http/";
const NAME_SHOWN: usize = 128;
const TEXT_SHOWN: usize = 1024;
const EXPORTS_SHOWN: usize = 5;

/// Why bytes are no handler. The text is for whoever configured the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    #[error("{0}")]
    File(#[from] ModuleError),
    #[error(
        "it is a core module, not a component; build it with --target wasm32-wasip2, or make it one with `wasm-tools component new`"
    )]
    Core,
    #[error(
        "exports neither wasi:http/incoming-handler nor wasi:http/handler{}: it answers no HTTP requests",
        listed(.0)
    )]
    NoHandler(Vec<String>),
    #[error(
        "built for {0}, this build serves wasi:http 0.2 and 0.3; build it against the world wasi:http/proxy@0.2 or wasi:http/service@0.3"
    )]
    OtherVersion(String),
    #[error(
        "imports {0}: it is middleware, behind which there must be a handler, and cannot be an endpoint"
    )]
    Middleware(String),
    #[error("imports {0}, which handlers are not given")]
    UnknownImport(String),
    #[error("invalid WebAssembly: {0}")]
    Invalid(String),
    /// Nothing that the file is to blame for.
    #[error("{0}")]
    Host(String),
}

fn listed(exports: &[String]) -> String {
    match exports.len() {
        0 => String::new(),
        n => format!(
            " (it exports {}{})",
            exports[..n.min(EXPORTS_SHOWN)].join(", "),
            if n > EXPORTS_SHOWN { ", …" } else { "" }
        ),
    }
}

/// Shared by every pool that uses the same file.
pub struct Handler {
    name: Arc<str>,
    digest: [u8; 32],
    pub(super) lane: Arc<Lane>,
    pub(super) log: LogSink,
    pub(super) world: World,
}

/// What a component is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Endpoint,
    /// It may import the handler behind it.
    Middleware,
}

/// What is called, and how.
pub(super) enum World {
    Proxy(p2::bindings::ProxyPre<Guest>),
    Service(p3::bindings::ServicePre<Guest>),
}

impl Handler {
    /// Compiles a component and looks at what it is. Takes from milliseconds to seconds of processor time: for the
    /// control thread. `name` is for messages.
    pub fn load(host: &HandlerHost, name: &str, bytes: &[u8]) -> Result<Arc<Self>, HandlerError> {
        Self::compile(host, Use::Endpoint, name, bytes).map(Arc::new)
    }

    /// The same of a component that [`is_middleware`](super::is_middleware).
    pub fn load_middleware(
        host: &HandlerHost,
        name: &str,
        bytes: &[u8],
    ) -> Result<Arc<Self>, HandlerError> {
        Self::compile(host, Use::Middleware, name, bytes).map(Arc::new)
    }

    fn compile(
        host: &HandlerHost,
        wanted: Use,
        name: &str,
        bytes: &[u8],
    ) -> Result<Self, HandlerError> {
        sniff(bytes)?;
        // The layer field of the header: 0 is a core module, 1 a component.
        if bytes.get(6..8) == Some(&[0, 0]) {
            return Err(HandlerError::Core);
        }
        let version = version(bytes);
        let lane = host
            .lane(version)
            .map_err(|e| HandlerError::Host(e.to_string()))?;
        let invalid =
            |e: wasmtime::Error| HandlerError::Invalid(tame_lines(&format!("{e:#}"), TEXT_SHOWN));
        let component = Component::from_binary(&lane.engine, bytes).map_err(invalid)?;
        inspect(lane, version, wanted, &component)?;
        let linked = lane.linker.instantiate_pre(&component);
        let world = match version {
            Version::V2 => linked
                .and_then(p2::bindings::ProxyPre::new)
                .map(World::Proxy),
            Version::V3 => linked
                .and_then(p3::bindings::ServicePre::new)
                .map(World::Service),
        };
        Ok(Self {
            name: name.into(),
            digest: Sha256::digest(bytes).into(),
            lane: lane.clone(),
            log: match wanted {
                Use::Endpoint => host.log().clone(),
                // Its name is that of a filter.
                Use::Middleware => LogSink::tracing(),
            },
            world: world.map_err(invalid)?,
        })
    }

    /// As it was given to [`Handler::load`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub fn digest_hex(&self) -> String {
        self.digest.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Which engine is to compile a component. What is wrong with its bytes is for the compiler to say.
fn version(bytes: &[u8]) -> Version {
    match outline(bytes).exports {
        true => Version::V3,
        false => Version::V2,
    }
}

/// Whether the bytes are a component of `wasi:http/middleware` 0.3: one that exports a handler and imports another.
pub fn is_middleware(bytes: &[u8]) -> bool {
    let outline = outline(bytes);
    outline.exports && outline.imports
}

/// Whether a component has the handler of 0.3 on its outside.
#[derive(Default)]
struct Outline {
    exports: bool,
    imports: bool,
}

fn outline(bytes: &[u8]) -> Outline {
    let mut outline = Outline::default();
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentExportSection(section)) if depth == 0 => {
                let mut exports = section.into_iter().flatten();
                outline.exports |= exports.any(|e| is_served(e.name.name, Version::V3));
            }
            Ok(Payload::ComponentImportSection(section)) if depth == 0 => {
                let mut imports = section.into_iter().flatten();
                outline.imports |= imports.any(|i| is_served(i.name.name, Version::V3));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    outline
}

/// Whether `name` is the interface by which a component of `version` is given requests.
fn is_served(name: &str, version: Version) -> bool {
    let of = match version {
        Version::V2 => name.strip_prefix("wasi:http/incoming-handler@"),
        Version::V3 => name.strip_prefix("wasi:http/handler@"),
    };
    of.is_some_and(|v| is_of(v, version))
}

/// Whether a version of WASI is that or a later one of the same line, and no draft of it.
fn is_of(number: &str, version: Version) -> bool {
    let line = match version {
        Version::V2 => "0.2.",
        Version::V3 => "0.3.",
    };
    let patch = number.strip_prefix(line);
    patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

/// Says in words what the linker would say in types.
fn inspect(
    lane: &Lane,
    version: Version,
    wanted: Use,
    component: &Component,
) -> Result<(), HandlerError> {
    let ty = component.component_type();
    let exports: Vec<&str> = ty.exports(&lane.engine).map(|(name, _)| name).collect();
    let imports: Vec<&str> = ty.imports(&lane.engine).map(|(name, _)| name).collect();
    if !exports.iter().any(|name| is_served(name, version)) {
        let handles = |name: &&&str| {
            name.starts_with("wasi:http/incoming-handler@")
                || name.starts_with("wasi:http/handler@")
        };
        return Err(match exports.iter().find(handles) {
            Some(other) => HandlerError::OtherVersion(tame(other, NAME_SHOWN)),
            None => HandlerError::NoHandler(
                (exports.iter().take(EXPORTS_SHOWN + 1))
                    .map(|name| tame(name, NAME_SHOWN))
                    .collect(),
            ),
        });
    }
    for name in imports {
        let number = name.rsplit_once('@').map_or("", |(_, number)| number);
        let known = match version {
            Version::V2 => is_of(number, Version::V2),
            Version::V3 => is_of(number, Version::V2) || is_of(number, Version::V3),
        };
        if name.starts_with(HTTP) && !known {
            return Err(HandlerError::OtherVersion(tame(name, NAME_SHOWN)));
        }
        if name.starts_with("wasi:http/handler@") && wanted == Use::Endpoint {
            return Err(HandlerError::Middleware(tame(name, NAME_SHOWN)));
        }
        let package = name.split_once('/').map_or("", |(package, _)| package);
        let offered = matches!(
            package,
            "wasi:cli"
                | "wasi:clocks"
                | "wasi:filesystem"
                | "wasi:http"
                | "wasi:io"
                | "wasi:random"
                | "wasi:sockets"
        );
        if !(offered && known) {
            return Err(HandlerError::UnknownImport(tame(name, NAME_SHOWN)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_and_other_lines_are_told_apart() {
        for name in ["wasi:http/handler@0.3.0", "wasi:http/handler@0.3.12"] {
            assert!(is_served(name, Version::V3), "{name}");
            assert!(!is_served(name, Version::V2), "{name}");
        }
        for name in [
            "wasi:http/handler@0.3.0-rc-2026-03-15",
            "wasi:http/handler@0.3.",
            "wasi:http/handler@0.4.0",
            "wasi:http/handler",
            "wasi:http/types@0.3.0",
        ] {
            assert!(!is_served(name, Version::V3), "{name}");
        }
        assert!(is_served("wasi:http/incoming-handler@0.2.6", Version::V2));
    }
}
