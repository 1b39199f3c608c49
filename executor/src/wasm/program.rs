//! Sources made ready to run: read, verified, compiled, linked, and kept.
//!
//! # Flow
//! memory -> (file read and its digest verified) -> disk -> compiler
//!
//! # Guarantees
//! A source is compiled only when the file still has the digest it was pinned to, once at a time however many ask, and never
//! on a thread that runs calls.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use wasmtime::component::{self, Component};
use wasmtime::{Engine, InstancePre, Linker, Module, Store};
use wasmtime_wasi::p2::bindings::CommandPre;

use crate::error::StartError;
use crate::spec::Source;

use super::artefacts::{Artefacts, Compiled, Kind};
use super::guest::Guest;

/// Largest source file. Compiling takes many times its size in memory.
const LARGEST_SOURCE: u64 = 64 << 20;
/// Most programs kept ready; the one not used for longest makes room.
const MOST_PROGRAMS: usize = 256;

/// A source that is ready to be instantiated.
pub(super) enum Program {
    /// Instantiated, then its `_start` called.
    Module(InstancePre<Guest>),
    /// Instantiated, then its `wasi:cli/run` called.
    Component(CommandPre<Guest>),
}

impl Program {
    /// Runs it to its end. `instantiated` is called in between.
    ///
    /// # Errors
    /// Whatever ended it early, `exit` included.
    pub(super) async fn run(&self, store: &mut Store<Guest>, instantiated: impl FnOnce()) -> wasmtime::Result<i32> {
        match self {
            Self::Module(pre) => {
                let instance = pre.instantiate_async(&mut *store).await?;
                instantiated();
                let start = instance.get_typed_func::<(), ()>(&mut *store, START)?;
                start.call_async(&mut *store, ()).await?;
                Ok(0)
            }
            Self::Component(pre) => {
                let command = pre.instantiate_async(&mut *store).await?;
                instantiated();
                let ended = command.wasi_cli_run().call_run(&mut *store).await?;
                Ok(i32::from(ended.is_err()))
            }
        }
    }
}

const START: &str = "_start";

/// All programs, and what makes them.
pub(super) struct Programs {
    maker: Arc<Maker>,
    ready: Mutex<Ready>,
}

struct Maker {
    engine: Engine,
    modules: Linker<Guest>,
    components: component::Linker<Guest>,
    artefacts: Artefacts,
}

#[derive(Default)]
struct Ready {
    by_sha256: HashMap<String, Slot>,
    clock: u64,
}

struct Slot {
    program: Arc<OnceCell<Arc<Program>>>,
    used: u64,
}

impl Programs {
    pub(super) fn new(engine: &Engine, artefacts: Artefacts) -> wasmtime::Result<Self> {
        let mut modules = Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut modules, Guest::wasi)?;
        let mut components = component::Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut components)?;
        // Always linked, so that a component that can speak HTTP starts; without destinations every request is refused.
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut components)?;
        let maker = Maker { engine: engine.clone(), modules, components, artefacts };
        Ok(Self { maker: Arc::new(maker), ready: Mutex::default() })
    }

    /// The program of `source`, at once when it is ready.
    pub(super) async fn get(&self, source: &Source) -> Result<Arc<Program>, StartError> {
        let Source::Module { path, sha256 } = source else {
            return Err(StartError::SourceInvalid {
                source_name: "an image".into(),
                detail: "the wasm backend runs modules and components; images run on docker".into(),
            });
        };
        let cell = self.slot(sha256);
        if let Some(program) = cell.get() {
            return Ok(program.clone());
        }
        let made = cell.get_or_try_init(|| self.make(path.clone(), sha256.clone())).await.cloned();
        if made.is_err() {
            self.forget(sha256, &cell);
        }
        made
    }

    fn slot(&self, sha256: &str) -> Arc<OnceCell<Arc<Program>>> {
        let mut ready = self.ready.lock();
        ready.clock += 1;
        let now = ready.clock;
        if let Some(slot) = ready.by_sha256.get_mut(sha256) {
            slot.used = now;
            return slot.program.clone();
        }
        if ready.by_sha256.len() >= MOST_PROGRAMS {
            let oldest = ready.by_sha256.iter().min_by_key(|(_, slot)| slot.used).map(|(sha256, _)| sha256.clone());
            oldest.map(|sha256| ready.by_sha256.remove(&sha256));
        }
        let program = Arc::<OnceCell<_>>::default();
        ready.by_sha256.insert(sha256.to_owned(), Slot { program: program.clone(), used: now });
        program
    }

    /// Drops a slot that stayed empty; one that another caller has filled meanwhile stays.
    fn forget(&self, sha256: &str, cell: &Arc<OnceCell<Arc<Program>>>) {
        let mut ready = self.ready.lock();
        if ready.by_sha256.get(sha256).is_some_and(|slot| Arc::ptr_eq(&slot.program, cell) && !cell.initialized()) {
            ready.by_sha256.remove(sha256);
        }
    }

    async fn make(&self, path: PathBuf, sha256: String) -> Result<Arc<Program>, StartError> {
        let maker = self.maker.clone();
        let name = path.display().to_string();
        tokio::task::spawn_blocking(move || maker.make(&path, &sha256).map(Arc::new))
            .await
            .unwrap_or_else(|_| Err(StartError::SourceInvalid { source_name: name, detail: "its compilation panicked".into() }))
    }
}

