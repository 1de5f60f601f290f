//! The contract `sluicegate:filter` as the host knows it: its phases, its versions, and why bytes do not keep it.

use super::words::{tame, tame_lines};

/// Bytes shown of a name, and of a sentence, that the file chose.
const NAME_SHOWN: usize = 128;
const TEXT_SHOWN: usize = 1024;
const EXPORTS_SHOWN: usize = 5;

/// Package of the contract.
pub(super) const PACKAGE: &str = "sluicegate:filter/";
/// The version of the contract this build serves, and with it every earlier 0.1.
const SERVED: Version = Version(0, 1, 0);

/// When a filter is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Phase {
    Request = 0,
    Response = 1,
    Log = 2,
    Connect = 3,
    ClientHello = 4,
    FirstBytes = 5,
    RequestBody = 6,
    ResponseBody = 7,
    RequestTrailers = 8,
    ResponseTrailers = 9,
    ClientData = 10,
    ServerData = 11,
    Tick = 12,
}

impl Phase {
    pub const ALL: [Phase; 13] = [
        Phase::Request,
        Phase::Response,
        Phase::Log,
        Phase::Connect,
        Phase::ClientHello,
        Phase::FirstBytes,
        Phase::RequestBody,
        Phase::ResponseBody,
        Phase::RequestTrailers,
        Phase::ResponseTrailers,
        Phase::ClientData,
        Phase::ServerData,
        Phase::Tick,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Request => "request",
            Phase::Response => "response",
            Phase::Log => "log",
            Phase::Connect => "connect",
            Phase::ClientHello => "client-hello",
            Phase::FirstBytes => "first-bytes",
            Phase::RequestBody => "request-body",
            Phase::ResponseBody => "response-body",
            Phase::RequestTrailers => "request-trailers",
            Phase::ResponseTrailers => "response-trailers",
            Phase::ClientData => "client-data",
            Phase::ServerData => "server-data",
            Phase::Tick => "tick",
        }
    }

    /// Belongs to exchanges, as opposed to sessions and the filter itself.
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Phase::Request
                | Phase::Response
                | Phase::Log
                | Phase::RequestBody
                | Phase::ResponseBody
                | Phase::RequestTrailers
                | Phase::ResponseTrailers
        )
    }

    /// Belongs to sessions of `tcp` listeners.
    pub fn is_stream(self) -> bool {
        matches!(
            self,
            Phase::Connect
                | Phase::ClientHello
                | Phase::FirstBytes
                | Phase::ClientData
                | Phase::ServerData
        )
    }

    /// The interface of the packed form and its function.
    pub(super) fn packed(self) -> (&'static str, &'static str) {
        match self {
            Phase::Request => ("http-request", "on-request"),
            Phase::Response => ("http-response", "on-response"),
            Phase::Log => ("http-log", "on-log"),
            Phase::Connect => ("stream-connect", "on-connect"),
            Phase::ClientHello => ("stream-client-hello", "on-client-hello"),
            Phase::FirstBytes => ("stream-first-bytes", "on-first-bytes"),
            Phase::RequestBody => ("http-request-body", "on-request-body"),
            Phase::ResponseBody => ("http-response-body", "on-response-body"),
            Phase::RequestTrailers => ("http-request-trailers", "on-request-trailers"),
            Phase::ResponseTrailers => ("http-response-trailers", "on-response-trailers"),
            Phase::ClientData => ("stream-client-data", "on-client-data"),
            Phase::ServerData => ("stream-server-data", "on-server-data"),
            Phase::Tick => ("tick", "on-tick"),
        }
    }

    /// The interface of the readable form and its function, where there is one.
    pub(super) fn readable(self) -> Option<(&'static str, &'static str)> {
        match self {
            Phase::Request => Some(("readable-http-request", "on-request")),
            Phase::Response => Some(("readable-http-response", "on-response")),
            _ => None,
        }
    }
}

/// The two families of phases; see filter.wit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Packed,
    Readable,
}

