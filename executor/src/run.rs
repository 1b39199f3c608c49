//! The dispatcher: the one place where a sandbox is started for a call, and where its end begins.
//!
//! # Flow
//! row in the ledger -> start -> deliver -> report -> (answer) -> destroy -> row closed
//!
//! # Guarantees
//! - A sandbox that can outlive this process has a durable row before the engine hears of it.
//! - Every sandbox that was started, or may have been, is destroyed: here, or by the [reaper](crate::reaper) from the row.
//! - A start that was given up is waited for before its sandbox is destroyed: an engine cannot finish it behind our back.
//! - [`Dispatcher::run`] answers within the start timeout, the invocation's timeout and the grace, whatever the engine does.
//! - Teardown is not waited for, and not forgotten: [`Dispatcher::drain`] waits for what is under way.
//!
//! # Assumptions
//! `run` is driven to its end by a task that nobody aborts; cancellation comes through [`Host::canceled`].

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::backend::REPORT_GRACE;
use crate::error::{RunError, StartError};
use crate::spec::SandboxSpec;
use crate::wire::{Invocation, Report};
use crate::{Backend, BackendKind, Event, Host, InstanceId, Sandbox, SandboxId, SandboxLedger, SandboxRow};

/// How long a teardown tries to destroy. After that the reaper has it.
const TEARDOWN: Duration = Duration::from_secs(20);
/// How long a teardown waits for a start that was given up.
const LATE_START: Duration = Duration::from_secs(60);

type Started = Result<Box<dyn Sandbox>, StartError>;

/// What is to run: where, and with what.
#[derive(Debug)]
pub struct Order {
    /// The kind of sandbox.
    pub spec: SandboxSpec,
    /// The one invocation.
    pub invocation: Invocation,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nothing ran.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Something may have.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The call was canceled before a sandbox had it.
    #[error("canceled before delivery")]
    CanceledBeforeDelivery,
}

impl Failure {
    /// Whether the tool may have had any effect.
    pub const fn may_have_run(&self) -> bool {
        match self {
            Self::Start(_) | Self::CanceledBeforeDelivery => false,
            Self::Run(error) => error.may_have_run(),
        }
    }
}

/// How many sandboxes a backend has started and destroyed since this process began. What was started and is not destroyed runs,
/// or is being removed.
#[derive(Debug, Default)]
pub struct Counts {
    /// Asked of the engine.
    pub started: AtomicU64,
    /// Of those started: confirmed gone, by their own teardown or, where that gave up, by the reaper.
    pub destroyed: AtomicU64,
    /// Beside those: destroyed by the reaper, with no owner in this process.
    pub orphans: AtomicU64,
    /// Of those started and not destroyed: their teardown gave up, the reaper has them.
    given_up: Mutex<HashSet<SandboxId>>,
}

impl Counts {
    fn gone(&self) {
        self.destroyed.fetch_add(1, Ordering::Relaxed);
    }

    fn give_up(&self, id: SandboxId) {
        self.given_up.lock().insert(id);
    }

    /// What teardowns gave up and nobody has confirmed gone yet.
    pub(crate) fn given_up(&self) -> HashSet<SandboxId> {
        self.given_up.lock().clone()
    }

    /// The end of what a teardown gave up. Counts once, however often it is confirmed.
    pub(crate) fn gone_after_all(&self, id: SandboxId) {
        if self.given_up.lock().remove(&id) {
            self.gone();
        }
    }
}

/// Owns all backends.
pub struct Dispatcher {
    backends: BTreeMap<BackendKind, (Arc<dyn Backend>, Arc<Counts>)>,
    ledger: Arc<dyn SandboxLedger>,
    instance: InstanceId,
    live: Mutex<HashSet<SandboxId>>,
    /// Starts, and the teardowns that follow them.
    tasks: TaskTracker,
    start_timeout: Duration,
    teardown: Duration,
}

impl Dispatcher {
    /// A dispatcher over `backends`, that gives each start at most `start_timeout`.
    pub fn new(
        backends: Vec<Arc<dyn Backend>>,
        ledger: Arc<dyn SandboxLedger>,
        instance: InstanceId,
        start_timeout: Duration,
    ) -> Arc<Self> {
        let backends = backends.into_iter().map(|b| (b.kind(), (b, Arc::default()))).collect();
        let (live, tasks) = (Mutex::default(), TaskTracker::new());
        Arc::new(Self { backends, ledger, instance, live, tasks, start_timeout, teardown: TEARDOWN })
    }

    /// The backends it owns, with their counters.
    pub fn backends(&self) -> impl Iterator<Item = (&Arc<dyn Backend>, &Counts)> {
        self.backends.values().map(|(backend, counts)| (backend, &**counts))
    }

    /// See [`Backend::prepare`].
    ///
    /// # Errors
    /// As the backend says; [`StartError::EngineUnavailable`] when there is no such backend here.
    pub async fn prepare(&self, spec: &SandboxSpec) -> Result<(), StartError> {
        self.backend(spec.backend())?.0.prepare(spec).await
    }

