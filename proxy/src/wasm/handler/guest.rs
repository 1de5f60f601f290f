//! What one instance of a handler is given: clocks, random numbers, its log, HTTP types; nothing else of the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::onward::Asker;
use super::output::Output;

/// Handles that one instance may hold at a time: requests, bodies, streams, pollables.
const RESOURCES_MAX: usize = 4096;
/// Tasks, threads, streams and futures of one instance of 0.3 that the engine keeps at a time.
const TASKS_MAX: usize = 4096;
/// Bytes that a guest may hand over in one call.
const HANDED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Epochs between two looks at whether others want the worker: one to two milliseconds.
const SLICE_EPOCHS: u64 = 1;
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
    /// None: there is nothing behind it.
    asker: Option<Asker>,
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
            asker: None,
            memory: Memory {
                left: memory,
                outgrown,
            },
        }
    }
}

impl Guest {
    /// The same with something behind it.
    pub(super) fn with(mut self, asker: Asker) -> Self {
        self.asker = Some(asker);
        self
    }

    pub(super) fn asker(&mut self) -> Option<&mut Asker> {
        self.asker.as_mut()
    }

    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    pub(super) fn hooks_and_table(&mut self) -> (&mut dyn WasiHttpHooks, &mut ResourceTable) {
        (&mut self.hooks, &mut self.table)
    }

    /// Where one request runs: bounded, and given back to the worker at each epoch.
    pub(super) fn into_store(self, engine: &Engine) -> Store<Self> {
        let mut store = Store::new(engine, self);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(HANDED_BYTES_MAX);
        store.set_epoch_deadline(SLICE_EPOCHS);
        // The runtime's own yield, so that sockets and timers get their turn before this guest does again.
        store.epoch_deadline_callback(|_| {
            let others = Box::pin(tokio::task::yield_now());
            Ok(UpdateDeadline::YieldCustom(SLICE_EPOCHS, others))
        });
        if let Some(tasks) = store.concurrent_resource_table() {
            tasks.set_max_capacity(TASKS_MAX);
        }
        store
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

/// Handlers answer; they do not ask, but for middleware, which has an import of its own for it.
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

    /// Who sends a request on writes it from the authority.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
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
