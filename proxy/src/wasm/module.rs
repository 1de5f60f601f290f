//! A compiled module: what it is, what it exports, what it asks for.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};

use super::context::Context;
use super::contract::{Form, ModuleError, PACKAGE, Phase, check_version, newest};
use super::direct::{self, Linked};
use super::encode;
use super::engine::Host;
use super::host;
use super::wasi;
use crate::config::Capabilities;

/// Larger files are refused before they are looked at.
pub const MODULE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A compiled filter module. Shared by every filter that uses the same file; makes their instances.
pub struct Module {
    name: Arc<str>,
    digest: [u8; 32],
    size: usize,
    host: Host,
    pub(super) way: Way,
    /// Capabilities that it imports, as `capabilities:` spells them.
    wanted: Vec<&'static str>,
    uses_wasi: bool,
}

/// How its functions are called.
pub(super) enum Way {
    /// In one crossing.
    Direct(Linked),
    /// As the component model says.
    Component {
        pre: InstancePre<Context>,
        exports: Box<Exports>,
    },
}

/// Where the exported functions are.
pub(super) struct Exports {
    pub(super) configure: ComponentExportIndex,
    pub(super) schema: Option<ComponentExportIndex>,
    pub(super) phases: [Option<(Form, ComponentExportIndex)>; Phase::ALL.len()],
    pub(super) resume: Option<ComponentExportIndex>,
    /// `save` and `restore`.
    pub(super) handover: Option<(ComponentExportIndex, ComponentExportIndex)>,
    /// The newest version of the contract that is exported.
    built: String,
}

impl Module {
    /// Compiles a component, or a core module that is made into one, and looks at what it is. Takes from
    /// milliseconds to seconds of processor time: for the control thread. `name` is for messages.
    pub fn load(host: &Host, name: &str, bytes: &[u8]) -> Result<Arc<Self>, ModuleError> {
        let compiled = Self::compile(host, name, bytes);
        compiled.map(Arc::new).map_err(ModuleError::tamed)
    }

    fn compile(host: &Host, name: &str, bytes: &[u8]) -> Result<Self, ModuleError> {
        sniff(bytes)?;
        let (way, wanted, uses_wasi) = match direct::core_module(bytes) {
            Some(core) => {
                let linked = Linked::new(host, core)?;
                let wanted = linked.wanted.clone();
                (Way::Direct(linked), wanted, false)
            }
            None => Self::component(host, bytes)?,
        };
        Ok(Self {
            name: name.into(),
            digest: Sha256::digest(bytes).into(),
            size: bytes.len(),
            host: host.clone(),
            way,
            wanted,
            uses_wasi,
        })
    }

