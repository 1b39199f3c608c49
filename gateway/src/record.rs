//! What is known of one call, gathered step by step, and written out four ways: intent, outcome, log line, view.

use std::time::Instant;

use mayfly_executor::wire::Report;
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::call::{CallRequest, CallState, CallView};
use crate::catalog::{Arguments, Tool};
use crate::error::CallError;
use crate::generation::{Absence, Generation};
use crate::inspect::Inspected;
use crate::live::LiveCall;
use crate::policy::Decision;
use crate::store::{Intent, Outcome};

/// The record of one call in the making.
pub struct Record {
    arrived: Instant,
    intent: Intent,
    reasons: Vec<String>,
    allowed: Option<bool>,
    tool: Option<std::sync::Arc<Tool>>,
    action: Option<String>,
    resource: Option<String>,
    hidden: bool,
    committed: bool,
    exit: Option<String>,
}

impl Record {
    /// Starts with what the request says.
    pub fn new(call: &LiveCall, request: &CallRequest, arrived: Instant) -> Self {
        let intent = Intent {
            call_id: call.id,
            agent_id: call.caller.agent_id().to_owned(),
            user: call.caller.user().map(str::to_owned),
            task_id: request.task_id.clone(),
            tool: request.tool.clone(),
            version: request.version.clone().unwrap_or_default(),
            tier: String::new(),
            tool_digest: String::new(),
            generation: String::new(),
            decision_id: None,
            trace_id: call.trace.trace_id(),
            arguments: String::new(),
            arguments_sha256: String::new(),
            reason: request.reason.clone(),
            created_at: OffsetDateTime::now_utc(),
            delivered: false,
        };
        Self {
            arrived,
            intent,
            reasons: Vec::new(),
            allowed: None,
            tool: None,
            action: None,
            resource: None,
            hidden: false,
            committed: false,
            exit: None,
        }
    }
}
