//! The backend through its own face, with guests written as text.

mod lifecycle;
mod limits;
mod network;
mod programs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{WasmBackend, WasmConfig};
use crate::egress::Wall;
use crate::error::LedgerError;
use crate::spec::{ByteSize, SandboxSpec, Source};
use crate::wire::{Invocation, Report, WireKey};
use crate::{Backend, Event, Host, InstanceId, SandboxId};

/// A backend of its own, with its folder.
struct Room {
    folder: TempDir,
    backend: Arc<WasmBackend>,
}

impl Room {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut WasmConfig)) -> Self {
        let folder = TempDir::new().unwrap();
        let backend = open(&folder, change);
        Self { folder, backend }
    }

    /// The same folder, opened by what could be the next process.
    fn reopened(&self) -> Arc<WasmBackend> {
        open(&self.folder, |_| {})
    }

    fn spec(&self, text: &str) -> SandboxSpec {
        self.spec_of(&wat::parse_str(text).unwrap())
    }

    fn spec_of(&self, bytes: &[u8]) -> SandboxSpec {
        let sha256 = hex::encode(Sha256::digest(bytes));
        let path = self.folder.path().join(format!("{}.wasm", &sha256[..8]));
        std::fs::write(&path, bytes).unwrap();
        SandboxSpec {
            source: Source::Module { path, sha256 },
            memory: ByteSize::mebibytes(16),
            cpu_millis: 1000,
            pids: 1,
            scratch: ByteSize(0),
            mounts: vec![],
            network: std::collections::BTreeSet::new(),
            life: Duration::from_secs(60),
        }
    }

    async fn run(&self, text: &str) -> Report {
        self.run_with(text, call()).await
    }

    async fn run_with(&self, text: &str, invocation: Invocation) -> Report {
        self.run_spec(&self.spec(text), invocation, &Listener::default()).await
    }

    async fn run_spec(&self, spec: &SandboxSpec, invocation: Invocation, host: &Listener) -> Report {
        let sandbox = self.backend.start(SandboxId::generate(), spec).await.unwrap();
        sandbox.invoke(invocation, host).await.unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.backend.shared.live.list(INSTANCE), [], "a test left sandboxes");
            assert_eq!(self.backend.room.available_permits(), self.backend.max_instances as usize, "a test left a place taken");
        }
    }
}

const INSTANCE: InstanceId = InstanceId(Uuid::from_u128(7));

fn open(folder: &TempDir, change: impl FnOnce(&mut WasmConfig)) -> Arc<WasmBackend> {
    let mut config = WasmConfig::new(cache(folder), INSTANCE);
    config.max_instances = 8;
    change(&mut config);
    WasmBackend::new(config).unwrap()
}

fn cache(folder: &TempDir) -> PathBuf {
    folder.path().join("cache")
}

/// An ordinary call; tests change what they are about.
fn call() -> Invocation {
    Invocation {
        call_id: "call".into(),
        key: WireKey::generate().unwrap(),
        command: vec![],
        stdin: Bytes::new(),
        environment: BTreeMap::new(),
        files: Vec::new(),
        sockets: crate::wire::Sockets::Unix,
        timeout: Duration::from_secs(20),
        output_limit: ByteSize(64 << 10),
        faces: None,
        traceparent: String::new(),
    }
}

fn call_within(timeout: Duration) -> Invocation {
    Invocation { timeout, ..call() }
}

/// A host that remembers.
#[derive(Default)]
struct Listener {
    events: Mutex<Vec<Event>>,
    cancel: CancellationToken,
    wall: Option<Arc<Wall>>,
}

#[async_trait]
impl Host for Listener {
    fn wall(&self) -> Option<Arc<Wall>> {
        self.wall.clone()
    }

    fn observe(&self, event: Event) {
        self.events.lock().push(event);
    }

    fn canceled(&self) -> &CancellationToken {
        &self.cancel
    }

    async fn delivering(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// A preview 1 program: the imports the tests use, one page of memory, and `body` as its `_start`.
fn program(body: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (table $table 1 funcref)
            (global $count (mut i32) (i32.const 0))
            (data (i32.const 1024) "abcdefghijklmnop")
            ;; Writes `length` bytes at `from` to the stream `to`.
            (func $write (param $to i32) (param $from i32) (param $length i32)
                (i32.store (i32.const 0) (local.get $from))
                (i32.store (i32.const 4) (local.get $length))
                (drop (call $fd_write (local.get $to) (i32.const 0) (i32.const 1) (i32.const 8))))
            ;; Sleeps for a year.
            (func $sleep
                (i32.store (i32.const 16) (i32.const 0))
                (i64.store (i32.const 40) (i64.const 31536000000000000))
                (i32.store (i32.const 32) (i32.const 1))
                (drop (call $poll_oneoff (i32.const 16) (i32.const 128) (i32.const 1) (i32.const 8))))
            (func (export "_start") {body}))"#
    )
}

/// Loops for ever.
const SPIN: &str = "(loop $again (br $again))";
