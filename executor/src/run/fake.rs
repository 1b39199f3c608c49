//! An engine, a ledger and a caller for tests of the dispatcher and the reaper. They remember, and misbehave as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::{BackendError, LedgerError, RunError, StartError};
use crate::lifecycle::Lifecycle;
use crate::spec::{ByteSize, SandboxSpec, Source};
use crate::wire::{Exit, Invocation, Report, Usage, WireKey};
use crate::{
    Backend, BackendKind, Dispatcher, Event, Found, Host, InstanceId, Order, Sandbox, SandboxId, SandboxLedger, SandboxRow,
};

const INSTANCE: InstanceId = InstanceId(Uuid::from_u128(1));

/// What an engine does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Everything works at once.
    Works,
    /// A start takes until [`Engine::go_on`], and is finished then whether or not anyone still waits for it.
    StartsSlowly,
    /// The tool runs until it is canceled.
    RunsOn,
    /// Nothing can be destroyed.
    HoldsOn,
    /// Nothing can be started.
    Fails,
    /// What is started takes no invocation.
    Deaf,
    /// What is started gets no token.
    Unknown,
}

/// An engine whose sandboxes outlive this process.
pub(crate) struct Engine {
    scenario: Mutex<Scenario>,
    sandboxes: Arc<Mutex<BTreeSet<SandboxId>>>,
    reached: Arc<Notify>,
    go_on: Arc<Notify>,
    dies: Arc<Notify>,
    /// How often it was asked to start something.
    asked: AtomicU64,
    /// The keys of the invocations that it was given.
    keys: Arc<Mutex<Vec<WireKey>>>,
}

impl Engine {
    pub(crate) fn new(scenario: Scenario) -> Arc<Self> {
        Arc::new(Self {
            scenario: Mutex::new(scenario),
            sandboxes: Arc::default(),
            reached: Arc::default(),
            go_on: Arc::default(),
            dies: Arc::default(),
            asked: AtomicU64::new(0),
            keys: Arc::default(),
        })
    }

    pub(crate) fn becomes(&self, scenario: Scenario) {
        *self.scenario.lock() = scenario;
    }

    /// Waits for what the scenario is about: a slow start is under way, a tool runs on.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets one slow start finish.
    pub(crate) fn go_on(&self) {
        self.go_on.notify_one();
    }

    pub(crate) fn sandboxes(&self) -> BTreeSet<SandboxId> {
        self.sandboxes.lock().clone()
    }

    /// One sandbox that waits dies.
    pub(crate) fn one_dies(&self) {
        self.dies.notify_one();
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn keys(&self) -> Vec<WireKey> {
        self.keys.lock().clone()
    }

    /// A sandbox from before this process.
    pub(crate) fn had_already(&self, id: SandboxId) {
        self.sandboxes.lock().insert(id);
    }

    /// Its sandboxes end without us.
    pub(crate) fn forget_all(&self) {
        self.sandboxes.lock().clear();
    }
}

#[async_trait]
impl Backend for Engine {
    fn kind(&self) -> BackendKind {
        BackendKind::Docker
    }

    fn outlives_process(&self) -> bool {
        true
    }

    async fn probe(&self) -> Result<String, BackendError> {
        Ok("a fake".into())
    }

    async fn prepare(&self, _: &SandboxSpec) -> Result<(), StartError> {
        Ok(())
    }

    async fn start(&self, id: SandboxId, _: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        let scenario = *self.scenario.lock();
        self.asked.fetch_add(1, Ordering::Relaxed);
        if scenario == Scenario::Fails {
            return Err(StartError::Refused { backend: BackendKind::Docker, detail: "it fails".into() });
        }
        let (sandboxes, reached, go_on) = (self.sandboxes.clone(), self.reached.clone(), self.go_on.clone());
        let creating = tokio::spawn(async move {
            if scenario == Scenario::StartsSlowly {
                reached.notify_one();
                go_on.notified().await;
            }
            sandboxes.lock().insert(id);
        });
        creating.await.unwrap();
        Ok(Box::new(Program {
            id,
            runs_on: (scenario == Scenario::RunsOn).then(|| self.reached.clone()),
            deaf: scenario == Scenario::Deaf,
            unknown: scenario == Scenario::Unknown,
            dies: self.dies.clone(),
            keys: self.keys.clone(),
        }))
    }

    async fn list(&self) -> Result<Vec<Found>, BackendError> {
        let expires_at = SystemTime::now() + Duration::from_secs(60);
        Ok(self.sandboxes().into_iter().map(|id| Found { id, instance: INSTANCE, expires_at }).collect())
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), BackendError> {
        if *self.scenario.lock() == Scenario::HoldsOn {
            return Err(BackendError { backend: BackendKind::Docker, detail: "it holds on".into() });
        }
        self.sandboxes.lock().remove(&id);
        Ok(())
    }
}

struct Program {
    id: SandboxId,
    /// Told that it runs.
    runs_on: Option<Arc<Notify>>,
    deaf: bool,
    unknown: bool,
    dies: Arc<Notify>,
    keys: Arc<Mutex<Vec<WireKey>>>,
}

#[async_trait]
impl Sandbox for Program {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn idle(&mut self) -> String {
        self.dies.notified().await;
        "it died".into()
    }

