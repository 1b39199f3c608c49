//! What policy said about one call.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mayfly_executor::spec::{ByteSize, Reach};
use serde::Serialize;
use uuid::Uuid;

/// What the decision adds on top of the tool's own limits. Every one only narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Obligations {
    /// A shorter timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The only destinations allowed; must be listed by the tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<BTreeSet<Reach>>,
    /// A smaller output limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<ByteSize>,
    /// Most rows (elements of a top-level array, or of a top-level `rows` array) in the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_cap: Option<u64>,
    /// The only credentials allowed, by their sources; must be named by the tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<BTreeMap<String, CredentialScope>>,
    /// The weakest isolation that will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

/// What is left of one credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CredentialScope {
    /// The only scopes; `None`: all that the tool asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<BTreeSet<String>>,
}

/// How strongly a sandbox is separated, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A wasm instance in our process.
    Wasm,
    /// A container on the host's kernel.
    Container,
}

/// One answer of policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// UUIDv7, in every response and log line.
    pub id: Uuid,
    /// `allow` was boolean true and nothing denied.
    pub allow: bool,
    /// The strings of `deny`, sorted, at most 16.
    pub reasons: Vec<String>,
    /// Whether a human must approve.
    pub approval: bool,
    /// What is demanded on top.
    pub obligations: Obligations,
}
