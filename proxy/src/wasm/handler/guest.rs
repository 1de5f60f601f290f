//! What one instance of a handler is given: clocks, random numbers, its log, HTTP types; nothing else of the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::output::Output;

/// Handles that one instance may hold at a time: requests, bodies, streams, pollables.
const RESOURCES_MAX: usize = 4096;
/// Elements of one table.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Bytes of a random number asked for at once.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of one write to a response's body that are taken before the guest waits for the client.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The data of a store.
pub struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Hooks,
    pub(super) memory: Memory,
}

impl Guest {
    /// `output` takes what the guest prints; all its memories together may have `memory` bytes.
    pub(super) fn new(output: &Output, memory: usize, outgrown: Arc<AtomicBool>) -> Self {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(output.clone())
            .stderr(output.clone())
            .max_random_size(RANDOM_BYTES_MAX)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            table,
            hooks: Hooks,
            memory: Memory {
                left: memory,
                outgrown,
            },
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// Handlers answer; they do not ask.
struct Hooks;

/// How a request ended, as the library wants to be told.
type Sending = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Sending,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Sending), Error>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// Counts what the memories of an instance grow to.
pub(super) struct Memory {
    left: usize,
    /// Set when a memory was not allowed to grow: what a guest does then is mostly a trap, which this explains.
    outgrown: Arc<AtomicBool>,
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        match self.left.checked_sub(more) {
            Some(left) => {
                self.left = left;
                Ok(true)
            }
            None => {
                self.outgrown.store(true, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}
