//! The life of a call, from top to bottom.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use serde::Serialize;

use crate::call::{CallEvent, CallId, CallRequest, CallView};
use crate::caller::Caller;
use crate::error::CallError;

/// Everything the doors need; shared as `Arc`.
pub struct Gateway {}

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

/// A call on its way. Dropping it cancels the call unless [`detach`](Ticket::detach)ed.
pub struct Ticket {}

impl Ticket {
    /// The call as it stands.
    pub fn view(&self) -> CallView {
        todo!()
    }
    /// Waits for the outcome. Cancel-safe: may be given up and called again.
    pub async fn outcome(&mut self) -> Result<CallView, CallFailure> {
        todo!()
    }
    /// Lets the call go on without anyone waiting for it (`respond-async`, or past the preferred wait).
    pub fn detach(self) {
        todo!()
    }
}

/// A tool as a caller sees it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ToolView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// Its tier.
    pub tier: crate::catalog::definition::Tier,
    /// JSON Schema 2020-12 of the arguments.
    pub input_schema: serde_json::Value,
    /// JSON Schema 2020-12 of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<serde_json::Value>,
}

/// One span of a call's trace, for a waterfall.
#[derive(Debug, Clone, Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct SpanView {
    /// 16 hex digits.
    pub span_id: String,
    /// Its parent; `null` for the root.
    pub parent_span_id: Option<String>,
    /// Name.
    pub name: String,
    /// Microseconds after the root span began.
    pub start_us: u64,
    /// Length in microseconds.
    pub duration_us: u64,
    /// Whether it failed.
    pub error: bool,
    /// Attributes.
    pub attributes: std::collections::BTreeMap<String, serde_json::Value>,
}

impl Gateway {
    /// The caller behind the value of an `Authorization` header. Constant time in the secret; no I/O.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Arc<Caller>, CallError> {
        let _ = authorization;
        todo!()
    }
    /// Steps 2 to 8, and starts the rest.
    pub async fn submit(self: &Arc<Self>, caller: Arc<Caller>, request: CallRequest) -> Result<Ticket, CallFailure> {
        let _ = (caller, request);
        todo!()
    }
    /// The tools this caller may see, by name.
    pub fn tools(&self, caller: &Caller) -> Vec<ToolView> {
        let _ = caller;
        todo!()
    }
    /// One tool in this caller's view.
    pub fn tool(&self, caller: &Caller, name: &str) -> Result<ToolView, CallError> {
        let _ = (caller, name);
        todo!()
    }
    /// One call of this caller.
    pub async fn call(&self, caller: &Caller, id: CallId) -> Result<CallView, CallError> {
        let _ = (caller, id);
        todo!()
    }
    /// This caller's calls, newest first, at most `limit`.
    pub async fn calls(&self, caller: &Caller, task_id: Option<&str>, limit: u32) -> Result<Vec<CallView>, CallError> {
        let _ = (caller, task_id, limit);
        todo!()
    }
    /// Cancels a call of this caller and answers when it has ended. Ended calls stay as they are.
    pub async fn cancel(&self, caller: &Caller, id: CallId) -> Result<CallView, CallError> {
        let _ = (caller, id);
        todo!()
    }
    /// The events of a call of this caller with numbers above `after`; ends after the final state.
    pub async fn follow(&self, caller: &Caller, id: CallId, after: Option<u64>) -> Result<BoxStream<'static, (u64, CallEvent)>, CallError> {
        let _ = (caller, id, after);
        todo!()
    }
    /// The spans of a recent call of this caller.
    pub async fn trace(&self, caller: &Caller, id: CallId) -> Result<Vec<SpanView>, CallError> {
        let _ = (caller, id);
        todo!()
    }
}
