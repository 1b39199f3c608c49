//! Calls that are under way: who owns them, what they have done so far, and how to end them.
//!
//! A [`LiveCall`] is shared by the task that drives it, by whoever waits for it and by whoever follows it. It holds no
//! result longer than the call lives: ended calls are read from the store.

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::call::{CallEvent, CallId, CallRequest, CallState, CallView};
use crate::caller::Caller;
use crate::error::CallError;
use crate::telemetry::CallTrace;

/// Most events kept for followers that come late or read slowly; older ones are dropped, states never.
const EVENTS_KEPT: usize = 512;

/// A call that was refused, or that ended without a result.
#[derive(Debug, Clone)]
pub struct CallFailure {
    /// Why.
    pub error: CallError,
    /// The call's id: also refused calls have one, and a record.
    pub id: CallId,
    /// Its trace.
    pub trace_id: String,
    /// The decision, where there was one.
    pub decision_id: Option<String>,
}

/// One call under way.
pub struct LiveCall {
    /// Its id.
    pub id: CallId,
    /// Whose it is.
    pub caller: Arc<Caller>,
    /// Its spans.
    pub trace: CallTrace,
    /// Resolves when it is to end early.
    pub canceled: CancellationToken,
    state: Mutex<Inner>,
    /// The number of the next event: followers and waiters sleep on it.
    changed: watch::Sender<u64>,
}

struct Inner {
    view: CallView,
    events: VecDeque<(u64, CallEvent)>,
    failure: Option<CallError>,
}

impl LiveCall {
    fn new(caller: Arc<Caller>, request: &CallRequest, trace: CallTrace) -> Self {
        let id = CallId::generate();
        let view = CallView {
            id,
            tool: request.tool.clone(),
            version: request.version.clone().unwrap_or_default(),
            task_id: request.task_id.clone(),
            state: CallState::Running,
            is_error: None,
            result: None,
            may_have_run: None,
            decision_id: None,
            trace_id: trace.trace_id(),
            duration_ms: None,
            created_at: OffsetDateTime::now_utc(),
        };
        let state = Mutex::new(Inner { view, events: VecDeque::new(), failure: None });
        Self { id, caller, trace, canceled: CancellationToken::new(), state, changed: watch::Sender::new(0) }
    }

    /// The call as it stands.
    pub fn view(&self) -> CallView {
        self.state.lock().view.clone()
    }

    /// Changes what is known of it before it runs (version, decision).
    pub fn amend(&self, change: impl FnOnce(&mut CallView)) {
        change(&mut self.state.lock().view);
    }

    /// Its intent is durable and it is being run.
    pub fn started(&self) {
        self.emit(CallEvent::State { state: CallState::Running });
    }

    /// Tells followers what happened.
    pub fn emit(&self, event: CallEvent) {
        let mut inner = self.state.lock();
        self.push(&mut inner, event);
    }

    /// Its outcome is recorded: nothing follows.
    pub fn ended(&self, view: CallView, failure: Option<CallError>) {
        let mut inner = self.state.lock();
        let state = view.state;
        inner.view = view;
        inner.failure = failure;
        self.push(&mut inner, CallEvent::State { state });
    }

    fn push(&self, inner: &mut Inner, event: CallEvent) {
        let number = *self.changed.borrow();
        inner.events.push_back((number, event));
        if inner.events.len() > EVENTS_KEPT {
            let oldest = inner.events.iter().position(|(_, event)| !matches!(event, CallEvent::State { .. }));
            inner.events.remove(oldest.unwrap_or(0));
        }
        self.changed.send_replace(number + 1);
    }

    /// `None` while it is under way.
    fn outcome(&self) -> Option<Result<CallView, CallFailure>> {
        let inner = self.state.lock();
        if !inner.view.state.is_final() {
            return None;
        }
        Some(match &inner.failure {
            None => Ok(inner.view.clone()),
            Some(error) => Err(CallFailure {
                error: error.clone(),
                id: self.id,
                trace_id: inner.view.trace_id.clone(),
                decision_id: inner.view.decision_id.clone(),
            }),
        })
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> Result<CallView, CallFailure> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            // The sender lives in `self`, so this cannot fail while we are here.
            let _ = changed.changed().await;
        }
    }

    /// Waits until it runs, or was refused.
    async fn wait_started(&self) -> Result<(), CallFailure> {
        let mut changed = self.changed.subscribe();
        let _ = changed.wait_for(|events| *events > 0).await;
        match self.outcome() {
            Some(Err(failure)) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Its events with numbers above `after`, to the last.
    pub fn follow(self: Arc<Self>, after: Option<u64>) -> BoxStream<'static, (u64, CallEvent)> {
        let next = after.map_or(0, |n| n.saturating_add(1));
        let changed = self.changed.subscribe();
        stream::unfold((self, changed, next, false), |(call, mut changed, next, over)| async move {
            if over {
                return None;
            }
            loop {
                changed.borrow_and_update();
                let found = call.state.lock().events.iter().find(|(number, _)| *number >= next).cloned();
                if let Some((number, event)) = found {
                    let over = matches!(event, CallEvent::State { state } if state.is_final());
                    return Some(((number, event), (call, changed, number + 1, over)));
                }
                if call.outcome().is_some() || changed.changed().await.is_err() {
                    return None;
                }
            }
        })
        .boxed()
    }
}

/// All calls under way. A call leaves when its outcome is recorded.
#[derive(Default)]
pub struct LiveCalls(DashMap<CallId, Arc<LiveCall>>);

impl LiveCalls {
    /// Enters a new call.
    pub fn open(&self, caller: Arc<Caller>, request: &CallRequest, trace: CallTrace) -> Arc<LiveCall> {
        let call = Arc::new(LiveCall::new(caller, request, trace));
        self.0.insert(call.id, call.clone());
        call
    }

    /// The call `id` of `caller`; nobody else's.
    pub fn get(&self, caller: &Caller, id: CallId) -> Option<Arc<LiveCall>> {
        self.0.get(&id).filter(|call| call.caller.owns(caller.agent_id(), caller.user())).map(|call| call.clone())
    }

    /// Takes it out.
    pub fn close(&self, id: CallId) {
        self.0.remove(&id);
    }

    /// Ends every one early.
    pub fn cancel_all(&self) {
        self.0.iter().for_each(|call| call.canceled.cancel());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A caller's hold on a call it has just submitted. Dropped, it cancels the call: whoever waits synchronously and hangs
/// up does not leave it running. [`detach`](Self::detach) lets it go on.
pub struct Ticket {
    call: Arc<LiveCall>,
    attached: bool,
}

impl Ticket {
    /// Holds `call` and waits until it runs.
    ///
    /// # Errors
    /// The refusal, when it never gets there.
    pub async fn take(call: Arc<LiveCall>) -> Result<Self, CallFailure> {
        let ticket = Self { call, attached: true };
        ticket.call.wait_started().await?;
        Ok(ticket)
    }

    /// The call as it stands.
    pub fn view(&self) -> CallView {
        self.call.view()
    }

    /// Waits for the outcome. May be given up and called again.
    ///
    /// # Errors
    /// Why there is no result.
    pub async fn outcome(&mut self) -> Result<CallView, CallFailure> {
        self.call.wait().await
    }

    /// Lets the call go on without anyone waiting for it.
    pub fn detach(mut self) {
        self.attached = false;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.attached {
            self.call.canceled.cancel();
        }
    }
}
