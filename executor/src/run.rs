//! The dispatcher: the one place where a sandbox is started for a call, and where its end begins.
//!
//! # Flow
//! row in the ledger -> start -> deliver -> report -> (answer) -> destroy -> row closed
//!
//! # Guarantees
//! - A sandbox that can outlive this process has a durable row before the engine hears of it.
//! - Every sandbox that was started, or may have been, is destroyed: here, or by the [reaper](crate::reaper) from the row.
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
use tokio_util::task::TaskTracker;

use crate::backend::REPORT_GRACE;
use crate::error::{RunError, StartError};
use crate::spec::SandboxSpec;
use crate::wire::{Invocation, Report};
use crate::{Backend, BackendKind, Event, Host, InstanceId, SandboxId, SandboxLedger, SandboxRow};

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

/// How many sandboxes a backend has started and destroyed since this process began, and how long starts took.
#[derive(Debug, Default)]
pub struct Counts {
    /// Asked of the engine.
    pub started: AtomicU64,
    /// Confirmed gone.
    pub destroyed: AtomicU64,
    /// Of those destroyed: found by the reaper, unknown to us.
    pub orphans: AtomicU64,
}

/// Owns all backends.
pub struct Dispatcher {
    backends: BTreeMap<BackendKind, (Arc<dyn Backend>, Arc<Counts>)>,
    ledger: Arc<dyn SandboxLedger>,
    instance: InstanceId,
    live: Mutex<HashSet<SandboxId>>,
    teardowns: TaskTracker,
    start_timeout: Duration,
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
        Arc::new(Self { backends, ledger, instance, live: Mutex::default(), teardowns: TaskTracker::new(), start_timeout })
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
        if backend.outlives_process() {
            let row = SandboxRow {
                id,
                backend: backend.kind(),
                call_id: Some(invocation.call_id.clone()),
                expires_at: SystemTime::now() + spec.life,
            };
            self.ledger.opening(&row).await.map_err(StartError::NotRecorded)?;
        }
        counts.started.fetch_add(1, Ordering::Relaxed);
        self.live.lock().insert(id);
        let result = self.start_and_invoke(&**backend, id, &spec, invocation, host).await;
        host.observe(Event::Ended);
        self.tear_down(backend.clone(), counts.clone(), id, host.tearing_down()).await;
        result
    }

    async fn start_and_invoke(
        &self,
        backend: &dyn Backend,
        id: SandboxId,
        spec: &SandboxSpec,
        invocation: Invocation,
        host: &dyn Host,
    ) -> Result<Report, Failure> {
        let sandbox = tokio::select! {
            biased;
            () = host.canceled().cancelled() => return Err(Failure::CanceledBeforeDelivery),
            started = tokio::time::timeout(self.start_timeout, backend.start(id, spec)) => {
                started.map_err(|_| StartError::Timeout(self.start_timeout))??
            }
        };
        host.observe(Event::Started);
        host.delivering().await.map_err(StartError::NotRecorded)?;
        // A sandbox bounds itself; this second clock is for one that cannot any more.
        let overdue = invocation.timeout + REPORT_GRACE;
        match tokio::time::timeout(overdue, sandbox.invoke(invocation, host)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(RunError::Overdue.into()),
        }
    }

    /// Waits only for what is gone at once; everything else finishes on a tracked task, with retries.
    async fn tear_down(self: &Arc<Self>, backend: Arc<dyn Backend>, counts: Arc<Counts>, id: SandboxId, held: Box<dyn Send>) {
        if !backend.outlives_process() {
            // In-process: cannot fail in a way that leaves anything.
            if backend.destroy(id).await.is_ok() {
                counts.destroyed.fetch_add(1, Ordering::Relaxed);
            }
            self.live.lock().remove(&id);
            return;
        }
        let this = self.clone();
        self.teardowns.spawn(async move {
            let _until_gone = held;
            let begun = Instant::now();
            let mut pause = Duration::from_millis(100);
            // After this long the reaper has it: the row stays open, the id leaves the live set.
            while begun.elapsed() < Duration::from_secs(20) {
                match backend.destroy(id).await {
                    Ok(()) => {
                        counts.destroyed.fetch_add(1, Ordering::Relaxed);
                        if let Err(error) = this.ledger.closed(id).await {
                            tracing::warn!(%id, %error, "a destroyed sandbox could not be closed in the ledger; the reaper will");
                        }
                        break;
                    }
                    Err(error) => tracing::warn!(%id, %error, "a sandbox could not be destroyed; trying again"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            this.live.lock().remove(&id);
        });
    }

    /// Waits until every teardown under way has ended, or `patience` is over.
    pub async fn drain(&self, patience: Duration) {
        self.teardowns.close();
        let _ = tokio::time::timeout(patience, self.teardowns.wait()).await;
        self.teardowns.reopen();
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
