//! A wasm call inside the process (dispatcher, sandbox, report, teardown) beside a bare pooled instantiate-and-run.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use mayfly_executor::error::LedgerError;
use mayfly_executor::spec::{ByteSize, SandboxSpec, Source};
use mayfly_executor::wasm::{WasmBackend, WasmConfig, engine_config};
use mayfly_executor::wire::{Exit, Invocation, WireKey};
use mayfly_executor::{Dispatcher, Event, Host, InstanceId, Order, SandboxId, SandboxLedger, SandboxRow};
use mayfly_tests::bench::{Aim, Figure, Quantiles, publish, series};
use mayfly_tests::harness::tools;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

const ROUNDS: usize = 20_000;
const INPUT: &[u8] = br#"{"text":"hello"}"#;

/// Wasm sandboxes have no rows.
struct NoLedger;

#[async_trait]
impl SandboxLedger for NoLedger {
    async fn opening(&self, _: &SandboxRow) -> Result<(), LedgerError> {
        Ok(())
    }
    async fn closed(&self, _: SandboxId) -> Result<(), LedgerError> {
        Ok(())
    }
    async fn open_rows(&self) -> Result<Vec<SandboxRow>, LedgerError> {
        Ok(Vec::new())
    }
}

struct Deaf(CancellationToken);

#[async_trait]
impl Host for Deaf {
    fn observe(&self, _: Event) {}
    fn canceled(&self) -> &CancellationToken {
        &self.0
    }
    async fn delivering(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(compare());
}

async fn compare() {
    let folder = tempfile::tempdir().unwrap();
    let module = wat::parse_str(tools::ECHO).unwrap();
    let config = WasmConfig::new(folder.path().join("modules"), InstanceId(uuid::Uuid::nil()));
    let bare = bare(&config, &module).await;
    let ours = ours(config, folder.path(), &module).await;
    publish(&[Figure::new(
        "wasm call inside the process",
        "us",
        ours,
        ("bare pooled wasmtime, same module", bare),
        Aim::RatioAtMost(1.5),
    )]);
}

async fn ours(config: WasmConfig, folder: &std::path::Path, module: &[u8]) -> Quantiles {
    let path = folder.join("echo.wasm");
    std::fs::write(&path, module).unwrap();
    let source = Source::Module { path, sha256: hex::encode(Sha256::digest(module)) };
    let spec = SandboxSpec {
        source,
        memory: ByteSize::mebibytes(16),
        cpu_millis: 1000,
        pids: 1,
        scratch: ByteSize(0),
        mounts: vec![],
        network: std::collections::BTreeSet::new(),
        life: Duration::from_secs(60),
    };
    let backend = WasmBackend::new(config).unwrap();
    let ledger = std::sync::Arc::new(NoLedger);
    let dispatcher = Dispatcher::new(vec![backend], ledger, InstanceId(uuid::Uuid::nil()), Duration::from_secs(60));
    dispatcher.prepare(&spec).await.unwrap();
    let host = Deaf(CancellationToken::new());
    series(ROUNDS, async || {
        let invocation = Invocation {
            call_id: String::new(),
            key: WireKey::generate().unwrap(),
            command: vec![],
            stdin: INPUT.into(),
            environment: BTreeMap::new(),
            files: Vec::new(),
            sockets: mayfly_executor::wire::Sockets::Unix,
            timeout: Duration::from_secs(2),
            output_limit: ByteSize(64 << 10),
            faces: None,
            traceparent: String::new(),
        };
        let report = dispatcher.run(Order { spec: spec.clone(), invocation }, &host).await.unwrap();
        assert!(report.exit == Exit::Code(0) && report.stdout == INPUT);
    })
    .await
}

async fn bare(config: &WasmConfig, module: &[u8]) -> Quantiles {
    let engine = Engine::new(&engine_config(config)).unwrap();
    let module = Module::new(&engine, module).unwrap();
    let mut linker = Linker::<WasiP1Ctx>::new(&engine);
    add_to_linker_async(&mut linker, |ctx| ctx).unwrap();
    let instance = linker.instantiate_pre(&module).unwrap();
    series(ROUNDS, async || {
        let stdout = MemoryOutputPipe::new(64 << 10);
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdin(MemoryInputPipe::new(INPUT)).stdout(stdout.clone());
        let mut store = Store::new(&engine, wasi.build_p1());
        store.set_epoch_deadline(1_000_000);
        let instance = instance.instantiate_async(&mut store).await.unwrap();
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
        start.call_async(&mut store, ()).await.unwrap();
        drop(store);
        assert_eq!(stdout.contents(), INPUT);
    })
    .await
}
