//! What the operator decides about the wasm backend, and the engine that follows from it.

use std::path::PathBuf;
use std::time::Duration;

use wasmtime::{Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::InstanceId;
use crate::spec::ByteSize;

use super::SetupError;

/// What compiling a module is worth. In an unoptimized build the compiler itself is slow, and its speed is what a developer waits for.
const OPTIMIZATION: OptLevel = if cfg!(debug_assertions) { OptLevel::None } else { OptLevel::Speed };
/// Linear memories, tables and core instances one call may have. A component that was linked from a program and its
/// adapters needs a few of each; nothing honest comes near these.
pub(super) const MEMORIES_PER_CALL: u32 = 4;
pub(super) const TABLES_PER_CALL: u32 = 8;
pub(super) const INSTANCES_PER_CALL: u32 = 16;
/// Elements of one table (function pointers, mostly).
pub(super) const TABLE_ELEMENTS: usize = 20_000;
/// Address space each linear memory occupies. With all of a 32-bit memory reserved, loads need no bounds check.
const RESERVED_PER_MEMORY: u64 = 4 << 30;

/// Settings of a [`WasmBackend`](super::WasmBackend).
#[derive(Debug, Clone)]
pub struct WasmConfig {
    /// Folder for compiled modules. Created with mode 0700; refused when anyone else could write to it, because what lies in it
    /// is executed.
    pub cache_dir: PathBuf,
    /// Who starts the sandboxes, as [`Found::instance`](crate::Found) will say.
    pub instance: InstanceId,
    /// Most sandboxes at once. Each one reserves address space, not memory.
    pub max_instances: u32,
    /// The largest `memory` a tool may ask for.
    pub max_memory: ByteSize,
    /// How long a start waits for room before it is refused as saturated.
    pub start_wait: Duration,
    /// Bounds of what one call may do over HTTP.
    pub http: HttpLimits,
}

/// Bounds of what one call may do over HTTP. The call's deadline bounds all of it besides.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Most requests, refused ones included.
    pub requests: u32,
    /// Most bytes of response bodies, all of the call's responses together.
    pub response_bytes: ByteSize,
    /// Longest time until a connection, TLS included, stands.
    pub connect_timeout: Duration,
}

impl WasmConfig {
    /// The defaults: 256 sandboxes at once, tools of at most 1 GiB, two seconds of waiting for room.
    pub fn new(cache_dir: impl Into<PathBuf>, instance: InstanceId) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            instance,
            max_instances: 256,
            max_memory: ByteSize::mebibytes(1024),
            start_wait: Duration::from_secs(2),
            http: HttpLimits { requests: 32, response_bytes: ByteSize::mebibytes(16), connect_timeout: Duration::from_secs(10) },
        }
    }

    /// Every setting that cannot work, all at once.
    pub(super) fn validate(&self) -> Result<(), SetupError> {
        let mut wrong = Vec::new();
        if !(1..=4096).contains(&self.max_instances) {
            wrong.push(format!("max_instances is {}; accepted are 1 to 4096", self.max_instances));
        }
        if !(64 << 10..=RESERVED_PER_MEMORY).contains(&self.max_memory.0) {
            wrong.push(format!("max_memory is {}; accepted are 64Ki to 4Gi", self.max_memory));
        }
        if self.http.connect_timeout.is_zero() {
            wrong.push("http.connect_timeout is zero; give it at least 1s".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(SetupError::Settings(wrong)) }
    }
}

/// The engine's configuration: pooled slots, copy-on-write memory images, epochs.
///
/// Public so that a benchmark can run the same module bare, on the same kind of engine.
pub fn engine_config(config: &WasmConfig) -> Config {
    let slots = config.max_instances;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots * INSTANCES_PER_CALL)
        .total_component_instances(slots)
        .total_memories(slots * MEMORIES_PER_CALL)
        .total_tables(slots * TABLES_PER_CALL)
        .total_stacks(slots)
        .max_core_instances_per_component(INSTANCES_PER_CALL)
        .max_memories_per_component(MEMORIES_PER_CALL)
        .max_tables_per_component(TABLES_PER_CALL)
        .max_tables_per_module(TABLES_PER_CALL)
        .max_memories_per_module(MEMORIES_PER_CALL)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(usize::try_from(config.max_memory.0).unwrap_or(usize::MAX))
        // Wiping the first pages by hand is cheaper than giving them back to the kernel and faulting them in again.
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(16 << 10);
    let mut engine = Config::new();
    engine
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(RESERVED_PER_MEMORY)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .cranelift_opt_level(OPTIMIZATION);
    engine
}
