//! Runs one scenario in a sandbox of its own, and leaves nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Fixtures, Scenario};
use crate::error::{LedgerError, RunError};
use crate::spec::ByteSize;
use crate::wire::{Exit, Invocation, Report, SecretText, WireKey};
use crate::{Backend, Event, Host, SandboxId};

/// The trace that every call of the suite belongs to.
pub(super) const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// Nothing in the suite takes this long on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// The host of one call.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) events: Mutex<Vec<Event>>,
    cancel: CancellationToken,
    /// Cancel as soon as the tool is about to start.
    cancel_when_accepted: bool,
}

#[async_trait]
impl Host for Recorder {
    fn observe(&self, event: Event) {
        if event == Event::Accepted && self.cancel_when_accepted {
            let cancel = self.cancel.clone();
            // A moment later, so that it is a running tool that is ended.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                cancel.cancel();
            });
        }
        self.events.lock().push(event);
    }

    fn canceled(&self) -> &CancellationToken {
        &self.cancel
    }

    async fn delivering(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// A call to make, with limits that do not bite unless a check lowers them.
pub(super) struct Call {
    scenario: Scenario,
    stdin: Bytes,
    timeout: Duration,
    output_limit: ByteSize,
    environment: BTreeMap<String, String>,
    cancel: bool,
}

pub(super) fn call(scenario: Scenario) -> Call {
    Call {
        scenario,
        stdin: Bytes::from_static(b"{}"),
        timeout: Duration::from_secs(30),
        output_limit: ByteSize::mebibytes(1),
        environment: BTreeMap::new(),
        cancel: false,
    }
}

impl Call {
    pub(super) fn stdin(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub(super) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(super) fn output_limit(mut self, limit: ByteSize) -> Self {
        self.output_limit = limit;
        self
    }

    pub(super) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(super) fn canceled(mut self) -> Self {
        self.cancel = true;
        self
    }
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) report: Report,
    pub(super) events: Vec<Event>,
    /// From delivery to report.
    pub(super) took: Duration,
}

impl Ran {
    pub(super) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.report.stdout).into_owned()
    }

    pub(super) fn json(&self) -> Result<serde_json::Value, String> {
        serde_json::from_slice(&self.report.stdout).map_err(|error| format!("{error}: {}", self.describe()))
    }

    pub(super) fn describe(&self) -> String {
        let stderr = String::from_utf8_lossy(&self.report.stderr);
        let stdout: String = self.stdout().chars().take(500).collect();
        let Report { exit, detail, exhausted, .. } = &self.report;
        format!("{exit:?} ({detail:?}) after {:?}, {exhausted:?}, stdout {stdout:?}, stderr {stderr:?}", self.took)
    }

    /// Whether it exited with 0; its description otherwise.
    pub(super) fn succeeded(self) -> Result<Self, String> {
        if self.report.exit == Exit::Code(0) { Ok(self) } else { Err(self.describe()) }
    }
}

/// The backend under test.
pub(super) struct Bench<'a> {
    pub(super) backend: &'a dyn Backend,
    fixtures: &'a dyn Fixtures,
    started: Mutex<BTreeSet<SandboxId>>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(backend: &'a dyn Backend, fixtures: &'a dyn Fixtures) -> Self {
        Self { backend, fixtures, started: Mutex::default() }
    }

    pub(super) fn tells_processes(&self) -> bool {
        self.fixtures.tells_processes()
    }

    /// Starts a sandbox, makes the call in it, destroys it.
    pub(super) async fn run(&self, call: Call) -> Result<Ran, String> {
        let id = SandboxId::generate();
        let ran = tokio::time::timeout(PATIENCE, self.start_and_invoke(id, call)).await;
        self.destroy(id).await?;
        ran.map_err(|_| format!("nothing within {PATIENCE:?}"))?.map_err(|error| error.to_string())
    }

    /// Starts a sandbox and leaves it standing.
    pub(super) async fn start(&self, id: SandboxId, scenario: Scenario) -> Result<Box<dyn crate::Sandbox>, String> {
        self.started.lock().insert(id);
        let spec = self.fixtures.fixture(scenario).spec;
        self.backend.start(id, &spec).await.map_err(|error| error.to_string())
    }

    pub(super) async fn destroy(&self, id: SandboxId) -> Result<(), String> {
        self.backend.destroy(id).await.map_err(|error| format!("destroy failed: {error}"))
    }

    pub(super) async fn lists(&self, id: SandboxId) -> Result<bool, String> {
        let listed = self.backend.list().await.map_err(|error| format!("list failed: {error}"))?;
        Ok(listed.iter().any(|found| found.id == id))
    }

    /// None of the sandboxes that the suite started is listed any more.
    pub(super) async fn nothing_left(&self) -> Result<(), String> {
        let listed = self.backend.list().await.map_err(|error| format!("list failed: {error}"))?;
        let started = self.started.lock();
        let left: Vec<_> = listed.iter().filter(|found| started.contains(&found.id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    }

    async fn start_and_invoke(&self, id: SandboxId, call: Call) -> Result<Ran, RunError> {
        let sandbox = self.start(id, call.scenario).await.map_err(RunError::NotDelivered)?;
        let invocation = Invocation {
            call_id: call.scenario.name().to_owned(),
            key: WireKey::generate().map_err(|error| RunError::NotDelivered(error.to_string()))?,
            command: self.fixtures.fixture(call.scenario).command,
            stdin: call.stdin,
            environment: call.environment.into_iter().map(|(name, value)| (name, SecretText::new(value))).collect(),
            files: Vec::new(),
            sockets: crate::wire::Sockets::Unix,
            timeout: call.timeout,
            output_limit: call.output_limit,
            faces: None,
            traceparent: TRACEPARENT.to_owned(),
        };
        let host = Recorder { cancel_when_accepted: call.cancel, ..Recorder::default() };
        let begun = Instant::now();
        let report = sandbox.invoke(invocation, &host).await?;
        Ok(Ran { report, took: begun.elapsed(), events: host.events.into_inner() })
    }
}
