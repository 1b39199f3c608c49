//! What one guest holds while it runs, which is all there is of the host to it.

use std::path::Path;

use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::spec::ByteSize;
use crate::wire::Invocation;

use super::ceiling::Ceiling;
use super::http::Http;
use super::sandbox::Stop;
use super::streams::Streams;

/// Most host objects (streams, pollables, requests) a guest may hold at once.
const MOST_RESOURCES: usize = 1024;
/// Most bytes of randomness in one request; each is made in our memory first.
const MOST_RANDOM: u64 = 4 << 20;
/// Bounds of what one host call may make us copy. In between, it is the guest's own memory ceiling.
const LEAST_COPIED: u64 = 1 << 20;
const MOST_COPIED: u64 = 128 << 20;
/// Size of one set of HTTP header fields in our memory.
const MOST_HEADER_BYTES: usize = 64 << 10;

/// The data of a store.
pub(super) struct Guest {
    wasi: WasiP1Ctx,
    http_context: WasiHttpCtx,
    http: Http,
    ceiling: Ceiling,
    deadline: Instant,
}

impl Guest {
    /// A store for one call: its arguments and streams, no files, no sockets.
    pub(super) fn store(
        engine: &Engine,
        invocation: &Invocation,
        source: &Path,
        memory: ByteSize,
        (streams, http, deadline): (&Streams, Http, Instant),
    ) -> Store<Self> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdin(MemoryInputPipe::new(invocation.stdin.clone()))
            .stdout(streams.stdout())
            .stderr(streams.stderr())
            .max_random_size(MOST_RANDOM)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if invocation.command.is_empty() {
            wasi.arg(source.file_stem().unwrap_or_default().to_string_lossy());
        } else {
            wasi.args(&invocation.command);
        }
        for (name, value) in &invocation.environment {
            wasi.env(name, value.expose());
        }
        let mut wasi = wasi.build_p1();
        wasi.ctx().table.set_max_capacity(MOST_RESOURCES);
        let mut http_context = WasiHttpCtx::new();
        http_context.set_field_size_limit(MOST_HEADER_BYTES);
        let ceiling = Ceiling::new(usize::try_from(memory.0).unwrap_or(usize::MAX));
        let mut store = Store::new(engine, Self { wasi, http_context, http, ceiling, deadline });
        store.limiter(|guest| &mut guest.ceiling);
        store.set_hostcall_fuel(usize::try_from(memory.0.clamp(LEAST_COPIED, MOST_COPIED)).unwrap_or(usize::MAX));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            if store.data().deadline <= Instant::now() { Err(Stop::Deadline.into()) } else { Ok(UpdateDeadline::Yield(1)) }
        });
        store
    }

    pub(super) const fn wasi(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }

    pub(super) const fn ceiling(&self) -> &Ceiling {
        &self.ceiling
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let table: &mut ResourceTable = self.wasi.ctx().table;
        WasiHttpCtxView { hooks: &mut self.http, table, ctx: &mut self.http_context }
    }
}
