//! The way from a permit to a report, and the only one: the dispatcher is private to this room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mayfly_executor::egress::{Terms, Wall};
use mayfly_executor::error::{LedgerError, RunError, StartError};
use mayfly_executor::spec::{Reach, SandboxSpec};
use mayfly_executor::wire::{Exit, Invocation, MAX_TEXT, Report, Sockets, Span, Usage, WireKey};
use mayfly_executor::{BackendKind, Dispatcher, Event, Failure, Host, Order, SandboxId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::call::{CallEvent, CallId};
use crate::catalog::{Arguments, Tool};
use crate::credentials::Held;
use crate::error::CallError;
use crate::limits::Admission;
use crate::live::LiveCall;
use crate::policy::Permit;
use crate::redact::{Cut, Redactor};
use crate::store::Store;
use crate::telemetry::{SandboxWatch, SpanGuard, Telemetry, names};

/// What is bound to one run of a call, and let go of at its end.
pub struct Bound {
    /// What the call is given. Revoked when there is no more to be had from the sandbox.
    pub credentials: Held,
    /// What it may connect to.
    pub wall: Arc<Wall>,
    /// Its room. Given back when the call has ended; of a call that was canceled, when its sandbox is gone too: nobody gets room
    /// for more by canceling.
    pub admission: Admission,
    /// Whether the ledger has the call as delivered already.
    pub marked: bool,
}

/// Spends permits.
pub struct Runner {
    dispatcher: Arc<Dispatcher>,
    store: Arc<Store>,
    telemetry: Arc<Telemetry>,
    /// What every call's connections are bound by.
    terms: Terms,
}

impl Runner {
    /// A runner over `dispatcher`. Whoever makes one keeps `dispatcher` for reaping and preparing only.
    pub const fn new(dispatcher: Arc<Dispatcher>, store: Arc<Store>, telemetry: Arc<Telemetry>, terms: Terms) -> Self {
        Self { dispatcher, store, telemetry, terms }
    }

    /// Whether delivery follows the commit at once, so that one durable row can say both. Where a sandbox has to be started first,
    /// delivery gets a durable mark of its own, and an interruption before it is known to have run nothing.
    pub fn delivers_at_once(&self, permit: &Permit) -> bool {
        let tool = permit.tool();
        let is_ready = || tool.spec.as_ref().is_ok_and(|spec| self.dispatcher.is_ready(spec));
        tool.definition.executor.backend == BackendKind::Wasm || is_ready()
    }

    /// Whether the permitted call can be made at all: its tool's artefact is there, its command line can be written.
    ///
    /// # Errors
    /// [`CallError::ToolUnavailable`], [`CallError::InvalidArguments`].
    pub fn check(permit: &Permit, call: &LiveCall) -> Result<(), CallError> {
        let (tool, arguments) = (permit.tool(), permit.arguments());
        let name = &tool.definition.name;
        if let Err(why) = &tool.spec {
            tracing::warn!(call_id = %call.id, tool = %name, %why, "a call found its tool unavailable");
            return Err(CallError::ToolUnavailable(name.clone()));
        }
        command(tool, arguments).map(|_| ())
    }

    /// What the permitted call may connect to, and what is added to its requests on the way.
    pub fn wall(&self, permit: &Permit, credentials: &Held) -> Arc<Wall> {
        Wall::new(reachable(permit), credentials.injections().cloned().collect(), self.terms.clone())
    }

    /// Spends the permit: one sandbox, one invocation, one report.
    ///
    /// # Errors
    /// What the caller may know; the rest is logged here under the call's id.
    pub async fn run(
        &self,
        permit: Permit,
        call: &LiveCall,
        redactor: &Redactor,
        Bound { credentials, wall, admission, marked }: Bound,
    ) -> Result<Report, CallError> {
        let tool = permit.tool().clone();
        let name = &tool.definition.name;
        let spec = tool.spec.clone().map_err(|_| CallError::ToolUnavailable(name.clone()))?;
        let backend = spec.backend();
        let admission = Mutex::new(Some(admission));
        let expose_logs = tool.definition.expose_logs;
        let host = CallHost { admission, marked, ..CallHost::new(self, call, redactor, expose_logs, backend, wall.clone()) };
        let mut order = order(permit, spec, call.id, host.traceparent())?;
        credentials.hand_over(&mut order.invocation);
        let timeout = order.invocation.timeout;
        let mut result = self.dispatcher.run(order, &host).await;
        if let Ok(report) = &mut result {
            host.adopt(std::mem::take(&mut report.spans));
        }
        host.adopt(numbered(wall.take_spans()));
        result.or_else(|failure| match failure {
            // The kernel took the executor as well: still the tool's own doing, and an outcome like any other.
            Failure::Run(RunError::OutOfMemory) => Ok(out_of_memory()),
            failure => {
                tracing::warn!(call_id = %call.id, tool = %name, error = %failure, "a call got no report");
                Err(shown(&failure, name, timeout))
            }
        })
    }

    /// Waits for teardowns under way.
    pub async fn drain(&self, patience: Duration) {
        self.dispatcher.drain(patience).await;
    }
}

/// What crosses the wall for this permit. The permit ends here.
fn order(permit: Permit, spec: SandboxSpec, id: CallId, traceparent: String) -> Result<Order, CallError> {
    let (tool, arguments, obligations) = permit.spend();
    let executor = &tool.definition.executor;
    let command = command(&tool, &arguments)?;
    let key = WireKey::generate().map_err(|error| {
        tracing::error!(call_id = %id, %error, "the operating system gave no randomness");
        CallError::Internal
    })?;
    let invocation = Invocation {
        call_id: id.to_string(),
        key,
        command,
        stdin: arguments.bytes,
        environment: BTreeMap::new(),
        files: Vec::new(),
        sockets: Sockets::default(),
        timeout: obligations.timeout.map_or(executor.timeout, |narrower| narrower.min(executor.timeout)),
        output_limit: obligations.output_limit.map_or(executor.output_limit, |narrower| narrower.min(executor.output_limit)),
        faces: None,
        traceparent,
    };
    Ok(Order { spec, invocation })
}

/// With the ids that spans of one report have.
fn numbered(spans: Vec<Span>) -> Vec<Span> {
    (1..).zip(spans).map(|(id, span)| Span { id, ..span }).collect()
}

/// Where the permitted call may connect to. What an obligation names is listed, or there would be no permit.
fn reachable(permit: &Permit) -> BTreeSet<Reach> {
    let listed = permit.tool().definition.executor.reaches();
    match &permit.obligations().egress {
        Some(narrower) => {
            let is_listed = |reach: &&Reach| listed.iter().any(|one| reach.is_within(one));
            narrower.iter().filter(is_listed).cloned().collect()
        }
        None => listed,
    }
}

fn command(tool: &Tool, arguments: &Arguments) -> Result<Vec<String>, CallError> {
    tool.command_line(arguments)
        .map_err(|violation| CallError::InvalidArguments { tool: tool.definition.name.clone(), violations: vec![violation] })
}

fn shown(failure: &Failure, tool: &str, timeout: Duration) -> CallError {
    match failure {
        Failure::CanceledBeforeDelivery => CallError::Canceled { may_have_run: false },
        Failure::Start(StartError::Saturated { .. } | StartError::NoRoom { .. }) => CallError::Saturated,
        Failure::Start(StartError::NotRecorded(_)) => CallError::LedgerUnavailable,
        Failure::Start(_) => CallError::ToolUnavailable(tool.to_owned()),
        Failure::Run(RunError::Overdue) => CallError::TimedOut(timeout),
        Failure::Run(error) => CallError::Interrupted { may_have_run: error.may_have_run() },
    }
}

fn out_of_memory() -> Report {
    Report {
        exit: Exit::OutOfMemory,
        detail: None,
        stdout: bytes::Bytes::new(),
        stderr: bytes::Bytes::new(),
        stderr_truncated: false,
        exhausted: BTreeSet::from([mayfly_executor::wire::Resource::Memory]),
        usage: Usage::default(),
        spans: Vec::new(),
    }
}

/// The gateway's ear at the sandbox of one call.
struct CallHost<'a> {
    runner: &'a Runner,
    call: &'a LiveCall,
    redactor: &'a Redactor,
    expose_logs: bool,
    backend: BackendKind,
    /// `tool.run`, made first so that the sandbox can be told its id, and restarted when the tool starts.
    run: SpanGuard,
    start: Mutex<Option<SpanGuard>>,
    watch: SandboxWatch,
    wall: Arc<Wall>,
    admission: Mutex<Option<Admission>>,
    marked: bool,
}