    /// Compiles and links it as a component. Tells also whether it imports the log, and WASI.
    fn component(host: &Host, bytes: &[u8]) -> Result<(Way, Vec<&'static str>, bool), ModuleError> {
        let encoded = encode::component(bytes)?;
        let component = Component::from_binary(host.engine(), &encoded)
            .map_err(|e| ModuleError::Invalid(format!("{e:#}")))?;
        let exports = exports(host, &component)?;
        let mut linker = Linker::new(host.engine());
        let (wanted, uses_wasi) = link(host, &component, &mut linker)?;
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|e| ModuleError::Invalid(format!("{e:#}")))?;
        let exports = Box::new(exports);
        Ok((Way::Component { pre, exports }, wanted, uses_wasi))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the bytes as they were given.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub fn digest_hex(&self) -> String {
        use std::fmt::Write;
        self.digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// Bytes of the file.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// In which form the phase is exported, if it is.
    pub fn phase(&self, phase: Phase) -> Option<Form> {
        match &self.way {
            Way::Direct(linked) => linked.phases[phase as usize].then_some(Form::Packed),
            Way::Component { exports, .. } => exports.phases[phase as usize].map(|(form, _)| form),
        }
    }

    /// A phase may suspend: there is a way to resume it.
    pub fn can_resume(&self) -> bool {
        match &self.way {
            Way::Direct(linked) => linked.can_resume,
            Way::Component { exports, .. } => exports.resume.is_some(),
        }
    }

    pub fn has_schema(&self) -> bool {
        match &self.way {
            Way::Direct(linked) => linked.has_schema,
            Way::Component { exports, .. } => exports.schema.is_some(),
        }
    }

    /// It is called in one crossing, which a call of a component takes three of.
    pub fn is_direct(&self) -> bool {
        matches!(self.way, Way::Direct(_))
    }

    /// The version of the contract it was built for: the newest among its exports.
    pub fn contract(&self) -> &str {
        match &self.way {
            Way::Direct(linked) => &linked.built,
            Way::Component { exports, .. } => &exports.built,
        }
    }

    /// It hands its state over on reload.
    pub fn hands_over(&self) -> bool {
        match &self.way {
            Way::Direct(linked) => linked.can_hand_over,
            Way::Component { exports, .. } => exports.handover.is_some(),
        }
    }

    pub fn uses_wasi(&self) -> bool {
        self.uses_wasi
    }

    /// The names of capabilities it imports, as `capabilities:` spells them.
    pub fn wanted_capabilities(&self) -> &[&'static str] {
        &self.wanted
    }

    /// The capabilities that are imported but not granted. A module that has some is not instantiated.
    pub fn missing_capabilities(&self, granted: &Capabilities) -> Vec<&'static str> {
        let wanted = self.wanted.iter().copied();
        wanted.filter(|name| !granted.has(name)).collect()
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.name)
            .field("digest", &self.digest_hex())
            .finish_non_exhaustive()
    }
}

/// Refuses what is no wasm binary, and says what it looks like.
pub(super) fn sniff(bytes: &[u8]) -> Result<(), ModuleError> {
    if bytes.is_empty() {
        return Err(ModuleError::Empty);
    }
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge {
            max: MODULE_BYTES_MAX,
        });
    }
    if bytes.starts_with(b"\0asm") {
        return if bytes.len() < 8 {
            Err(ModuleError::Truncated { size: bytes.len() })
        } else {
            Ok(())
        };
    }
    let text = bytes.trim_ascii_start();
    let found = if text.starts_with(b"(module")
        || text.starts_with(b"(component")
        || text.starts_with(b";;")
    {
        "it is in the text format; compile it with `wasm-tools parse`".to_owned()
    } else if bytes.starts_with(b"\x7fELF") {
        "it is a native ELF binary; build it with --target wasm32-unknown-unknown".to_owned()
    } else if bytes.starts_with(b"!<arch>") {
        "it is a library archive; the filter needs crate-type = [\"cdylib\"]".to_owned()
    } else if bytes.starts_with(b"\x1f\x8b") || bytes.starts_with(b"PK") {
        "it is compressed; unpack it first".to_owned()
    } else if text.starts_with(b"<") {
        "it is an HTML or XML page, perhaps an error page saved by a download".to_owned()
    } else {
        let start = &bytes[..bytes.len().min(8)];
        format!("it begins with \"{}\"", start.escape_ascii())
    };
    Err(ModuleError::NotWasm { found })
}

