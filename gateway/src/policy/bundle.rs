//! Policy from OPA bundles: `policy.wasm` on opa-wasm. The only file of the gateway that knows wasmtime.
//!
//! A compiled policy gets memory, its data and one evaluation's time, nothing else. Instances are reused: a fresh one costs forty
//! times an evaluation.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use opa_wasm::wasmtime::{Config, Engine, Linker, Memory, Module, Store, StoreLimits, StoreLimitsBuilder};
use opa_wasm::{DefaultContext, Runtime};
use parking_lot::Mutex;
use serde_json::Value;

use super::load::{Contents, PolicyLoadError, Problem};
use super::verdict::Answer;
use super::{PolicyError, PolicyInput};
use super::{builtins, syntax};

/// Instances kept for the next question.
const IDLE: usize = 64;
/// How often the clock of the time limit ticks.
const TICK: Duration = Duration::from_millis(5);
/// Most memory of one instance: its data, its input and what it makes of them.
const MOST_MEMORY: usize = 512 << 20;
/// The longest that a new instance may take to read its data.
const START_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct BundlePolicy {
    engine: Engine,
    module: Module,
    data: Value,
    entrypoint: String,
    instances: Mutex<Vec<Instance>>,
    time_limit: Duration,
}

struct Instance {
    store: Store<StoreLimits>,
    policy: opa_wasm::Policy<DefaultContext>,
}

impl BundlePolicy {
    pub(super) fn load(contents: Contents, package: &str, time_limit: Duration) -> Result<(Self, Vec<Problem>), PolicyLoadError> {
        let entrypoint = package.replace('.', "/");
        let failed = |error: &dyn std::fmt::Display| PolicyLoadError::from(Problem::of("policy.wasm", error.to_string()));
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).map_err(|error| failed(&error))?;
        let bytes = contents.wasm.as_deref().unwrap_or_default();
        let module = Module::new(&engine, bytes).map_err(|error| failed(&format!("is not a WebAssembly module: {error}")))?;
        start_ticking(&engine).map_err(|error| failed(&error))?;
        let wanted = wanted(&engine, &module).map_err(|error| failed(&format!("is not an OPA policy: {error}")))?;
        let refused: Vec<Problem> = wanted
            .keys()
            .filter_map(|name| {
                builtins::refusal(name).map(|why| Problem::of("policy.wasm", format!("`{name}` is refused: {why}")))
            })
            .collect();
        if !refused.is_empty() {
            return Err(refused.into());
        }
        let notes = notes(&contents, package);
        let data = Value::Object(contents.data);
        let policy = Self { engine, module, data, entrypoint, instances: Mutex::default(), time_limit };
        let first = policy.instance().map_err(|error| failed(&error))?;
        let mut entrypoints: Vec<&str> = first.policy.entrypoints().into_iter().collect();
        entrypoints.sort_unstable();
        if !entrypoints.contains(&policy.entrypoint.as_str()) {
            let message = format!(
                "the bundle answers to {}, not to the package `{}` as a whole, and so would lose `deny`; build it with `opa build -t wasm -e {}`",
                entrypoints.join(", "),
                package,
                policy.entrypoint
            );
            return Err(Problem::of("policy.wasm", message).into());
        }
        policy.instances.lock().push(first);
        Ok((policy, notes))
    }

    pub(super) fn ask(&self, input: &PolicyInput) -> Result<Answer, PolicyError> {
        Ok(Answer::from_package(&mut self.package(input)?))
    }

    /// `visible`, or `None` where it is undefined.
    pub(super) fn visible(&self, input: &PolicyInput) -> Result<Option<Value>, PolicyError> {
        Ok(self.package(input)?.as_object_mut().and_then(|rules| rules.remove("visible")))
    }

    /// The document of the whole package; `null` where it is undefined.
    fn package(&self, input: &PolicyInput) -> Result<Value, PolicyError> {
        let taken = self.instances.lock().pop();
        let mut instance = taken.map_or_else(|| self.instance(), Ok).map_err(PolicyError::Evaluation)?;
        let started = Instant::now();
        instance.store.set_epoch_deadline(ticks(self.time_limit));
        let answer =
            instance.policy.evaluate::<_, Vec<BTreeMap<String, Value>>, _>(&mut instance.store, &self.entrypoint, &input.0);
        // An instance that failed is not used again.
        let answer = at_once(answer).map_err(|error| match started.elapsed() >= self.time_limit {
            true => PolicyError::TimeLimit(self.time_limit),
            false => PolicyError::Evaluation(error),
        })?;
        let mut idle = self.instances.lock();
        if idle.len() < IDLE {
            idle.push(instance);
        }
        drop(idle);
        Ok(answer.into_iter().next().and_then(|mut result| result.remove("result")).unwrap_or_default())
    }

    fn instance(&self) -> Result<Instance, String> {
        let mut store = store(&self.engine);
        let runtime = at_once(Runtime::new(&mut store, &self.module))?;
        let policy = at_once(runtime.with_data(&mut store, &self.data))?;
        Ok(Instance { store, policy })
    }
}