impl<'a> CallHost<'a> {
    fn new(
        runner: &'a Runner,
        call: &'a LiveCall,
        redactor: &'a Redactor,
        expose_logs: bool,
        backend: BackendKind,
        wall: Arc<Wall>,
    ) -> Self {
        let run = call.trace.span(names::span::TOOL_RUN);
        let watch = SandboxWatch::new(runner.telemetry.metrics().clone(), backend);
        let (start, admission) = (Mutex::new(None), Mutex::new(None));
        Self { runner, call, redactor, expose_logs, backend, run, start, watch, wall, admission, marked: false }
    }

    fn traceparent(&self) -> String {
        self.run.traceparent()
    }

    /// Takes spans of the sandbox and of its wall. A tool chose the names that it asked for.
    fn adopt(&self, mut spans: Vec<Span>) {
        for value in spans.iter_mut().flat_map(|span| span.attributes.values_mut()) {
            *value = self.redactor.text(std::mem::take(value));
        }
        self.call.trace.adopt(&self.run, spans);
    }

    /// What of a line may leave. One of the longest may have been longer.
    fn clean(&self, line: String) -> String {
        let cut = if line.len() + char::MAX_LEN_UTF8 > MAX_TEXT { Cut::End } else { Cut::Nowhere };
        self.redactor.cut_text(line, cut)
    }

