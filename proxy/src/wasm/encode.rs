//! Makes a component of a core module.
//!
//! A module built with the SDK or wit-bindgen carries its world in a custom section. One without (written by hand, or
//! by a compiler that knows nothing of components) gets a world from the names it exports:
//! `sluicegate:filter/http-request@0.1.0#on-request` and so on.

use std::collections::BTreeSet;

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use super::contract::{ModuleError, PACKAGE, check_version};
use super::host;

/// The contract, as published.
const CONTRACT: &str = include_str!("../../../wit/filter.wit");

/// What kind of binary the bytes are, once they parse to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Core,
    Component,
}

/// The parts of a core module that decide how it becomes a component.
#[derive(Debug, Default)]
struct Outline {
    /// It carries the world it was built for.
    typed: bool,
    /// Interfaces of functions it exports, such as `sluicegate:filter/http-request@0.1.0`.
    exports: BTreeSet<String>,
    imports: BTreeSet<String>,
}

/// The bytes of a component: the given ones, or the component made of the core module they are.
pub(super) fn component(bytes: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, ModuleError> {
    match outline(bytes)? {
        (Encoding::Component, _) => Ok(bytes.into()),
        (Encoding::Core, outline) => encode(bytes, &outline).map(Into::into),
    }
}

/// Walks the binary to its end, so that a truncated file is told apart from a malformed one.
fn outline(bytes: &[u8]) -> Result<(Encoding, Outline), ModuleError> {
    let mut encoding = None;
    let mut depth = 0usize;
    let mut outline = Outline::default();
    let broken = |error: wasmparser::BinaryReaderError| {
        if error.message().contains("unexpected end") {
            ModuleError::Truncated { size: bytes.len() }
        } else {
            ModuleError::Invalid(error.to_string())
        }
    };
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: kind, .. } if encoding.is_none() => {
                encoding = Some(match kind {
                    wasmparser::Encoding::Module => Encoding::Core,
                    wasmparser::Encoding::Component => Encoding::Component,
                });
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(broken)?;
                    if let Some((interface, _)) = export.name.split_once('#') {
                        // `cabi_post_…` and the like belong to a function that is there too.
                        if !interface.starts_with("cabi_") {
                            outline.exports.insert(interface.to_owned());
                        }
                    }
                }
            }
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    outline
                        .imports
                        .insert(import.map_err(broken)?.module.to_owned());
                }
            }
            Payload::CustomSection(section)
                if depth == 0 && section.name().starts_with("component-type") =>
            {
                outline.typed = true;
            }
            _ => {}
        }
    }
    let encoding = encoding.ok_or(ModuleError::Truncated { size: bytes.len() })?;
    Ok((encoding, outline))
}

fn encode(bytes: &[u8], outline: &Outline) -> Result<Vec<u8>, ModuleError> {
    if let Some(preview1) = outline
        .imports
        .iter()
        .find(|name| name.starts_with("wasi_snapshot_preview1") || *name == "wasi_unstable")
    {
        return Err(ModuleError::Preview1(preview1.clone()));
    }
    let described;
    let bytes = if outline.typed {
        bytes
    } else {
        described = describe(bytes, outline)?;
        &described
    };
    // The result is validated when it is compiled.
    ComponentEncoder::default()
        .validate(false)
        .module(bytes)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| ModuleError::Encode(format!("{e:#}")))
}

/// Adds the world that the module's own names speak of.
fn describe(bytes: &[u8], outline: &Outline) -> Result<Vec<u8>, ModuleError> {
    let exports: Vec<&String> = outline
        .exports
        .iter()
        .filter(|name| name.starts_with(PACKAGE))
        .collect();
    if exports.is_empty() {
        return Err(ModuleError::NoFilter {
            exports: outline.exports.iter().cloned().collect(),
        });
    }
    for name in exports.iter().copied().chain(&outline.imports) {
        check_version(name)?;
    }
    // Without a world nothing says what types other imports have.
    let unknown = |name: &&String| host::capability(name).is_none();
    if let Some(unknown) = outline.imports.iter().find(unknown) {
        return Err(ModuleError::UnknownImport(unknown.clone()));
    }
    let mut world = String::from("package sluicegate:module;\nworld filter {\n");
    for name in &outline.imports {
        world.push_str(&format!("  import {name};\n"));
    }
    for name in exports {
        world.push_str(&format!("  export {name};\n"));
    }
    world.push_str("}\n");

    let encode = || -> anyhow::Result<Vec<u8>> {
        let mut resolve = Resolve::default();
        resolve.push_source("filter.wit", CONTRACT)?;
        let package = resolve.push_source("module.wit", &world)?;
        let world = resolve.select_world(&[package], Some("filter"))?;
        let mut bytes = bytes.to_vec();
        wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)?;
        Ok(bytes)
    };
    encode().map_err(|e| ModuleError::Encode(format!("{e:#}")))
}