fn store(engine: &Engine) -> Store<StoreLimits> {
    let mut store = Store::new(engine, StoreLimitsBuilder::new().memory_size(MOST_MEMORY).build());
    store.limiter(|limits| limits);
    store.set_epoch_deadline(ticks(START_LIMIT));
    store
}

/// Rounded up, and one more: the first tick may come at once.
fn ticks(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX).saturating_add(1)
}

/// Drives a future that never waits: nothing a policy calls does I/O, and epochs trap rather than yield.
fn at_once<T, E: std::fmt::Display>(future: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match future.now_or_never() {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(format!("{error:#}")),
        None => Err("the policy waited for something, which a policy cannot".to_owned()),
    }
}

/// Moves the engine's clock for as long as the engine lives.
fn start_ticking(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("policy-clock".to_owned()).spawn(tick).map(drop)
}

/// The builtins that the module asks its host for. opa-wasm resolves them without saying which.
fn wanted(engine: &Engine, module: &Module) -> Result<BTreeMap<String, i32>, String> {
    let failed = |error: opa_wasm::wasmtime::Error| format!("{error:#}");
    let mut store = store(engine);
    let mut linker = Linker::new(engine);
    let import = module.imports().find(|import| import.module() == "env" && import.name() == "memory");
    let memory_type = import.and_then(|import| import.ty().memory().cloned()).ok_or("it imports no memory")?;
    let memory = at_once(Memory::new_async(&mut store, memory_type))?;
    linker.define(&store, "env", "memory", memory).map_err(failed)?;
    linker.define_unknown_imports_as_traps(module).map_err(failed)?;
    let instance = at_once(linker.instantiate_async(&mut store, module))?;
    let list = instance.get_typed_func::<(), i32>(&mut store, "builtins").map_err(failed)?;
    let list = at_once(list.call_async(&mut store, ()))?;
    let dump = instance.get_typed_func::<i32, i32>(&mut store, "opa_json_dump").map_err(failed)?;
    let text = at_once(dump.call_async(&mut store, list))?;
    let text = usize::try_from(text).ok().and_then(|start| memory.data(&store).get(start..)).ok_or("its memory is damaged")?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// What compiling takes away: a builtin that fails is undefined here, and a `deny` that rests on it silent.
fn notes(contents: &Contents, package: &str) -> Vec<Problem> {
    if contents.sources.is_empty() {
        return vec![Problem::general(
            "warning: the bundle holds no .rego sources, so its `deny` rules cannot be checked; one that calls a builtin on a wrong type does not deny",
        )];
    }
    match syntax::parse(&contents.sources) {
        Err(problems) => problems,
        Ok((_, rules)) => rules
            .fragile_denials(package)
            .into_iter()
            .map(|(rule, name)| {
                let message = format!(
                    "warning: this `deny` rests on {name}, and in a compiled bundle it does not deny when {name} fails; check the type first (`is_string`), or serve the sources"
                );
                Problem::at(&rule.file, rule.line, message)
            })
            .collect(),
    }
}
