//! What the store holds, as Rust types.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::call::{CallId, CallState, CallView};
use crate::caller::Caller;
use crate::catalog::definition::Tier;

/// What is known of a call before anything is delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// The call.
    pub call_id: CallId,
    /// The agent's registered name.
    pub agent_id: String,
    /// The user it acts for.
    pub user: Option<String>,
    /// The task, in its owner's own words: two owners may use the same one and never meet.
    pub task_id: Option<String>,
    /// The tool's name, as asked for.
    pub tool: String,
    /// Its version; empty when the call ended before the tool was resolved.
    pub version: String,
    /// Its tier, once resolved.
    pub tier: Option<Tier>,
    /// Digest of definition and artifact, once resolved.
    pub tool_digest: Option<String>,
    /// Digest of the generation of catalog, policy and data that the call is pinned to.
    pub generation: Option<String>,
    /// The policy decision it rests on.
    pub decision_id: Option<String>,
    /// W3C trace id, 32 hex digits.
    pub trace_id: String,
    /// The arguments as JSON, redacted.
    pub arguments: String,
    /// Lower-case hex SHA-256 of the arguments as the tool gets them.
    pub arguments_sha256: String,
    /// Why the agent wants it.
    pub reason: Option<String>,
    /// Arrival, by the wall clock.
    pub created_at: OffsetDateTime,
    /// Whether the invocation has begun to leave: from then on the tool may have run.
    pub delivered: bool,
    /// The sources of the credentials that it is given.
    pub credentials: Vec<String>,
}

/// The one outcome of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The call.
    pub call_id: CallId,
    /// A final state.
    pub state: CallState,
    /// Whether there is no good result.
    pub is_error: bool,
    /// What the tool wrote, as JSON.
    pub result: Option<String>,
    /// The slug of the problem type, when the call ended in one of ours.
    pub problem: Option<String>,
    /// The true reason, whatever the caller was shown.
    pub detail: Option<String>,
    /// Whether the tool may have had an effect, where that is in question.
    pub may_have_run: Option<bool>,
    /// How the tool ended.
    pub exit: Option<String>,
    /// The sources of the credentials that stood in what the tool wrote, and were taken out.
    pub leaked: Vec<String>,
    /// The destinations that it connected to or asked for.
    pub contacted: Vec<Contacted>,
    /// From arrival to outcome in milliseconds, by a monotonic clock.
    pub duration_ms: f64,
    /// When it ended, by the wall clock.
    pub finished_at: OffsetDateTime,
}

/// One destination of one call, as its record has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contacted {
    /// As it was asked for, without what must not be written down.
    pub destination: String,
    /// The addresses that were connected to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpAddr>,
    /// How many connections stood.
    pub connections: u32,
    /// How many were refused or failed.
    pub refused: u32,
    /// Bytes to it.
    pub sent: u64,
    /// Bytes from it.
    pub received: u64,
}

/// A call as the ledger has it.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRow {
    /// What was to happen.
    pub intent: Intent,
    /// Where it stands.
    pub state: CallState,
    /// What came of it; `None` while it is open.
    pub outcome: Option<Outcome>,
}

impl CallRow {
    /// Whether it is `caller`'s own. Everybody else is to be told that there is no such call.
    pub fn is_owned_by(&self, caller: &Caller) -> bool {
        caller.owns(&self.intent.agent_id, self.intent.user.as_deref())
    }

    /// The shape every door shows.
    pub fn view(self) -> CallView {
        let Self { intent, state, outcome } = self;
        let (is_error, duration_ms) = outcome.as_ref().map(|o| (o.is_error, o.duration_ms)).unzip();
        let may_have_run = outcome.as_ref().and_then(|o| o.may_have_run);
        CallView {
            id: intent.call_id,
            tool: intent.tool,
            version: intent.version,
            task_id: intent.task_id,
            state,
            is_error,
            result: outcome.and_then(|o| o.result).map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
            may_have_run,
            decision_id: intent.decision_id,
            trace_id: intent.trace_id,
            duration_ms,
            created_at: intent.created_at,
        }
    }
}

/// A sealed secret: what may lie anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The id of the master key that opens it.
    pub key_id: String,
    /// The secret's own key, encrypted under the master key.
    pub wrapped_key: Vec<u8>,
    /// The value, encrypted under that.
    pub ciphertext: Vec<u8>,
}

/// A secret of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name, unique.
    pub name: String,
    /// How often it was set.
    pub version: u32,
    /// The value, for whoever has the master key.
    pub sealed: Envelope,
    /// When the first version was set.
    pub created_at: OffsetDateTime,
    /// When this one was.
    pub updated_at: OffsetDateTime,
}

/// A credential that was minted for a call, or is about to be, and is not known to be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRow {
    /// Its id, which is ours.
    pub id: Uuid,
    /// The source it is from.
    pub source: String,
    /// What it has to be revoked at: a server, a namespace.
    pub target: String,
    /// The call it is for.
    pub call_id: CallId,
    /// What the source revokes it by, empty where there is nothing to revoke; `None` while the source has not said it.
    pub handle: Option<String>,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When it is worth nothing, revoked or not.
    pub expires_at: OffsetDateTime,
    /// Attempts to revoke it that failed.
    pub attempts: u32,
    /// What the last one said.
    pub error: Option<String>,
}

/// A registered agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// The public part of its key.
    pub key_id: String,
    /// Its name, unique.
    pub name: String,
    /// The user it acts for.
    pub user: Option<String>,
    /// HMAC-SHA-256 of its key.
    pub key_mac: [u8; 32],
    /// When it was registered.
    pub created_at: OffsetDateTime,
    /// Whether it is locked out.
    pub suspended: bool,
}