    fn claiming(&self) {
        let span = self.call.trace.span(names::span::SANDBOX_CLAIM);
        span.set(names::BACKEND, self.backend.as_str());
        *self.start.lock() = Some(span);
    }

    fn claimed(&self, id: SandboxId) {
        if let Some(span) = &*self.start.lock() {
            span.set(names::SANDBOX_ID, id.to_string());
            span.set(names::TEMPERATURE, "warm");
        }
    }

    fn starting(&self, id: SandboxId) {
        let span = self.call.trace.span(names::span::SANDBOX_START);
        span.set(names::SANDBOX_ID, id.to_string());
        span.set(names::BACKEND, self.backend.as_str());
        span.set(names::TEMPERATURE, "cold");
        *self.start.lock() = Some(span);
    }

    fn started(&self) {
        self.start.lock().take();
        self.run.restart();
    }
}

#[async_trait]
impl Host for CallHost<'_> {
    fn observe(&self, event: Event) {
        self.watch.observe(&event);
        match event {
            Event::Claiming => self.claiming(),
            Event::Claimed(id) => self.claimed(id),
            Event::Starting(id) => self.starting(id),
            Event::Started => self.started(),
            Event::Accepted => {}
            Event::Progress(p) => {
                let message = p.message.map(|text| self.clean(text));
                self.call.emit(CallEvent::Progress { progress: p.progress, total: p.total, message });
            }
            Event::Log(line) if self.expose_logs => self.call.emit(CallEvent::Log { line: self.clean(line) }),
            Event::Log(line) => tracing::debug!(call_id = %self.call.id, line = %self.clean(line), "tool"),
            Event::Ended => {
                self.start.lock().take();
            }
        }
    }

    fn tearing_down(&self) -> Box<dyn Send> {
        let admission = if self.call.canceled.is_cancelled() { self.admission.lock().take() } else { None };
        Box::new((self.call.trace.span(names::span::TEARDOWN), admission))
    }

    fn wall(&self) -> Option<Arc<Wall>> {
        Some(self.wall.clone())
    }

    fn canceled(&self) -> &CancellationToken {
        &self.call.canceled
    }

    async fn delivering(&self) -> Result<(), LedgerError> {
        if self.marked {
            return Ok(());
        }
        self.runner.store.delivering(self.call.id).await.map_err(|error| LedgerError(error.to_string()))
    }
}
