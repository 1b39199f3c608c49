//! The life of a call, from top to bottom.
//!
//! [`Gateway::submit`] gives every call a task of its own; [`Gateway::life`] is that task's pipeline, one step after the other,
//! and [`Gateway::conclude`] is the one exit: whatever happened, denials included, one outcome is recorded with its true reason.
//!
//! # Guarantees
//! - Nothing is delivered to a sandbox before the call's intent is durable, and nothing runs without a [`Permit`].
//! - A call has exactly one outcome, durable before anyone hears of it.
//! - A caller that goes away cancels its call, and cannot cut between start and teardown: the task is ours.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;

use crate::call::{CallEvent, CallId, CallRequest, CallView};
use crate::caller::{Authenticator, Caller};
use crate::credentials::{Credentials, Held};
use crate::error::CallError;
use crate::generation::Generation;
use crate::inspect::{Inspected, inspect};
use crate::limits::Limits;
use crate::live::{LiveCall, LiveCalls};
use crate::policy::{Decision, Permit, Question, Verdict};
use crate::record::Record;
use crate::redact::Redactor;
use crate::runner::{Bound, Runner};
use crate::store::{Outcome, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::names::span;

pub use crate::live::{CallFailure, Ticket};
pub use crate::view::{SpanView, ToolView};

/// Pauses between tries to write an outcome while its caller waits.
const RETRIES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// Everything a call needs on its way; shared as `Arc` by all doors.
pub struct Gateway {
    /// Keys and the agents they belong to.
    pub callers: Authenticator,
    /// Catalog and policy, swapped as one.
    pub generation: ArcSwap<Generation>,
    /// Floods, concurrency.
    pub limits: Limits,
    /// The ledger.
    pub store: Arc<Store>,
    /// Where calls get their credentials.
    pub credentials: Arc<Credentials>,
    /// The way to the sandboxes.
    pub runner: Runner,
    /// Traces, metrics.
    pub telemetry: Arc<Telemetry>,
    /// Calls under way.
    pub live: LiveCalls,
    /// Their tasks.
    pub tasks: TaskTracker,
}

impl Gateway {
    /// Step 1: the caller behind the value of an `Authorization` header. No I/O; constant time in the secret.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`], [`CallError::AgentSuspended`], [`CallError::RateLimited`]; each is counted.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Arc<Caller>, CallError> {
        let arrived = Instant::now();
        let found = self.callers.authenticate(authorization).map_err(|error| self.limits.failed_authentication(error));
        let admitted = found.and_then(|caller| self.limits.request(&caller).map(|()| caller));
        admitted.inspect_err(|error| self.telemetry.metrics().call(None, None, None, error.face().status, arrived.elapsed()))
    }

    /// Steps 2 to 12 on a task of their own; answers when the call runs.
    ///
    /// # Errors
    /// The refusal, when it never gets there. It has a record and an id all the same.
    pub async fn submit(self: &Arc<Self>, caller: Arc<Caller>, request: CallRequest) -> Result<Ticket, CallFailure> {
        let arrived = Instant::now();
        let began = request.authenticated.map_or(arrived, |(from, _)| from);
        let trace = self.telemetry.begin_at(span::EXECUTE_TOOL, request.traceparent.as_deref(), began);
        if let Some((from, until)) = request.authenticated {
            trace.record(span::AUTHENTICATE, from, until);
        }
        let call = self.live.open(caller, &request, trace);
        self.tasks.spawn(self.clone().drive(call.clone(), request, arrived));
        Ticket::take(call).await
    }

    /// Records a request that asked for a call and could not be read. It has an id, a trace and an outcome like any refused call.
    pub async fn refuse(self: &Arc<Self>, caller: Arc<Caller>, error: CallError) -> CallFailure {
        let request = CallRequest::unreadable();
        let trace = self.telemetry.begin(span::EXECUTE_TOOL, None);
        let call = self.live.open(caller, &request, trace);
        let record = Record::new(&call, &request, Instant::now());
        self.conclude(&call, record, Err(error.clone())).await;
        match call.wait().await {
            Err(failure) => failure,
            Ok(view) => CallFailure { error, id: view.id, trace_id: view.trace_id, decision_id: None },
        }
    }

    async fn drive(self: Arc<Self>, call: Arc<LiveCall>, request: CallRequest, arrived: Instant) {
        let mut record = Record::new(&call, &request, arrived);
        // Whatever panics below (an engine, a validator) ends its own call, with an outcome like any other.
        let lived = AssertUnwindSafe(self.life(&call, request, &mut record)).catch_unwind().await;
        let end = lived.unwrap_or_else(|_| {
            tracing::error!(call_id = %call.id, "the pipeline panicked; the panic itself is on standard error");
            Err(if record.is_committed() { CallError::Interrupted { may_have_run: true } } else { CallError::Internal })
        });
        self.conclude(&call, record, end).await;
    }

    /// The pipeline. Each step either goes on or ends the call with its reason.
    async fn life(&self, call: &Arc<LiveCall>, request: CallRequest, record: &mut Record) -> Result<Inspected, CallError> {
        if self.tasks.is_closed() {
            return Err(CallError::Draining);
        }
        // One generation for the whole call: a reload cannot fall between two steps.
        let generation = self.generation.load_full();
        record.generation(call, &generation);

        // 2. resolve
        let tool = generation.resolve(&call.caller, &request).map_err(|hidden| record.hidden(hidden))?;
        record.tool(call, &tool);

        // 3. validate: from here on there is one value
        let span = call.trace.span(span::VALIDATE);
        let arguments = tool
            .validate(request.arguments)
            .map_err(|violations| CallError::InvalidArguments { tool: tool.definition.name.clone(), violations })?;
        drop(span);
        record.arguments(call, &tool, &arguments);
        let redactor = Redactor::of(&arguments);

        // 4. authorize
        let (caller, task_id, now) = (call.caller.clone(), request.task_id, OffsetDateTime::now_utc());
        let question = Question { caller, tool: tool.clone(), arguments, task_id, now };
        let span = call.trace.span(span::AUTHORIZE);
        let (mut decision, verdict) = generation.policy.authorize(question).map_err(|error| {
            span.fail("policy could not decide");
            let error = redactor.text(error.to_string());
            tracing::error!(call_id = %call.id, %error, "policy could not decide");
            CallError::PolicyUnavailable
        })?;
        drop(span);
        // A rule may quote what it was asked about.
        decision.reasons = decision.reasons.into_iter().map(|reason| redactor.text(reason)).collect();
        record.decision(call, &decision);

        // 6. approve, 7. permit: only an allowing decision that demands nothing we cannot do gives one
        let permit = granted(decision, verdict)?;

        // 8. admit: what can run at all, and has room; held until the outcome
        Runner::check(&permit, call)?;
        record.credentials(call, &permit);
        let admission = self.limits.admit(&tool.definition.name, tool.definition.limits.concurrency)?;

        // 9. commit: durable before anything is delivered
        if call.canceled.is_cancelled() {
            return Err(CallError::Canceled { may_have_run: false });
        }
        let marked = self.commit(call, record, &permit).await?;

        // 10. mint: before a sandbox is claimed, so that a source that fails wastes none
        let credentials = self.mint(call, &permit).await?;
        let redactor = redactor.with(&credentials);
        let wall = self.runner.wall(&permit, &credentials);

        // 11. run, 12. settle
        let (tool, obligations) = (permit.tool().clone(), permit.obligations().clone());
        let bound = Bound { credentials, wall: wall.clone(), admission, marked };
        let ran = self.runner.run(permit, call, &redactor, bound).await;
        let _settle = call.trace.span(span::SETTLE);
        let inspected = ran.and_then(|report| inspect(&tool, &obligations, &redactor, report));
        record.contacted(call, &redactor, &wall);
        record.leaked(call, redactor.found());
        inspected
    }

    /// Writes the intent; answers whether it says that the call was delivered.
    async fn commit(&self, call: &LiveCall, record: &mut Record, permit: &Permit) -> Result<bool, CallError> {
        let span = call.trace.span(span::COMMIT);
        let marked = self.credentials.at_hand(permit) && self.runner.delivers_at_once(permit);
        self.store.commit(record.intent(marked)).await.map_err(|error| {
            span.fail("not recorded");
            tracing::error!(call_id = %call.id, %error, "an intent could not be made durable");
            CallError::LedgerUnavailable
        })?;
        record.committed();
        call.started();
        Ok(marked)
    }

    async fn mint(&self, call: &LiveCall, permit: &Permit) -> Result<Held, CallError> {
        if !Credentials::wanted(permit) {
            return Ok(Held::default());
        }
        let span = call.trace.span(span::MINT);
        self.credentials.mint(permit, call).await.inspect_err(|error| span.fail(error.face().title))
    }

    /// The one exit: records the outcome, then tells it. Nobody hears of an outcome that is not durable.
    async fn conclude(self: &Arc<Self>, call: &Arc<LiveCall>, record: Record, end: Result<Inspected, CallError>) {
        let span = call.trace.span(span::RECORD);
        let (end, outcome) = self.persist(call, &record, end).await;
        drop(span);
        let view = record.view(call, &outcome, &end);
        record.publish(call, &self.telemetry, &end);
        self.live.close(call.id);
        call.ended(view, end.err());
    }

    /// Writes the outcome, and goes on trying for a while when the store does not take it: a full disk may get room again. What
    /// is told in the end is what is written, then or as soon as it can be; a row that never gets it says `interrupted` after a
    /// restart.
    async fn persist(
        self: &Arc<Self>,
        call: &LiveCall,
        record: &Record,
        mut end: Result<Inspected, CallError>,
    ) -> (Result<Inspected, CallError>, Outcome) {
        let mut outcome = record.outcome(call, &end);
        for pause in RETRIES {
            match self.write(record, outcome.clone()).await {
                Ok(()) => return (end, outcome),
                Err(error) => tracing::error!(call_id = %call.id, %error, "an outcome could not be made durable; trying again"),
            }
            tokio::time::sleep(pause).await;
        }
        // Not what happened, but all that can be vouched for.
        end =
            Err(if record.is_committed() { CallError::Interrupted { may_have_run: true } } else { CallError::LedgerUnavailable });
        outcome = record.outcome(call, &end);
        if record.is_committed() {
            self.tasks.spawn(self.clone().keep_trying(outcome.clone()));
        }
        (end, outcome)
    }

    async fn write(&self, record: &Record, outcome: Outcome) -> Result<(), StoreError> {
        let written = if record.is_committed() {
            self.store.settle(outcome).await
        } else {
            match self.store.refuse(record.intent(false), outcome.clone()).await {
                // The intent was written after all, although its commit was not acknowledged.
                Err(StoreError::DuplicateCall(_)) => self.store.settle(outcome).await,
                written => written,
            }
        };
        match written {
            // An earlier try was written, although it was not acknowledged.
            Err(StoreError::NotOpen(_)) => Ok(()),
            written => written,
        }
    }

    async fn keep_trying(self: Arc<Self>, outcome: Outcome) {
        while !self.tasks.is_closed() {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if matches!(self.store.settle(outcome.clone()).await, Ok(()) | Err(StoreError::NotOpen(_))) {
                return;
            }
        }
    }

    /// The tools this caller may see, by name.
    pub fn tools(&self, caller: &Caller) -> Vec<ToolView> {
        self.generation.load().visible(caller)
    }

    /// One tool in this caller's view.
    ///
    /// # Errors
    /// [`CallError::UnknownTool`].
    pub fn tool(&self, caller: &Caller, name: &str) -> Result<ToolView, CallError> {
        let found = self.tools(caller).into_iter().find(|tool| tool.name == name);
        found.ok_or_else(|| CallError::UnknownTool(name.to_owned()))
    }

    /// One call of this caller.
    ///
    /// # Errors
    /// [`CallError::UnknownCall`] also for somebody else's; [`CallError::Internal`] when the store does not answer.
    pub async fn call(&self, caller: &Caller, id: CallId) -> Result<CallView, CallError> {
        if let Some(live) = self.live.get(caller, id) {
            return Ok(live.view());
        }
        let row = self.store.call(id).await.map_err(internal)?;
        let own = row.filter(|row| row.is_owned_by(caller));
        own.map(|row| row.view()).ok_or(CallError::UnknownCall)
    }

    /// This caller's calls, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`CallError::Internal`] when the store does not answer.
    pub async fn calls(&self, caller: &Caller, task_id: Option<&str>, limit: u32) -> Result<Vec<CallView>, CallError> {
        let rows = self.store.calls(caller.agent_id(), caller.user(), task_id, limit).await.map_err(internal)?;
        Ok(rows.into_iter().map(|row| row.view()).collect())
    }

    /// Cancels a call of this caller and answers when it has ended. Ended calls stay as they are.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn cancel(&self, caller: &Caller, id: CallId) -> Result<CallView, CallError> {
        if let Some(live) = self.live.get(caller, id) {
            live.canceled.cancel();
            let _ = live.wait().await;
            return Ok(live.view());
        }
        self.call(caller, id).await
    }

    /// The events of a call of this caller with numbers above `after`; ends after the final state.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn follow(
        &self,
        caller: &Caller,
        id: CallId,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, (u64, CallEvent)>, CallError> {
        if let Some(live) = self.live.get(caller, id) {
            return Ok(live.follow(after));
        }
        let view = self.call(caller, id).await?;
        let last = (after.map_or(0, |n| n.saturating_add(1)), CallEvent::State { state: view.state });
        Ok(stream::iter([last]).boxed())
    }

    /// The spans of a recent call of this caller.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`CallError::UnknownCall`] also when the trace is not kept any more.
    pub async fn trace(&self, caller: &Caller, id: CallId) -> Result<Vec<SpanView>, CallError> {
        self.call(caller, id).await?;
        self.telemetry.recent(id).ok_or(CallError::UnknownCall)
    }

    /// Lets running calls finish for `grace`, then ends them; returns when all have an outcome and every sandbox is gone
    /// or left to the next start's reaper.
    pub async fn drain(&self, grace: Duration) {
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(calls = self.live.len(), "grace is over; ending the calls that still run");
            self.live.cancel_all();
            let _ = tokio::time::timeout(Duration::from_secs(15), self.tasks.wait()).await;
        }
        self.runner.drain(Duration::from_secs(10)).await;
        self.credentials.revoker().drain(Duration::from_secs(10)).await;
    }
}

fn granted(decision: Decision, verdict: Verdict) -> Result<Permit, CallError> {
    match verdict {
        Verdict::Permitted(permit) => Ok(permit),
        Verdict::Denied => Err(CallError::Denied { reasons: decision.reasons }),
        Verdict::ApprovalDemanded => Err(CallError::ApprovalUnavailable),
        Verdict::Unenforceable(key) => Err(CallError::ObligationUnenforceable(key)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn internal(error: StoreError) -> CallError {
    tracing::error!(%error, "the store could not be read");
    CallError::Internal
}

#[cfg(test)]
mod tests;