    /// Runs one order in a sandbox of its own and answers when nothing of it runs any more.
    ///
    /// # Errors
    /// [`Failure`], which says whether the tool may have run.
    pub async fn run(self: &Arc<Self>, order: Order, host: &dyn Host) -> Result<Report, Failure> {
        let Order { spec, invocation } = order;
        let (backend, counts) = self.backend(spec.backend())?;
        let id = SandboxId::generate();
        host.observe(Event::Starting(id));
        // Before there is a row: the reaper closes the rows of what is neither live nor listed.
        self.live.lock().insert(id);
        if backend.outlives_process() {
            let row = SandboxRow {
                id,
                backend: backend.kind(),
                call_id: Some(invocation.call_id.clone()),
                expires_at: SystemTime::now() + spec.life,
            };
            if let Err(error) = self.ledger.opening(&row).await {
                self.live.lock().remove(&id);
                return Err(StartError::NotRecorded(error).into());
            }
        }
        counts.started.fetch_add(1, Ordering::Relaxed);
        let mut start = None;
        let result = match self.start(backend, id, spec, host, &mut start).await {
            Ok(sandbox) => invoke(sandbox, invocation, host).await,
            Err(failure) => Err(failure),
        };
        host.observe(Event::Ended);
        self.tear_down(backend.clone(), counts.clone(), id, start, host.tearing_down()).await;
        result
    }

    /// Gives the start up when it takes too long or the call is canceled. Where the engine may finish it without us, it goes on as
    /// `task`, for the teardown to wait for.
    async fn start(
        &self,
        backend: &Arc<dyn Backend>,
        id: SandboxId,
        spec: SandboxSpec,
        host: &dyn Host,
        task: &mut Option<JoinHandle<Started>>,
    ) -> Result<Box<dyn Sandbox>, Failure> {
        if !backend.outlives_process() {
            return self.in_time(backend.start(id, &spec), host).await;
        }
        // Spawned when it is first polled, so never for a call that is canceled by then.
        let start = async {
            let (kind, backend) = (backend.kind(), backend.clone());
            let task = task.insert(self.tasks.spawn(async move { backend.start(id, &spec).await }));
            task.await.unwrap_or_else(|error| Err(StartError::EngineUnavailable { backend: kind, detail: error.to_string() }))
        };
        self.in_time(start, host).await
    }

    async fn in_time(&self, start: impl Future<Output = Started>, host: &dyn Host) -> Result<Box<dyn Sandbox>, Failure> {
        tokio::select! {
            biased;
            () = host.canceled().cancelled() => Err(Failure::CanceledBeforeDelivery),
            started = tokio::time::timeout(self.start_timeout, start) => {
                Ok(started.map_err(|_| StartError::Timeout(self.start_timeout))??)
            }
        }
    }

    /// Waits only for what is gone at once; everything else finishes on a tracked task, with retries.
    async fn tear_down(
        self: &Arc<Self>,
        backend: Arc<dyn Backend>,
        counts: Arc<Counts>,
        id: SandboxId,
        start: Option<JoinHandle<Started>>,
        held: Box<dyn Send>,
    ) {
        if !backend.outlives_process() {
            // In-process: it can be late, but leaves nothing.
            match backend.destroy(id).await {
                Ok(()) => counts.gone(),
                Err(_) => counts.give_up(id),
            }
            self.live.lock().remove(&id);
            return;
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            let _until_gone = held;
            finish(id, start).await;
            this.destroy(&*backend, &counts, id).await;
            this.live.lock().remove(&id);
        });
    }

    async fn destroy(&self, backend: &dyn Backend, counts: &Counts, id: SandboxId) {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(100);
        while begun.elapsed() < self.teardown {
            match backend.destroy(id).await {
                Ok(()) => {
                    counts.gone();
                    if let Err(error) = self.ledger.closed(id).await {
                        tracing::warn!(%id, %error, "a destroyed sandbox could not be closed in the ledger; the reaper will");
                    }
                    return;
                }
                Err(error) => tracing::warn!(%id, %error, "a sandbox could not be destroyed; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        // The row stays open. It is known as given up before it leaves the live set, so that the reaper takes it for no orphan.
        counts.give_up(id);
    }

    /// Waits until every start and teardown under way has ended, or `patience` is over.
    pub async fn drain(&self, patience: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
        self.tasks.reopen();
    }

    pub(crate) fn live(&self) -> HashSet<SandboxId> {
        self.live.lock().clone()
    }

    pub(crate) fn is_live(&self, id: SandboxId) -> bool {
        self.live.lock().contains(&id)
    }

    pub(crate) const fn instance(&self) -> InstanceId {
        self.instance
    }

    pub(crate) fn ledger(&self) -> &dyn SandboxLedger {
        &*self.ledger
    }

    fn backend(&self, kind: BackendKind) -> Result<(&Arc<dyn Backend>, &Arc<Counts>), StartError> {
        self.backends.get(&kind).map(|(b, c)| (b, c)).ok_or_else(|| StartError::EngineUnavailable {
            backend: kind,
            detail: "this gateway is configured without it".into(),
        })
    }
}

async fn invoke(sandbox: Box<dyn Sandbox>, invocation: Invocation, host: &dyn Host) -> Result<Report, Failure> {
    host.observe(Event::Started);
    host.delivering().await.map_err(StartError::NotRecorded)?;
    // A sandbox bounds itself; this second clock is for one that cannot any more.
    let overdue = invocation.timeout + REPORT_GRACE;
    match tokio::time::timeout(overdue, sandbox.invoke(invocation, host)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(RunError::Overdue.into()),
    }
}

/// Waits for a start that was given up. What comes of it is for the teardown.
async fn finish(id: SandboxId, start: Option<JoinHandle<Started>>) {
    let Some(mut start) = start.filter(|start| !start.is_finished()) else { return };
    if tokio::time::timeout(LATE_START, &mut start).await.is_err() {
        tracing::warn!(%id, "a start that was given up did not end; should the engine still finish it, the reaper will find it");
        start.abort();
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
