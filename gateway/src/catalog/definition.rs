//! `tool.yaml`, as Rust types. The published JSON Schema is generated from these.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mayfly_executor::BackendKind;
use mayfly_executor::spec::{ByteSize, Destination, Mount};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A tool definition, format version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Version of this format: 1.
    pub format: u32,
    /// `[a-z][a-z0-9_]{0,62}`.
    pub name: String,
    /// Semantic version of the tool.
    pub version: String,
    /// What it does, for agents.
    pub description: String,
    /// Who may cause it to run.
    pub tier: Tier,
    /// Why it has that tier.
    pub justification: String,
    /// `YYYY-MM-DD`, when to look again.
    pub review_by: String,
    /// What policy reasons about: a verb.
    pub action: Classifier,
    /// What policy reasons about: a kind of thing.
    pub resource: Classifier,
    /// JSON Schema 2020-12 of the arguments; an object.
    pub input_schema: Value,
    /// JSON Schema 2020-12 of the result.
    #[serde(default)]
    pub output_schema: Option<Value>,
    /// Name at the top of the policy input -> JSON Pointer into the arguments.
    #[serde(default)]
    pub policy_input: BTreeMap<String, String>,
    /// How it runs.
    pub executor: Executor,
    /// Ceilings beyond one sandbox.
    #[serde(default)]
    pub limits: Limits,
    /// Whether log lines of the tool reach agents.
    #[serde(default)]
    pub expose_logs: bool,
}

/// The tier of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Runs when policy allows.
    Free,
    /// A human approves each call.
    Supervised,
    /// Does not exist for any agent.
    Forbidden,
}

/// A constant, or the value of an enumerated argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Classifier {
    /// Always this.
    Constant(String),
    /// The argument at this JSON Pointer, which must be an enum of strings.
    From {
        /// JSON Pointer.
        from: String,
    },
}

/// How a tool runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Executor {
    /// Where.
    pub backend: BackendKind,
    /// wasm: module file, relative to the tool's folder.
    #[serde(default)]
    pub module: Option<PathBuf>,
    /// docker: image; `name@sha256:...`, or a tag that `mayfly tool build` pins in `tool.lock`.
    #[serde(default)]
    pub image: Option<String>,
    /// Program and arguments; `{/pointer}` fills one whole element. Empty: what the image or module runs.
    #[serde(default)]
    pub command: Vec<String>,
    /// `30s`, `500ms`, `2m`.
    #[serde(with = "super::definition::duration_text")]
    pub timeout: std::time::Duration,
    /// Memory ceiling.
    pub memory: ByteSize,
    /// CPU in cores, `0.5` or `500m`.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Most bytes of output.
    pub output_limit: ByteSize,
    /// Where it may connect.
    #[serde(default)]
    pub network: Vec<Destination>,
    /// Host folders.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// `/tmp` size (containers).
    #[serde(default)]
    pub scratch: Option<ByteSize>,
    /// Most processes (containers).
    #[serde(default)]
    pub pids: Option<u32>,
}

/// Ceilings beyond one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most calls of this tool at once.
    #[serde(default)]
    pub concurrency: Option<u32>,
}

/// Durations as `30s`.
pub mod duration_text {
    use std::time::Duration;
    /// Writes.
    pub fn serialize<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}ms", d.as_millis()))
    }
    /// Reads.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(_d: D) -> Result<Duration, D::Error> {
        Err(serde::de::Error::custom("not read yet"))
    }
}
