//! Trying a tool without a gateway: one invocation in a real sandbox, under the tool's own limits.
//!
//! Nobody is authenticated here, policy is not asked, nothing is recorded: it is for whoever writes a tool and could run its
//! image or module anyway. What it shares with a gateway is everything from the dispatcher on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use mayfly_executor::egress::Wall;
use mayfly_executor::error::LedgerError;
use mayfly_executor::wire::{Exit, Invocation, Report, Sockets, WireKey};
use mayfly_executor::{Backend, Dispatcher, Event, Failure, Host, InstanceId, Order, SandboxId, SandboxLedger, SandboxRow};
use parking_lot::Mutex;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::catalog::{Arguments, Tool, Unavailable};
use crate::config::EgressConfig;
use crate::error::Violation;

/// How long a sandbox may take to come up. Nothing is warm here, and a module may have to be compiled first.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long to wait for the sandbox to be gone before leaving it to its own expiry.
const TEARDOWN_PATIENCE: Duration = Duration::from_secs(20);

/// Why a tool could not be tried.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrialError {
    /// Its module or image is not there.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Its calls need credentials.
    #[error("its calls are given credentials, which only a gateway has; try it through one")]
    NeedsCredentials,
    /// An argument cannot stand in its command line.
    #[error("{}: {}", .0.pointer, .0.detail)]
    Argument(Violation),
    /// What its connections need.
    #[error("{0}")]
    Egress(String),
    /// The operating system has no randomness for the call's key.
    #[error("no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
    /// There is no report.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// How a trial went.
#[derive(Debug)]
pub struct Trial {
    /// What the sandbox reported.
    pub report: Report,
    /// From the start of the sandbox to its report.
    pub took: Duration,
    /// What of its output does not fit the tool's `output_schema`; a gateway would withhold it.
    pub output_mismatch: Option<String>,
}

impl Trial {
    /// What the tool wrote: JSON if it wrote JSON, text otherwise.
    pub fn result(&self) -> serde_json::Value {
        serde_json::from_slice(&self.report.stdout)
            .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&self.report.stdout).into_owned()))
    }

    /// Whether the tool exited with 0.
    pub fn succeeded(&self) -> bool {
        self.report.exit == Exit::Code(0)
    }
}

/// Runs `tool` once with `arguments` in a sandbox of `backend`, and returns when that sandbox is gone. `observe` is told what
/// happens, as it happens; `canceled` ends it early.
///
/// # Errors
/// [`TrialError`], when there is no report. A tool that fails is a report.
pub async fn run(
    tool: &Tool,
    arguments: &Arguments,
    backend: Arc<dyn Backend>,
    instance: InstanceId,
    observe: &(dyn Fn(Event) + Send + Sync),
    canceled: CancellationToken,
) -> Result<Trial, TrialError> {
    let spec = tool.spec.clone()?;
    if !tool.definition.credentials.is_empty() {
        return Err(TrialError::NeedsCredentials);
    }
    let invocation = invocation(tool, arguments)?;
    let dispatcher = Dispatcher::new(vec![backend], Arc::new(Forgetful::default()), instance, START_TIMEOUT);
    let terms = EgressConfig::default().terms().map_err(TrialError::Egress)?;
    let wall = Wall::new(tool.definition.executor.reaches(), Vec::new(), terms);
    let host = Onlooker { observe, canceled, wall };
    dispatcher.prepare(&spec).await.map_err(Failure::from)?;
    let begun = Instant::now();
    let outcome = dispatcher.run(Order { spec, invocation }, &host).await;
    let took = begun.elapsed();
    dispatcher.drain(TEARDOWN_PATIENCE).await;
    let report = outcome?;
    let mut trial = Trial { report, took, output_mismatch: None };
    if trial.succeeded() {
        trial.output_mismatch = tool.check_output(&trial.result()).err();
    }
    Ok(trial)
}

fn invocation(tool: &Tool, arguments: &Arguments) -> Result<Invocation, TrialError> {
    let executor = &tool.definition.executor;
    let (trace, span) = (Uuid::new_v4().simple(), Uuid::new_v4().simple().to_string());
    Ok(Invocation {
        call_id: Uuid::now_v7().to_string(),
        key: WireKey::generate()?,
        command: tool.command_line(arguments).map_err(TrialError::Argument)?,
        stdin: Bytes::clone(&arguments.bytes),
        environment: BTreeMap::new(),
        files: Vec::new(),
        sockets: Sockets::default(),
        timeout: executor.timeout,
        output_limit: executor.output_limit,
        faces: None,
        traceparent: format!("00-{trace}-{}-00", &span[..16]),
    })
}

/// Passes events on.
struct Onlooker<'a> {
    observe: &'a (dyn Fn(Event) + Send + Sync),
    canceled: CancellationToken,
    wall: Arc<Wall>,
}

#[async_trait]
impl Host for Onlooker<'_> {
    fn observe(&self, event: Event) {
        (self.observe)(event);
    }

    fn wall(&self) -> Option<Arc<Wall>> {
        Some(self.wall.clone())
    }

    fn canceled(&self) -> &CancellationToken {
        &self.canceled
    }

    async fn delivering(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// A ledger for one process: what it leaves behind in an accident ends by its own expiry, or by any gateway's reaper.
#[derive(Default)]
struct Forgetful {
    rows: Mutex<HashMap<SandboxId, SandboxRow>>,
}

#[async_trait]
impl SandboxLedger for Forgetful {
    async fn opening(&self, row: &SandboxRow) -> Result<(), LedgerError> {
        self.rows.lock().insert(row.id, row.clone());
        Ok(())
    }

    async fn closed(&self, id: SandboxId) -> Result<(), LedgerError> {
        self.rows.lock().remove(&id);
        Ok(())
    }

    async fn open_rows(&self) -> Result<Vec<SandboxRow>, LedgerError> {
        Ok(self.rows.lock().values().cloned().collect())
    }
}