    async fn mint(&mut self, _: &Invocation) -> Result<(), StartError> {
        let refused = || StartError::Refused { backend: BackendKind::Docker, detail: "nobody knows it".into() };
        if self.unknown { Err(refused()) } else { Ok(()) }
    }

    async fn invoke(self: Box<Self>, invocation: Invocation, host: &dyn Host) -> Result<Report, RunError> {
        self.keys.lock().push(invocation.key.clone());
        if self.deaf {
            return Err(RunError::NotDelivered("it is deaf".into()));
        }
        if let Some(running) = self.runs_on {
            running.notify_one();
            host.canceled().cancelled().await;
            return Err(RunError::Lost("canceled".into()));
        }
        Ok(Report {
            exit: Exit::Code(0),
            detail: None,
            stdout: Bytes::new(),
            stderr: Bytes::new(),
            stderr_truncated: false,
            exhausted: BTreeSet::new(),
            usage: Usage::default(),
            spans: vec![],
        })
    }
}

enum Manner {
    Prompt,
    Slow,
    Refuses,
}

/// A ledger in memory.
pub(crate) struct Ledger {
    manner: Manner,
    rows: Mutex<Vec<SandboxRow>>,
    written: Notify,
    go_on: Notify,
}

impl Ledger {
    fn new(manner: Manner) -> Arc<Self> {
        Arc::new(Self { manner, rows: Mutex::default(), written: Notify::new(), go_on: Notify::new() })
    }

    pub(crate) fn prompt() -> Arc<Self> {
        Self::new(Manner::Prompt)
    }

    /// Answers only at [`Ledger::go_on`] that a row is written.
    pub(crate) fn slow() -> Arc<Self> {
        Self::new(Manner::Slow)
    }

    /// Takes no row.
    pub(crate) fn refusing() -> Arc<Self> {
        Self::new(Manner::Refuses)
    }

    /// Waits until a row is written.
    pub(crate) async fn written(&self) {
        self.written.notified().await;
    }

    pub(crate) fn go_on(&self) {
        self.go_on.notify_one();
    }

    /// How many rows are open.
    pub(crate) fn open(&self) -> usize {
        self.rows.lock().len()
    }
}

#[async_trait]
impl SandboxLedger for Ledger {
    async fn opening(&self, row: &SandboxRow) -> Result<(), LedgerError> {
        if matches!(self.manner, Manner::Refuses) {
            return Err(LedgerError("it is full".into()));
        }
        self.rows.lock().push(row.clone());
        self.written.notify_one();
        if matches!(self.manner, Manner::Slow) {
            self.go_on.notified().await;
        }
        Ok(())
    }

    async fn closed(&self, id: SandboxId) -> Result<(), LedgerError> {
        self.rows.lock().retain(|row| row.id != id);
        Ok(())
    }

    async fn open_rows(&self) -> Result<Vec<SandboxRow>, LedgerError> {
        Ok(self.rows.lock().clone())
    }
}

/// Whoever waits for the answer.
#[derive(Default)]
pub(crate) struct Caller {
    pub(crate) cancel: CancellationToken,
    pub(crate) events: Mutex<Vec<Event>>,
    /// Held until the sandbox is gone.
    pub(crate) held: Arc<()>,
}

#[async_trait]
impl Host for Caller {
    fn observe(&self, event: Event) {
        self.events.lock().push(event);
    }

    fn canceled(&self) -> &CancellationToken {
        &self.cancel
    }

    fn tearing_down(&self) -> Box<dyn Send> {
        Box::new(self.held.clone())
    }

    async fn delivering(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// Patient with starts, and soon done with teardowns that do not succeed.
pub(crate) fn dispatcher(engine: &Arc<Engine>, ledger: &Arc<Ledger>) -> Arc<Dispatcher> {
    dispatcher_with(engine, ledger, Duration::from_secs(60))
}

/// The same with another start timeout.
pub(crate) fn dispatcher_with(engine: &Arc<Engine>, ledger: &Arc<Ledger>, start_timeout: Duration) -> Arc<Dispatcher> {
    let mut lifecycle = Lifecycle::new(ledger.clone(), INSTANCE, start_timeout);
    lifecycle.teardown = Duration::from_millis(50);
    Dispatcher::over(vec![engine.clone() as Arc<dyn Backend>], lifecycle)
}

/// How many sandboxes were started, destroyed, and found as orphans.
pub(crate) fn counted(dispatcher: &Dispatcher) -> (u64, u64, u64) {
    let (_, counts) = dispatcher.backends().next().unwrap();
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    (read(&counts.started), read(&counts.destroyed), read(&counts.orphans))
}

pub(crate) fn order() -> Order {
    let spec = SandboxSpec {
        source: Source::Image("sha256:fake".into()),
        memory: ByteSize::mebibytes(64),
        cpu_millis: 1000,
        pids: 32,
        scratch: ByteSize::mebibytes(8),
        mounts: vec![],
        network: std::collections::BTreeSet::new(),
        life: Duration::from_secs(120),
    };
    let invocation = Invocation {
        call_id: "call".into(),
        key: WireKey::generate().unwrap(),
        command: vec![],
        stdin: Bytes::new(),
        environment: BTreeMap::new(),
        files: Vec::new(),
        sockets: crate::wire::Sockets::Unix,
        timeout: Duration::from_secs(30),
        output_limit: ByteSize::mebibytes(1),
        faces: None,
        traceparent: String::new(),
    };
    Order { spec, invocation }
}
