//! A sandbox from its row to its end, for whoever starts one: the [dispatcher](crate::run) for a call, the [pool](crate::pool)
//! ahead of calls.
//!
//! # Flow
//! row in the ledger -> start -> (used) -> destroy -> row closed
//!
//! # Guarantees
//! - A sandbox that can outlive this process has a durable row before the engine hears of it.
//! - Every sandbox that was started, or may have been, is destroyed: here, or by the [reaper](crate::reaper) from the row.
//! - A start that was given up is waited for before its sandbox is destroyed: an engine cannot finish it behind our back.
//! - Teardown is not waited for, and not forgotten: [`Lifecycle::drain`] waits for what is under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{BackendError, StartError};
use crate::spec::SandboxSpec;
use crate::{Backend, InstanceId, Sandbox, SandboxId, SandboxLedger, SandboxRow};

/// How long a teardown tries to destroy. After that the reaper has it.
pub(crate) const TEARDOWN: Duration = Duration::from_secs(20);
/// How long one attempt to destroy may take. Engines confirm that something is gone, which takes some of them seconds.
const ATTEMPT: Duration = Duration::from_secs(40);
/// How long a teardown waits for a start that was given up.
const LATE_START: Duration = Duration::from_secs(60);

type Started = Result<Box<dyn Sandbox>, StartError>;

/// How many sandboxes a backend has started and destroyed since this process began. What was started and is not destroyed runs,
/// waits warm, or is being removed.
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

/// A backend and its figures.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) counts: Arc<Counts>,
}

/// A sandbox that has an owner in this process, from its row to the beginning of its end. Whoever has one hands it to
/// [`Lifecycle::tear_down`].
pub(crate) struct Life {
    pub(crate) id: SandboxId,
    engine: Engine,
    /// Its start, where the engine may finish it without us.
    start: Option<JoinHandle<Started>>,
}

/// Why a start gave no sandbox.
pub(crate) enum NotStarted {
    /// It was not waited for.
    Canceled,
    /// It failed.
    Failed(StartError),
}

/// Starts and destroys.
pub(crate) struct Lifecycle {
    ledger: Arc<dyn SandboxLedger>,
    instance: InstanceId,
    live: Mutex<HashSet<SandboxId>>,
    /// Starts, and the teardowns that follow them.
    tasks: TaskTracker,
    start_timeout: Duration,
    pub(crate) teardown: Duration,
}

impl Lifecycle {
    pub(crate) fn new(ledger: Arc<dyn SandboxLedger>, instance: InstanceId, start_timeout: Duration) -> Self {
        Self { ledger, instance, live: Mutex::default(), tasks: TaskTracker::new(), start_timeout, teardown: TEARDOWN }
    }

    /// Enters a sandbox in the ledger, for a call or for none yet. Nothing is asked of the engine.
    pub(crate) async fn begin(
        &self,
        engine: &Engine,
        id: SandboxId,
        spec: &SandboxSpec,
        call_id: Option<&str>,
    ) -> Result<Life, StartError> {
        // Before there is a row: the reaper closes the rows of what is neither live nor listed.
        self.live.lock().insert(id);
        if engine.backend.outlives_process() {
            let row = SandboxRow {
                id,
                backend: engine.backend.kind(),
                call_id: call_id.map(str::to_owned),
                expires_at: SystemTime::now() + spec.life,
            };
            if let Err(error) = self.ledger.opening(&row).await {
                self.live.lock().remove(&id);
                return Err(StartError::NotRecorded(error));
            }
        }
        engine.counts.started.fetch_add(1, Ordering::Relaxed);
        Ok(Life { id, engine: engine.clone(), start: None })
    }

    /// Gives the start up when it takes too long or is canceled. Where the engine may finish it without us, it goes on as a task,
    /// for the teardown to wait for.
    pub(crate) async fn start(
        &self,
        life: &mut Life,
        spec: &SandboxSpec,
        canceled: &CancellationToken,
    ) -> Result<Box<dyn Sandbox>, NotStarted> {
        let (id, backend) = (life.id, life.engine.backend.clone());
        if !backend.outlives_process() {
            return self.in_time(backend.start(id, spec), canceled).await;
        }
        let spec = spec.clone();
        // Spawned when it is first polled, so never for a call that is canceled by then.
        let start = async {
            let kind = backend.kind();
            let task = life.start.insert(self.tasks.spawn(async move { backend.start(id, &spec).await }));
            task.await.unwrap_or_else(|error| Err(StartError::EngineUnavailable { backend: kind, detail: error.to_string() }))
        };
        self.in_time(start, canceled).await
    }

    async fn in_time(
        &self,
        start: impl Future<Output = Started>,
        canceled: &CancellationToken,
    ) -> Result<Box<dyn Sandbox>, NotStarted> {
        tokio::select! {
            biased;
            () = canceled.cancelled() => Err(NotStarted::Canceled),
            started = tokio::time::timeout(self.start_timeout, start) => match started {
                Ok(started) => started.map_err(NotStarted::Failed),
                Err(_) => Err(NotStarted::Failed(StartError::Timeout(self.start_timeout))),
            }
        }
    }

    /// Waits only for what is gone at once; everything else finishes on a tracked task, with retries. `held` is dropped when the
    /// sandbox is gone.
    pub(crate) async fn tear_down(self: &Arc<Self>, life: Life, held: Box<dyn Send>) {
        self.tear_down_after(Duration::ZERO, life, held).await;
    }

    /// The same, of a sandbox in which nothing runs any more, and whose removal can wait that long.
    pub(crate) async fn tear_down_after(self: &Arc<Self>, pause: Duration, life: Life, held: Box<dyn Send>) {
        let Life { id, engine, start } = life;
        if !engine.backend.outlives_process() {
            // In-process: it can be late, but leaves nothing.
            match engine.backend.destroy(id).await {
                Ok(()) => engine.counts.gone(),
                Err(_) => engine.counts.give_up(id),
            }
            self.live.lock().remove(&id);
            return;
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            let _until_gone = held;
            finish(id, start).await;
            tokio::time::sleep(pause).await;
            this.destroy(&engine, id).await;
            this.live.lock().remove(&id);
        });
    }

    async fn destroy(&self, engine: &Engine, id: SandboxId) {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(100);
        while begun.elapsed() < self.teardown {
            match in_time(&*engine.backend, id).await {
                Ok(()) => {
                    engine.counts.gone();
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
        engine.counts.give_up(id);
    }

    /// Waits until every start and teardown under way has ended, or `patience` is over.
    pub(crate) async fn drain(&self, patience: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
        self.tasks.reopen();
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
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

    pub(crate) const fn start_timeout(&self) -> Duration {
        self.start_timeout
    }

    pub(crate) fn ledger(&self) -> &dyn SandboxLedger {
        &*self.ledger
    }
}

/// One attempt to destroy, which ends whatever the engine does.
pub(crate) async fn in_time(backend: &dyn Backend, id: SandboxId) -> Result<(), BackendError> {
    match tokio::time::timeout(ATTEMPT, backend.destroy(id)).await {
        Ok(result) => result,
        Err(_) => Err(BackendError { backend: backend.kind(), detail: format!("no answer within {} s", ATTEMPT.as_secs()) }),
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
