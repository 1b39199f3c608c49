//! The dispatcher: the one place where a call gets its sandbox, and where that sandbox's end begins.
//!
//! # Flow
//! claim a warm sandbox, or start one -> deliver -> report -> (answer) -> destroy
//!
//! # Guarantees
//! - What the [lifecycle](crate::lifecycle) guarantees of every sandbox.
//! - A call is tried again, in another sandbox and under another key, if and only if nothing of it was delivered.
//! - One try answers within the start timeout, the invocation's timeout and the grace, whatever the engine does.
//!
//! # Assumptions
//! `run` is driven to its end by a task that nobody aborts; cancellation comes through [`Host::canceled`].

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::backend::REPORT_GRACE;
use crate::error::{RunError, StartError};
use crate::lifecycle::{Engine, Lifecycle, NotStarted};
use crate::pool::{MAKE_WAY, PoolStatus, Pools, Ready, Warm};
use crate::spec::SandboxSpec;
use crate::wire::{Invocation, Report, WireKey};
use crate::{Backend, BackendKind, Counts, Event, Host, InstanceId, Sandbox, SandboxId, SandboxLedger};

/// How often a call is tried whose invocation is not delivered.
const TRIES: u32 = 3;

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

impl From<NotStarted> for Failure {
    fn from(why: NotStarted) -> Self {
        match why {
            NotStarted::Canceled => Self::CanceledBeforeDelivery,
            NotStarted::Failed(error) => Self::Start(error),
        }
    }
}

/// Owns all backends and their warm sandboxes.
pub struct Dispatcher {
    engines: BTreeMap<BackendKind, Engine>,
    lifecycle: Arc<Lifecycle>,
    pools: Pools,
}

impl Dispatcher {
    /// A dispatcher over `backends`, that gives each start at most `start_timeout`.
    pub fn new(
        backends: Vec<Arc<dyn Backend>>,
        ledger: Arc<dyn SandboxLedger>,
        instance: InstanceId,
        start_timeout: Duration,
    ) -> Arc<Self> {
        Self::over(backends, Lifecycle::new(ledger, instance, start_timeout))
    }

    fn over(backends: Vec<Arc<dyn Backend>>, lifecycle: Lifecycle) -> Arc<Self> {
        let engines = backends.into_iter().map(|backend| (backend.kind(), Engine { backend, counts: Arc::default() })).collect();
        let lifecycle = Arc::new(lifecycle);
        Arc::new(Self { engines, pools: Pools::new(lifecycle.clone()), lifecycle })
    }

    /// The backends it owns, with their counters.
    pub fn backends(&self) -> impl Iterator<Item = (&Arc<dyn Backend>, &Counts)> {
        self.engines.values().map(|engine| (&engine.backend, &*engine.counts))
    }

    /// See [`Backend::prepare`].
    ///
    /// # Errors
    /// As the backend says; [`StartError::EngineUnavailable`] when there is no such backend here.
    pub async fn prepare(&self, spec: &SandboxSpec) -> Result<(), StartError> {
        self.engine(spec.backend())?.backend.prepare(spec).await
    }

    /// Keeps exactly these warm from here on. Pools of other specs are emptied at once; what was claimed from them goes on.
    pub fn keep_warm(&self, wanted: Vec<Warm>) {
        let with_engine = |warm: Warm| Some((self.engines.get(&warm.spec.backend())?.clone(), warm));
        self.pools.keep(wanted.into_iter().filter_map(with_engine).map(|(engine, warm)| (warm, engine)).collect());
    }

    /// Whether a warm sandbox of this spec waits, as far as can be said: somebody else may be quicker.
    pub fn is_ready(&self, spec: &SandboxSpec) -> bool {
        self.pools.get(spec).is_some_and(|pool| pool.has_idle())
    }