impl Maker {
    fn make(&self, path: &Path, sha256: &str) -> Result<Program, StartError> {
        let invalid = |detail: String| StartError::SourceInvalid { source_name: path.display().to_string(), detail };
        let source = read_verified(path, sha256)?;
        let kind = kind_of(&source).map_err(invalid)?;
        let compiled = match self.artefacts.load(&self.engine, kind, sha256) {
            Some(compiled) => compiled,
            None => self.compile(kind, &source, sha256).map_err(|e| invalid(first_line(&e)))?,
        };
        match compiled {
            Compiled::Module(module) => {
                if module.get_export(START).and_then(|export| export.func().map(|f| f.params().len() + f.results().len()))
                    != Some(0)
                {
                    return Err(invalid(format!("it exports no function `{START}`; build it as a program for wasm32-wasip1")));
                }
                self.modules.instantiate_pre(&module).map(Program::Module)
            }
            Compiled::Component(component) => {
                self.components.instantiate_pre(&component).and_then(CommandPre::new).map(Program::Component)
            }
        }
        .map_err(|error| invalid(format!("{}; build it for wasm32-wasip1 or wasm32-wasip2", first_line(&error))))
    }

    fn compile(&self, kind: Kind, source: &[u8], sha256: &str) -> wasmtime::Result<Compiled> {
        let (compiled, code) = match kind {
            Kind::Module => {
                let module = Module::from_binary(&self.engine, source)?;
                let code = module.serialize()?;
                (Compiled::Module(module), code)
            }
            Kind::Component => {
                let component = Component::from_binary(&self.engine, source)?;
                let code = component.serialize()?;
                (Compiled::Component(component), code)
            }
        };
        if let Err(error) = self.artefacts.store(sha256, &code) {
            tracing::warn!(%error, "a compiled module could not be kept on disk; it is compiled again after a restart");
        }
        Ok(compiled)
    }
}

fn read_verified(path: &Path, sha256: &str) -> Result<Vec<u8>, StartError> {
    let missing = |detail: String| StartError::SourceMissing { source_name: path.display().to_string(), detail };
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_digest {
        return Err(missing("its pinned digest is not 64 lower-case hex digits; load the tool again".into()));
    }
    let length = std::fs::metadata(path).map_err(|e| missing(e.to_string()))?.len();
    if length > LARGEST_SOURCE {
        return Err(missing(format!("it has {length} bytes, and at most {LARGEST_SOURCE} are accepted")));
    }
    let source = std::fs::read(path).map_err(|e| missing(e.to_string()))?;
    let found = hex::encode(Sha256::digest(&source));
    if found != sha256 {
        return Err(missing(format!(
            "it was pinned as sha256 {sha256} and is {found} now; load the tool again to accept the new file"
        )));
    }
    Ok(source)
}

/// Reads the preamble: the magic, a version, and whether modules or components follow (WebAssembly core specification 5.5.16,
/// component model binary format).
fn kind_of(source: &[u8]) -> Result<Kind, String> {
    match source.get(..8) {
        Some(b"\0asm\x01\0\0\0") => Ok(Kind::Module),
        Some(b"\0asm\x0d\0\x01\0") => Ok(Kind::Component),
        Some([0, b'a', b's', b'm', ..]) => Err("it is WebAssembly of a version that is not supported".into()),
        _ => Err("it is neither a WebAssembly module nor a component".into()),
    }
}

/// The causes of an error in one line: the outermost and the innermost.
pub(super) fn first_line(error: &wasmtime::Error) -> String {
    let line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let (outer, inner) = (line(error.to_string()), line(error.root_cause().to_string()));
    if outer == inner { outer } else { format!("{outer}: {inner}") }
}
