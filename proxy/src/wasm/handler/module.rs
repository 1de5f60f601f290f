//! A compiled handler: what it is, and whether it can be one.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::engine::HandlerHost;
use super::guest::Guest;
use crate::wasm::module::{ModuleError, sniff};
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
        "exports no wasi:http/incoming-handler{}: it is no wasi:http proxy component",
        listed(.0)
    )]
    NoHandler(Vec<String>),
    #[error(
        "built for {0}, this build serves wasi:http@0.2; build it against the world wasi:http/proxy@0.2"
    )]
    OtherVersion(String),
    #[error("imports {0}, which handlers are not given")]
    UnknownImport(String),
    #[error("invalid WebAssembly: {0}")]
    Invalid(String),
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
    pub(super) host: HandlerHost,
    pub(super) pre: ProxyPre<Guest>,
}

impl Handler {
    pub(super) fn load(host: &HandlerHost, name: &str, bytes: &[u8]) -> Result<Self, HandlerError> {
        sniff(bytes)?;
        // The layer field of the header: 0 is a core module, 1 a component.
        if bytes.get(6..8) == Some(&[0, 0]) {
            return Err(HandlerError::Core);
        }
        let component = Component::from_binary(host.engine(), bytes)
            .map_err(|e| HandlerError::Invalid(tame_lines(&format!("{e:#}"), TEXT_SHOWN)))?;
        inspect(host, &component)?;
        let pre = host
            .linker()
            .instantiate_pre(&component)
            .and_then(ProxyPre::new)
            .map_err(|e| HandlerError::Invalid(tame_lines(&format!("{e:#}"), TEXT_SHOWN)))?;
        Ok(Self {
            name: name.into(),
            digest: Sha256::digest(bytes).into(),
            host: host.clone(),
            pre,
        })
    }

    /// As it was given to [`HandlerHost::load`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Says in words what the linker would say in types.
fn inspect(host: &HandlerHost, component: &Component) -> Result<(), HandlerError> {
    let ty = component.component_type();
    let exports: Vec<&str> = ty.exports(host.engine()).map(|(name, _)| name).collect();
    let imports: Vec<&str> = ty.imports(host.engine()).map(|(name, _)| name).collect();
    let serves = |name: &&str| {
        name.strip_prefix("wasi:http/incoming-handler@")
            .is_some_and(|version| version.starts_with("0.2."))
    };
    if !exports.iter().any(serves) {
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
        let version = name.rsplit_once('@').map(|(_, version)| version);
        let of_0_2 = version.is_some_and(|version| version.starts_with("0.2."));
        if name.starts_with(HTTP) && !of_0_2 {
            return Err(HandlerError::OtherVersion(tame(name, NAME_SHOWN)));
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
        if !(offered && of_0_2) {
            return Err(HandlerError::UnknownImport(tame(name, NAME_SHOWN)));
        }
    }
    Ok(())
}
