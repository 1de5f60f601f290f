//! WASI for components that were built for wasm32-wasip2: everything is there and nearly everything says no.
//!
//! A filter gets the clocks, random numbers, an empty environment and no files; what it prints goes to its log when it
//! was granted one, else nowhere; anything else (files, sockets, waiting, exit) traps. wasmtime-wasi is not used: its
//! synchronous streams and polls block on a tokio runtime of their own, which a worker, inside its own runtime, must
//! never do.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Linker, Resource, ResourceAny, ResourceType, Val};

use super::context::Context;
use super::engine::Host;

/// Packages whose interfaces are linked; a component that imports another one of `wasi:` is refused.
const PACKAGES: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];
const RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// What `check-write` offers; more than one line of the log takes.
const WRITE_BYTES_MAX: u64 = 8 * 1024;

/// Every resource of WASI is of this type: handles to it can be held and passed back, no more.
struct Denied;

/// Representations of the resources handed out.
const STDIN: u32 = 0;
const STDOUT: u32 = 1;

pub(super) fn is_known(import: &str) -> bool {
    PACKAGES.iter().any(|package| import.starts_with(package))
        && import
            .split_once('@')
            .is_some_and(|(_, version)| version.starts_with("0.2."))
}

/// Links every function and resource of one imported interface.
pub(super) fn link(
    linker: &mut Linker<Context>,
    host: &Host,
    import: &str,
    instance: &ComponentInstance,
) -> wasmtime::Result<()> {
    let interface = import.split_once('@').map_or(import, |(name, _)| name);
    let mut linked = linker.instance(import)?;
    for (name, item) in instance.exports(host.engine()) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let answer = answer(interface, name);
                let called = format!("{interface}#{name}");
                linked.func_new(name, move |mut store, _, params, results| {
                    store.data_mut().host_calls.take()?;
                    let outcome = match (answer, results.first_mut()) {
                        (Some(answer), Some(result)) => {
                            answer(&mut store, params).map(|value| *result = value)
                        }
                        _ => Err(wasmtime::Error::msg(format!(
                            "{called} is not granted to filters"
                        ))),
                    };
                    // Handles lent to the host are given back, as the component model asks.
                    for param in params {
                        if let Val::Resource(handle) = param {
                            handle.resource_drop(&mut store)?;
                        }
                    }
                    outcome
                })?;
            }
            ComponentItem::Resource(_) => {
                linked.resource(name, ResourceType::host::<Denied>(), |mut store, _| {
                    store.data_mut().host_calls.take()
                })?;
            }
            _ => {}
        }
    }
    Ok(())
}

type Answer = fn(&mut StoreContextMut<'_, Context>, &[Val]) -> wasmtime::Result<Val>;

/// What is answered at all; none traps.
fn answer(interface: &str, function: &str) -> Option<Answer> {
    Some(match (interface, function) {
        ("wasi:cli/environment", "get-environment" | "get-arguments")
        | ("wasi:filesystem/preopens", "get-directories") => |_, _| Ok(Val::List(Vec::new())),
        ("wasi:cli/environment", "initial-cwd")
        | ("wasi:cli/terminal-stdin", _)
        | ("wasi:cli/terminal-stdout", _)
        | ("wasi:cli/terminal-stderr", _) => |_, _| Ok(Val::Option(None)),
        ("wasi:cli/stdin", _) => |store, _| handle(store, STDIN),
        ("wasi:cli/stdout" | "wasi:cli/stderr", _) => |store, _| handle(store, STDOUT),
        ("wasi:clocks/monotonic-clock", "now") => |store, _| {
            let since: Instant = store.data().born;
            Ok(Val::U64(since.elapsed().as_nanos() as u64))
        },
        ("wasi:clocks/monotonic-clock", "resolution") => |_, _| Ok(Val::U64(1)),
        ("wasi:clocks/wall-clock", "now") => |_, _| {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            Ok(datetime(now.as_secs(), now.subsec_nanos()))
        },
        ("wasi:clocks/wall-clock", "resolution") => |_, _| Ok(datetime(0, 1)),
        ("wasi:random/random", "get-random-u64")
        | ("wasi:random/insecure", "get-insecure-random-u64") => |_, _| Ok(Val::U64(random()?)),
        ("wasi:random/insecure-seed", "insecure-seed") => {
            |_, _| Ok(Val::Tuple(vec![Val::U64(random()?), Val::U64(random()?)]))
        }
        ("wasi:random/random", "get-random-bytes")
        | ("wasi:random/insecure", "get-insecure-random-bytes") => |_, params| {
            let length = match params.first() {
                Some(Val::U64(length)) if *length <= RANDOM_BYTES_MAX => *length as usize,
                _ => return Err(wasmtime::Error::msg("too many random bytes at once")),
            };
            let mut bytes = vec![0; length];
            getrandom::fill(&mut bytes).map_err(|e| wasmtime::Error::msg(e.to_string()))?;
            Ok(Val::List(bytes.into_iter().map(Val::U8).collect()))
        },
        ("wasi:io/streams", "[method]output-stream.check-write") => {
            |_, _| Ok(ok(Some(Val::U64(WRITE_BYTES_MAX))))
        }
        (
            "wasi:io/streams",
            "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush",
        ) => |store, params| {
            print(store, params.get(1));
            Ok(ok(None))
        },
        (
            "wasi:io/streams",
            "[method]output-stream.flush" | "[method]output-stream.blocking-flush",
        ) => |_, _| Ok(ok(None)),
        ("wasi:io/streams", "[method]input-stream.read" | "[method]input-stream.blocking-read") => {
            |_, _| {
                let closed = Val::Variant("closed".to_owned(), None);
                Ok(Val::Result(Err(Some(Box::new(closed)))))
            }
        }
        _ => return None,
    })
}

fn ok(value: Option<Val>) -> Val {
    Val::Result(Ok(value.map(Box::new)))
}

fn handle(store: &mut StoreContextMut<'_, Context>, rep: u32) -> wasmtime::Result<Val> {
    let handle = Resource::<Denied>::new_own(rep);
    ResourceAny::try_from_resource(handle, store).map(Val::Resource)
}

fn datetime(seconds: u64, nanoseconds: u32) -> Val {
    Val::Record(vec![
        ("seconds".to_owned(), Val::U64(seconds)),
        ("nanoseconds".to_owned(), Val::U32(nanoseconds)),
    ])
}

fn random() -> wasmtime::Result<u64> {
    getrandom::u64().map_err(|e| wasmtime::Error::msg(e.to_string()))
}

/// A line that a guest prints is a line of its log.
fn print(store: &mut StoreContextMut<'_, Context>, contents: Option<&Val>) {
    if let Some(Val::List(bytes)) = contents {
        let bytes: Vec<u8> = bytes
            .iter()
            .filter_map(|byte| match byte {
                Val::U8(byte) => Some(*byte),
                _ => None,
            })
            .collect();
        store
            .data_mut()
            .log
            .print(super::log::Level::Info, &String::from_utf8_lossy(&bytes));
    }
}
