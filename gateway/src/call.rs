//! A call: its identity, its states, and the one shape in which every door shows it.

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

/// The id of a call: a UUIDv7, so ids sort by time. Knowing one gives no right to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub Uuid);

impl CallId {
    /// A new id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a call stands. Every state but the first two is final, and a call reaches exactly one of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// Waits for a human.
    AwaitingApproval,
    /// Its intent is durable; it is being run.
    Running,
    /// The tool exited with 0 and its output passed inspection.
    Succeeded,
    /// The tool ran and failed, or could not be run.
    Failed,
    /// It was refused before anything ran.
    Denied,
    /// Its caller, or a drain, ended it.
    Canceled,
    /// It was killed at its deadline.
    TimedOut,
    /// The gateway or the sandbox went away in the middle.
    Interrupted,
    /// Nobody approved it in time.
    Expired,
}

impl CallState {
    /// The name on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::AwaitingApproval | Self::Running)
    }

    /// Reads [`as_str`](Self::as_str) back.
    pub fn from_name(name: &str) -> Option<Self> {
        serde_json::from_value(Value::String(name.to_owned())).ok()
    }
}

/// A call as every door shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CallView {
    /// UUIDv7.
    #[schema(value_type = String, format = "uuid")]
    pub id: CallId,
    /// The tool's name.
    pub tool: String,
    /// The tool's version.
    pub version: String,
    /// The task it belongs to, in its owner's own words.
    pub task_id: Option<String>,
    /// Where it stands.
    pub state: CallState,
    /// Whether the tool failed. `null` until the call is over.
    pub is_error: Option<bool>,
    /// What the tool wrote: JSON if it wrote JSON, text otherwise; of a failed tool, what it had to say.
    pub result: Option<Value>,
    /// Whether the tool may have had an effect: before an interrupted call is made again, look. `null` until the call is over.
    pub may_have_run: Option<bool>,
    /// The policy decision it rests on.
    pub decision_id: Option<String>,
    /// W3C trace id, 32 hex digits.
    pub trace_id: String,
    /// From arrival to outcome, in milliseconds. `null` until the call is over.
    pub duration_ms: Option<f64>,
    /// Arrival.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = "date-time")]
    pub created_at: OffsetDateTime,
}

/// What an agent asks for, as a door hands it in.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRequest {
    /// Tool name, unchecked.
    pub tool: String,
    /// Exact version wanted; `None`: the one the catalog serves.
    pub version: Option<String>,
    /// The arguments object, unchecked.
    pub arguments: serde_json::Map<String, Value>,
    /// The task it belongs to.
    pub task_id: Option<String>,
    /// Why the agent wants it, for the approver and the record.
    pub reason: Option<String>,
    /// The caller's `traceparent` header, if it was well-formed.
    pub traceparent: Option<String>,
    /// When the door began and ended to look who is there, for the trace; `None`: the call begins when it is submitted.
    pub authenticated: Option<(Instant, Instant)>,
}

impl CallRequest {
    /// Stands for a request that could not be read, in its record.
    pub fn unreadable() -> Self {
        let (tool, arguments) = (String::new(), serde_json::Map::new());
        Self { tool, version: None, arguments, task_id: None, reason: None, traceparent: None, authenticated: None }
    }
}

/// Something that happened to a call, in order. Events of one call are numbered from 0.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CallEvent {
    /// It entered a state.
    State {
        /// Which.
        state: CallState,
    },
    /// The tool said how far it is.
    Progress {
        /// Done so far.
        progress: f64,
        /// All there is to do.
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<f64>,
        /// What it is doing.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A line of the tool's standard error; only from tools with `expose_logs: true`.
    Log {
        /// The line.
        line: String,
    },
}
