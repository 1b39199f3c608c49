//! The wasm backend: a store and an instance for each call, inside this process.
//!
//! # What this isolation is
//! A guest has its own linear memory, and of the host only what it is handed: arguments, streams, clocks, randomness, and
//! for components HTTP to the destinations of its call. It has no files, no sockets, no environment but the call's. It shares our
//! process: a hole in wasmtime is a hole in the gateway. Code of strangers belongs into a stronger sandbox.
//!
//! # Guarantees
//! - Time: a guest yields its thread every 10 ms, and ends at its deadline whether it computes or waits.
//! - Memory, output, tables, requests: each has a ceiling, and the report says which one was hit.
//! - CPU time in reports is the wall time spent inside the guest and the host functions it called.
//! - There are never more sandboxes than the pool has places: a start waits a bounded time for one, then is refused.

mod artefacts;
mod ceiling;
mod config;
mod guest;
mod http;
mod live;
mod metered;
mod program;
mod sandbox;
mod streams;
#[cfg(test)]
mod tests;
mod ticker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wasmtime::Engine;

use crate::error::{BackendError, StartError};
use crate::spec::{ByteSize, SandboxSpec, Source};
use crate::{Backend, BackendKind, Found, InstanceId, Sandbox, SandboxId};

pub use config::{HttpLimits, WasmConfig, engine_config};

use artefacts::Artefacts;
use live::Live;
use program::{Programs, first_line};
use sandbox::WasmSandbox;
use ticker::Ticker;

/// The backend could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Settings that cannot work.
    #[error("the wasm backend's settings: {}", .0.join("; "))]
    Settings(
        /// Each of them, with what is accepted.
        Vec<String>,
    ),
    /// The folder for compiled modules cannot be trusted or used.
    #[error("the folder for compiled modules, {path}: {detail}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it and what to do.
        detail: String,
    },
    /// The engine does not start. There is no slower mode to fall back to.
    #[error(
        "the wasm engine does not start with room for {instances} sandboxes: {detail}; lower max_instances, or raise the limit on address space (`ulimit -v`)"
    )]
    Engine {
        /// The number of places in the pool.
        instances: u32,
        /// What wasmtime said.
        detail: String,
    },
    /// The epoch thread does not start.
    #[error("the thread that interrupts wasm guests does not start")]
    Ticker(#[source] std::io::Error),
}

/// Runs WASI programs in this process.
pub struct WasmBackend {
    shared: Arc<Shared>,
    programs: Programs,
    room: Arc<Semaphore>,
    instance: InstanceId,
    max_instances: u32,
    max_memory: ByteSize,
    start_wait: Duration,
}

/// What sandboxes need of the backend. They keep it alive, clock included: a guest outliving the clock could not be stopped.
struct Shared {
    engine: Engine,
    live: Arc<Live>,
    http: HttpLimits,
    _ticker: Ticker,
}

impl WasmBackend {
    /// Starts the engine and opens the folder of compiled modules.
    ///
    /// # Errors
    /// [`SetupError`]: each says what to change. Nothing is retried with less isolation or speed.
    pub fn new(config: WasmConfig) -> Result<Arc<Self>, SetupError> {
        config.validate()?;
        let instances = config.max_instances;
        let refused = |error: wasmtime::Error| SetupError::Engine { instances, detail: first_line(&error) };
        let engine = Engine::new(&engine_config(&config)).map_err(refused)?;
        let artefacts = Artefacts::open(&config.cache_dir, &engine)?;
        let programs = Programs::new(&engine, artefacts).map_err(refused)?;
        let shared = Shared {
            live: Arc::default(),
            http: config.http,
            _ticker: Ticker::start(engine.clone()).map_err(SetupError::Ticker)?,
            engine,
        };
        Ok(Arc::new(Self {
            shared: Arc::new(shared),
            programs,
            room: Arc::new(Semaphore::new(instances as usize)),
            instance: config.instance,
            max_instances: instances,
            max_memory: config.max_memory,
            start_wait: config.start_wait,
        }))
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, StartError> {
        // The usual case needs no timer.
        if let Ok(place) = self.room.clone().try_acquire_owned() {
            return Ok(place);
        }
        match tokio::time::timeout(self.start_wait, self.room.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(StartError::Saturated { backend: BackendKind::Wasm }),
        }
    }

    fn fits(&self, spec: &SandboxSpec) -> Result<(), StartError> {
        let refuse = |detail: String| Err(StartError::Refused { backend: BackendKind::Wasm, detail });
        if spec.memory > self.max_memory {
            return refuse(format!(
                "the tool asks for {} of memory, and the pool's places have {}",
                spec.memory, self.max_memory
            ));
        }
        if !spec.mounts.is_empty() {
            return refuse("the tool asks for mounts, and a wasm guest has no files; run it on docker".to_owned());
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for WasmBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Wasm
    }

    fn outlives_process(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<String, BackendError> {
        Ok(format!("wasmtime 48 in this process, {} of {} places free", self.room.available_permits(), self.max_instances))
    }

    async fn prepare(&self, spec: &SandboxSpec) -> Result<(), StartError> {
        self.fits(spec)?;
        self.programs.get(&spec.source).await.map(drop)
    }

    async fn start(&self, id: SandboxId, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        self.fits(spec)?;
        let program = self.programs.get(&spec.source).await?;
        let place = self.place().await?;
        let source = match &spec.source {
            Source::Module { path, .. } => path.clone(),
            Source::Image(_) | Source::Pod(_) => PathBuf::new(),
        };
        let now = Instant::now();
        Ok(Box::new(WasmSandbox {
            program,
            source,
            memory: spec.memory,
            dies_at: now.checked_add(spec.life).unwrap_or(now),
            listed: self.shared.live.enter(id, SystemTime::now().checked_add(spec.life).unwrap_or(SystemTime::UNIX_EPOCH)),
            shared: self.shared.clone(),
            _place: place,
        }))
    }

    async fn list(&self) -> Result<Vec<Found>, BackendError> {
        Ok(self.shared.live.list(self.instance))
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), BackendError> {
        if self.shared.live.kill(id).await {
            return Ok(());
        }
        Err(BackendError { backend: BackendKind::Wasm, detail: "a killed guest has not ended yet; trying again helps".into() })
    }
}