fn exports(host: &Host, component: &Component) -> Result<Exports, ModuleError> {
    let ty = component.component_type();
    let names: Vec<String> = ty
        .exports(host.engine())
        .map(|(name, _)| name.to_owned())
        .collect();
    let ours: Vec<&String> = names.iter().filter(|n| n.starts_with(PACKAGE)).collect();
    if ours.is_empty() {
        return Err(ModuleError::NoFilter { exports: names });
    }
    for name in &ours {
        check_version(name)?;
    }
    let find = |(interface, function): (&str, &str)| -> Option<ComponentExportIndex> {
        let name = ours.iter().find(|name| {
            name[PACKAGE.len()..]
                .split_once('@')
                .is_some_and(|(found, _)| found == interface)
        })?;
        let instance = component.get_export_index(None, name.as_str())?;
        component.get_export_index(Some(&instance), function)
    };
    let configure = find(("configuration", "configure")).ok_or(ModuleError::NoConfiguration)?;
    let mut phases = [None; Phase::ALL.len()];
    for phase in Phase::ALL {
        let packed = find(phase.packed());
        let readable = phase.readable().and_then(find);
        phases[phase as usize] = match (packed, readable) {
            (Some(_), Some(_)) => {
                return Err(ModuleError::BothForms {
                    packed: phase.packed().0,
                    readable: phase.readable().map_or("", |(interface, _)| interface),
                });
            }
            (Some(function), None) => Some((Form::Packed, function)),
            (None, Some(function)) => Some((Form::Readable, function)),
            (None, None) => None,
        };
    }
    Ok(Exports {
        configure,
        schema: find(("settings-schema", "schema")),
        phases,
        resume: find(("resume", "on-resume")),
        handover: find(("handover", "save")).zip(find(("handover", "restore"))),
        built: newest(&ours),
    })
}

/// Links what the component imports. Answers the capabilities among it, and whether it imports WASI.
fn link(
    engine: &Host,
    component: &Component,
    linker: &mut Linker<Context>,
) -> Result<(Vec<&'static str>, bool), ModuleError> {
    let (mut wanted, mut wasi) = (Vec::new(), false);
    let invalid = |e: wasmtime::Error| ModuleError::Invalid(format!("{e:#}"));
    let ty = component.component_type();
    for (name, item) in ty.imports(engine.engine()) {
        check_version(name)?;
        let ComponentItem::ComponentInstance(instance) = &item.ty else {
            return Err(ModuleError::UnknownImport(name.to_owned()));
        };
        if let Some(capability) =
            host::link_component(linker, name, &Context::CAPABILITIES).map_err(invalid)?
        {
            wanted.push(capability);
        } else if name.starts_with("wasi:") {
            if !wasi::is_known(name) {
                return Err(ModuleError::Wasi(name.to_owned()));
            }
            wasi::link(linker, engine, name, instance).map_err(invalid)?;
            wasi = true;
        } else if !(name.starts_with(PACKAGE) && is_only_types(engine, instance)) {
            return Err(ModuleError::UnknownImport(name.to_owned()));
        }
    }
    Ok((wanted, wasi))
}

/// Interfaces imported for their types alone need nothing from the host.
fn is_only_types(host: &Host, instance: &ComponentInstance) -> bool {
    instance
        .exports(host.engine())
        .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert_eq!(check_version("sluicegate:filter/log@0.1.0"), Ok(()));
        assert_eq!(check_version("other:thing/x@9.9.9"), Ok(()));
        let message = |name| check_version(name).unwrap_err().to_string();
        assert_eq!(
            message("sluicegate:filter/http-request@0.2.0"),
            "built for sluicegate:filter@0.2.0, this build serves 0.1.0; rebuild the filter with sluicegate-sdk 0.1"
        );
        assert_eq!(
            message("sluicegate:filter/http-request@0.1.3"),
            "built for sluicegate:filter@0.1.3, this build serves 0.1.0; update sluicegate, or rebuild the filter with an earlier sluicegate-sdk"
        );
        assert!(message("sluicegate:filter/log").contains("@?,"));
    }

    #[test]
    fn what_is_not_wasm_is_named() {
        let message = |bytes: &[u8]| sniff(bytes).unwrap_err().to_string();
        assert_eq!(message(b""), "the file is empty");
        assert!(message(b"\x7fELF....").contains("native ELF"));
        assert!(message(b"  (module)").contains("text format"));
        assert!(message(b"<!doctype html>").contains("HTML"));
        assert!(message(b"!<arch>\n").contains("cdylib"));
        assert_eq!(
            message(b"hello\x01"),
            "not a WebAssembly binary: it begins with \"hello\\x01\""
        );
        assert_eq!(sniff(b"\0asm\x01"), Err(ModuleError::Truncated { size: 5 }));
    }
}