/// Why bytes are no filter. The text is for whoever configured the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    #[error("the file is empty")]
    Empty,
    #[error("the file is larger than the {max} bytes that a module may have")]
    TooLarge { max: usize },
    #[error("not a WebAssembly binary: {found}")]
    NotWasm { found: String },
    #[error("the file ends in the middle ({size} bytes): it was not copied or downloaded whole")]
    Truncated { size: usize },
    #[error("invalid WebAssembly: {0}")]
    Invalid(String),
    #[error(
        "exports nothing of sluicegate:filter{}; build it with sluicegate-sdk, or against wit/filter.wit",
        listed(exports)
    )]
    NoFilter { exports: Vec<String> },
    #[error("exports phases but not sluicegate:filter/configuration, which every filter has")]
    NoConfiguration,
    #[error("built for sluicegate:filter@{built}, this build serves {serves}; {fix}")]
    OtherVersion {
        built: String,
        serves: String,
        fix: &'static str,
    },
    #[error("imports {0}, which this build does not offer")]
    UnknownImport(String),
    #[error(
        "imports {0}, which no filter is given: filters have no files, sockets or HTTP of their own"
    )]
    Wasi(String),
    #[error(
        "imports {0}: built for WASI preview 1; build for wasm32-unknown-unknown or wasm32-wasip2"
    )]
    Preview1(String),
    #[error("exports both {packed} and {readable}; keep one")]
    BothForms {
        packed: &'static str,
        readable: &'static str,
    },
    #[error("cannot be made into a component: {0}")]
    Encode(String),
}

impl ModuleError {
    /// The same with what comes from the file cut to what is worth reading.
    pub(super) fn tamed(self) -> Self {
        match self {
            Self::Invalid(text) => Self::Invalid(tame_lines(&text, TEXT_SHOWN)),
            Self::Encode(text) => Self::Encode(tame_lines(&text, TEXT_SHOWN)),
            Self::NoFilter { exports } => Self::NoFilter {
                exports: exports
                    .iter()
                    .take(EXPORTS_SHOWN + 1)
                    .map(|name| tame(name, NAME_SHOWN))
                    .collect(),
            },
            Self::OtherVersion { built, serves, fix } => Self::OtherVersion {
                built: tame(&built, NAME_SHOWN),
                serves,
                fix,
            },
            Self::UnknownImport(name) => Self::UnknownImport(tame(&name, NAME_SHOWN)),
            Self::Wasi(name) => Self::Wasi(tame(&name, NAME_SHOWN)),
            Self::Preview1(name) => Self::Preview1(tame(&name, NAME_SHOWN)),
            other => other,
        }
    }
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

/// A version of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64, u64, u64);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// For a name of the contract's package: refuses a version that is not served. Other names pass.
pub(super) fn check_version(name: &str) -> Result<(), ModuleError> {
    let Some(interface) = name.strip_prefix(PACKAGE) else {
        return Ok(());
    };
    let built = interface.split_once('@').map_or("", |(_, version)| version);
    let number = |part: Option<&str>| part.and_then(|p| p.parse::<u64>().ok());
    let mut parts = built.split('.');
    let (major, minor, patch) = (
        number(parts.next()),
        number(parts.next()),
        number(parts.next()),
    );
    let fix = match (major, minor, patch) {
        (Some(major), Some(minor), Some(patch)) => {
            let version = Version(major, minor, patch);
            if (major, minor) == (SERVED.0, SERVED.1) && version <= SERVED {
                return Ok(());
            }
            if version > SERVED && (major, minor) == (SERVED.0, SERVED.1) {
                "update sluicegate, or rebuild the filter with an earlier sluicegate-sdk"
            } else {
                "rebuild the filter with sluicegate-sdk 0.1"
            }
        }
        _ => "rebuild the filter with sluicegate-sdk 0.1",
    };
    Err(ModuleError::OtherVersion {
        built: if built.is_empty() { "?" } else { built }.to_owned(),
        serves: SERVED.to_string(),
        fix,
    })
}

/// The newest version among names of the contract's package, which were checked.
pub(super) fn newest(names: &[&String]) -> String {
    let versions = names
        .iter()
        .filter_map(|name| Some(name.split_once('@')?.1));
    let number = |version: &&str| -> Vec<u64> {
        let parts = version.split('.');
        parts.map(|part| part.parse().unwrap_or(0)).collect()
    };
    versions.max_by_key(number).unwrap_or_default().to_owned()
}