    /// The pools, by tool.
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.pools.status()
    }

    /// Runs one order in a sandbox of its own and answers when nothing of it runs any more.
    ///
    /// # Errors
    /// [`Failure`], which says whether the tool may have run.
    pub async fn run(&self, order: Order, host: &dyn Host) -> Result<Report, Failure> {
        let Order { spec, mut invocation } = order;
        let engine = self.engine(spec.backend())?;
        for _ in 1..TRIES {
            // A sandbox in our own process always takes what it is given.
            let spare = engine.backend.outlives_process().then(|| invocation.clone());
            match (self.attempt(engine, &spec, invocation, host).await, spare) {
                (Err(Failure::Run(RunError::NotDelivered(why))), Some(spare)) if !host.canceled().is_cancelled() => {
                    tracing::info!(call_id = %spare.call_id, %why, "nothing of a call was delivered; trying another sandbox");
                    // The key was meant for the other one.
                    let key = WireKey::generate().map_err(|error| RunError::NotDelivered(error.to_string()))?;
                    invocation = Invocation { key, ..spare };
                }
                (result, _) => return result,
            }
        }
        self.attempt(engine, &spec, invocation, host).await
    }

    async fn attempt(
        &self,
        engine: &Engine,
        spec: &SandboxSpec,
        invocation: Invocation,
        host: &dyn Host,
    ) -> Result<Report, Failure> {
        let (life, result) = match self.claim(spec, &invocation, host).await {
            Some((life, sandbox)) => (life, self.invoke(sandbox, invocation, host).await.map_err(not_delivered)),
            None => {
                let id = SandboxId::generate();
                host.observe(Event::Starting(id));
                let mut life = self.lifecycle.begin(engine, id, spec, Some(&invocation.call_id)).await?;
                let result = match self.lifecycle.start(&mut life, spec, host.canceled()).await {
                    Ok(sandbox) => self.invoke(sandbox, invocation, host).await,
                    Err(why) => Err(why.into()),
                };
                (life, result)
            }
        };
        host.observe(Event::Ended);
        // With a report nothing of it runs any more: the answer goes first.
        let pause = if result.is_ok() { MAKE_WAY } else { Duration::ZERO };
        self.lifecycle.tear_down_after(pause, life, host.tearing_down()).await;
        result
    }

    /// A warm sandbox, where the spec has a pool and the pool has one.
    async fn claim(&self, spec: &SandboxSpec, invocation: &Invocation, host: &dyn Host) -> Option<Ready> {
        if !self.engines.get(&spec.backend())?.backend.outlives_process() {
            return None;
        }
        let pool = self.pools.get(spec)?;
        host.observe(Event::Claiming);
        let ready = pool.claim(invocation.timeout, host.canceled()).await?;
        host.observe(Event::Claimed(ready.0.id));
        Some(ready)
    }

    async fn invoke(&self, mut sandbox: Box<dyn Sandbox>, invocation: Invocation, host: &dyn Host) -> Result<Report, Failure> {
        host.observe(Event::Started);
        let limit = self.lifecycle.start_timeout();
        tokio::select! {
            biased;
            () = host.canceled().cancelled() => return Err(Failure::CanceledBeforeDelivery),
            minted = tokio::time::timeout(limit, sandbox.mint(&invocation)) => minted.map_err(|_| StartError::Timeout(limit))??,
        }
        host.delivering().await.map_err(StartError::NotRecorded)?;
        if host.canceled().is_cancelled() {
            return Err(Failure::CanceledBeforeDelivery);
        }
        // A sandbox bounds itself; this second clock is for one that cannot any more.
        let overdue = invocation.timeout + REPORT_GRACE;
        match tokio::time::timeout(overdue, sandbox.invoke(invocation, host)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(RunError::Overdue.into()),
        }
    }

    /// Empties the pools, and waits until every start and teardown under way has ended, or `patience` is over.
    pub async fn drain(&self, patience: Duration) {
        self.pools.close();
        self.lifecycle.drain(patience).await;
    }

    pub(crate) fn live(&self) -> HashSet<SandboxId> {
        self.lifecycle.live()
    }

    pub(crate) fn is_live(&self, id: SandboxId) -> bool {
        self.lifecycle.is_live(id)
    }

    pub(crate) fn instance(&self) -> InstanceId {
        self.lifecycle.instance()
    }

    pub(crate) fn ledger(&self) -> &dyn SandboxLedger {
        self.lifecycle.ledger()
    }

    fn engine(&self, kind: BackendKind) -> Result<&Engine, StartError> {
        self.engines.get(&kind).ok_or_else(|| StartError::EngineUnavailable {
            backend: kind,
            detail: "this gateway is configured without it".into(),
        })
    }
}

/// A warm sandbox that died unnoticed fails before its invocation leaves, when a token is asked for: another may do.
fn not_delivered(failure: Failure) -> Failure {
    match failure {
        Failure::Start(error @ StartError::Refused { .. }) => Failure::Run(RunError::NotDelivered(error.to_string())),
        failure => failure,
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
