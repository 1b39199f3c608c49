//! `tool.yaml`, as Rust types. The JSON Schema that `mayfly tool schema` prints is generated from these, and the check
//! reads every file against it: what is not described here does not exist.

mod credentials;
mod reaches;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use mayfly_executor::BackendKind;
use mayfly_executor::pool::WhenEmpty;
use mayfly_executor::spec::{ByteSize, Mount, Reach, Toleration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{NotYet, Shape};
pub use crate::units::duration_text;
use crate::units::{Cpu, FORMATS, destination_schema, duration_schema, size_schema};
pub use credentials::{CredentialUse, Delivery, Inject, Scheme};

/// A Mayfly tool definition, format version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub format: u32,
    /// A lower-case letter, then at most 62 lower-case letters, digits and underscores.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_]{0,62}$"))]
    pub name: String,
    /// The tool's own version, MAJOR.MINOR.PATCH, such as 1.0.0.
    #[schemars(regex(pattern = r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-[0-9A-Za-z.-]{1,64})?$"))]
    pub version: String,
    /// What the tool does, for the agents that choose among tools: 1 to 4096 characters.
    #[schemars(length(min = 1, max = 4096))]
    pub description: String,
    /// Who may cause the tool to run.
    pub tier: Tier,
    /// Why it has that tier, for whoever looks at it next: 1 to 4096 characters.
    #[schemars(length(min = 1, max = 4096))]
    pub justification: String,
    /// The date on which somebody looks at the tier again, YYYY-MM-DD.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub review_by: String,
    /// The verb that policy reasons about: a word such as `get`, or `{from: /pointer}` to an argument that is an enum of strings.
    pub action: Classifier,
    /// The kind of thing that policy reasons about: a word such as `deployment`, or `{from: /pointer}` to an argument that is an enum of strings.
    pub resource: Classifier,
    /// JSON Schema 2020-12 of the arguments: `type: object`. An object that leaves `additionalProperties` out takes no others.
    #[schemars(schema_with = "map_schema")]
    pub input_schema: Value,
    /// JSON Schema 2020-12 of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "map_schema")]
    pub output_schema: Option<Value>,
    /// Arguments lifted to the top of the policy input: a name, and the JSON Pointer of an argument.
    #[serde(default)]
    pub policy_input: BTreeMap<String, String>,
    /// How the tool runs.
    pub executor: Executor,
    /// What each call is given that it may show elsewhere, at most 16; left out: nothing.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub credentials: Vec<CredentialUse>,
    /// Ceilings beyond one sandbox.
    #[serde(default)]
    pub limits: Limits,
    /// Where in the result its rows are: a JSON Pointer to an array, `""` for the result itself. A decision can only cap rows that
    /// are named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(/.*)?$"))]
    pub rows: Option<String>,
    /// Whether the lines that the tool writes to standard error reach agents; true or false (the default).
    #[serde(default)]
    pub expose_logs: bool,
}

/// The tier of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Runs when policy allows.
    Free,
    /// A human approves each call.
    Supervised,
    /// Does not exist for any agent.
    Forbidden,
}

impl Tier {
    /// The name in `tool.yaml` and in the policy input.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Supervised => "supervised",
            Self::Forbidden => "forbidden",
        }
    }
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

impl JsonSchema for Classifier {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Classifier".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.:/-]{0,62}$"},
            {"type": "object", "properties": {"from": {"type": "string"}}, "required": ["from"], "additionalProperties": false},
        ]})
    }
}

/// How a tool runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Executor {
    /// Where its sandboxes come from.
    #[schemars(schema_with = "backend_schema")]
    pub backend: BackendKind,
    /// wasm: the module or component, a path inside the tool's folder. `mayfly tool build` makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 1024))]
    pub module: Option<PathBuf>,
    /// docker, kubernetes: `name@sha256:...` as it is, or a tag that `mayfly tool build` builds and pins in `tool.lock`; for
    /// kubernetes with `--push`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = r"^[a-z0-9][A-Za-z0-9._/:@-]{0,511}$"))]
    pub image: Option<String>,
    /// Program and arguments, at most 256; `{/pointer}` fills one whole element with an argument. Left out: what the image or module runs.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// The longest that one call may take: 1ms to 1h, written 500ms, 30s, 2m.
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
    /// The memory ceiling of the sandbox: 1Mi (docker, kubernetes: 16Mi) to 64Gi, written 256Mi.
    #[schemars(schema_with = "size_schema")]
    pub memory: ByteSize,
    /// docker, kubernetes: the CPU ceiling, 10m to 64 cores, written 0.5 or 500m. Left out: one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Cpu")]
    pub cpu: Option<Cpu>,
    /// The most that the tool may write to standard output: 1 to 64Mi, written 1Mi.
    #[schemars(schema_with = "size_schema")]
    pub output_limit: ByteSize,
    /// The only destinations that it may connect to, each host:port, *.example.com:443 or 10.0.0.0/8:5432; left out: none.
    #[serde(default)]
    #[schemars(schema_with = "destinations_schema")]
    pub network: Vec<Reach>,
    /// docker: host folders shown read-only, each `{source, target}`, both absolute; `allowed_mounts` of the configuration must allow the source.
    #[serde(default)]
    #[schemars(schema_with = "mounts_schema")]
    pub mounts: Vec<Mount>,
    /// docker, kubernetes: size of the writable `/tmp`, which counts towards `memory` and is less than it. Left out: 16Mi, or half the memory if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub scratch: Option<ByteSize>,
    /// docker, kubernetes: the most processes and threads at once. Left out: 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 4096))]
    pub pids: Option<u32>,
    /// docker, kubernetes: how many sandboxes to keep started ahead of calls, 1 to 100, or `{size, when_empty}`. Each takes its
    /// memory while it waits. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "warm_schema")]
    pub warm: Option<Warmth>,
    /// kubernetes: the service account of the tool's pods, `mayfly-tool-...`. Its token is never mounted: each call gets one of its
    /// own. Left out: one that may do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^mayfly-tool-[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$"))]
    pub service_account: Option<String>,
    /// kubernetes: the runtime class of the tool's pods, such as gvisor or kata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"))]
    pub runtime_class: Option<String>,
    /// kubernetes: where the tool's pods may run, and with which credentials their image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "placement_schema")]
    pub kubernetes: Option<Placement>,
}

/// How many sandboxes are kept started, and what a call does that finds none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Warmth {
    /// So many; a call that finds none starts one.
    Size(u32),
    /// In full.
    Pool {
        /// How many.
        size: u32,
        /// What a call does that finds none.
        #[serde(default)]
        when_empty: Empty,
    },
}

impl Warmth {
    /// How many are kept.
    pub const fn size(self) -> u32 {
        match self {
            Self::Size(size) | Self::Pool { size, .. } => size,
        }
    }

    /// What a call does that finds none.
    pub const fn when_empty(self) -> WhenEmpty {
        match self {
            Self::Pool { when_empty: Empty::Wait, .. } => WhenEmpty::Wait,
            Self::Size(_) | Self::Pool { .. } => WhenEmpty::Start,
        }
    }
}

/// What a call does that finds no warm sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Empty {
    /// It starts one of its own.
    #[default]
    Start,
    /// It waits for the next one.
    Wait,
}

/// Where a tool's pods may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    pub tolerations: Vec<Toleration>,
    /// Secrets of the sandboxes' namespace with registry credentials.
    pub image_pull_secrets: Vec<String>,
    /// What of `cpu` a node keeps free for each pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_request: Option<Cpu>,
}

/// Ceilings beyond one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most calls of this tool at once. Left out: as many as the gateway runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
}

/// What the design names and this version does not do yet.
const NOT_YET: &[NotYet] = &[NotYet { pointer: "/cost", value: None, instead: "leave it out" }];

static SHAPE: LazyLock<Result<Shape, String>> = LazyLock::new(|| Shape::of::<Definition>(FORMATS, NOT_YET));

/// The shape that every `tool.yaml` has.
///
/// # Errors
/// The generated schema does not compile: a fault of ours.
pub(super) fn shape() -> Result<&'static Shape, &'static str> {
    SHAPE.as_ref().map_err(String::as_str)
}

/// The published JSON Schema of `tool.yaml`.
pub fn schema() -> Value {
    crate::document::schema_of::<Definition>()
}

fn map_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object"})
}

fn backend_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"oneOf": [
        {"const": "wasm", "description": "A wasm instance in the gateway's process."},
        {"const": "docker", "description": "A hardened Docker container."},
        {"const": "kubernetes", "description": "A Kubernetes Job with one hardened pod."},
    ]})
}

fn destinations_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 64, "items": destination_schema(generator)})
}

fn mounts_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 16, "items": {
        "type": "object",
        "description": "`{source: /on/the/host, target: /in/the/sandbox}`",
        "properties": {
            "source": {"type": "string", "pattern": "^/", "description": "an absolute path on the host"},
            "target": {"type": "string", "pattern": "^/", "description": "an absolute path in the sandbox"},
        },
        "required": ["source", "target"],
        "additionalProperties": false,
    }})
}

fn warm_schema(_: &mut SchemaGenerator) -> Schema {
    let size = serde_json::json!({"type": "integer", "minimum": 1, "maximum": 100, "description": "how many wait"});
    let when_empty = serde_json::json!({
        "enum": ["start", "wait"],
        "description": "what a call does that finds none: start one of its own (the default), or wait for the next",
    });
    json_schema!({"anyOf": [
        size,
        {
            "type": "object",
            "properties": {"size": size, "when_empty": when_empty},
            "required": ["size"],
            "additionalProperties": false,
        },
    ]})
}

fn placement_schema(_: &mut SchemaGenerator) -> Schema {
    let name = serde_json::json!({"type": "string", "minLength": 1, "maxLength": 253});
    let cpu_request = serde_json::json!({
        "type": ["string", "number"],
        "format": "mayfly-cpu",
        "description": "what of `cpu` a node keeps free for each pod, written 50m; left out: all of it. Those that wait need little",
    });
    json_schema!({
        "type": "object",
        "properties": {
            "cpu_request": cpu_request,
            "node_selector": {"type": "object", "additionalProperties": name, "description": "labels that the node must have"},
            "tolerations": {
                "type": "array",
                "maxItems": 16,
                "description": "taints that the pods tolerate, as Kubernetes writes them",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": {"type": "string", "maxLength": 253, "description": "the taint's key"},
                        "operator": {"enum": ["Equal", "Exists"], "description": "Equal, or Exists for any value"},
                        "value": {"type": "string", "maxLength": 63, "description": "the taint's value"},
                        "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"], "description": "which effect"},
                    },
                    "additionalProperties": false,
                },
            },
            "image_pull_secrets": {
                "type": "array",
                "maxItems": 8,
                "items": name,
                "description": "secrets of the sandboxes' namespace with registry credentials",
            },
        },
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_describes_every_key() {
        fn undescribed(schema: &Value, at: &str, found: &mut Vec<String>) {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let here = format!("{at}/{name}");
                if property.get("description").is_none() && name != "from" {
                    found.push(here.clone());
                }
                undescribed(property, &here, found);
            }
        }
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["executor"]["additionalProperties"], false);
        let mut found = Vec::new();
        undescribed(&schema, "", &mut found);
        assert_eq!(found, [] as [&str; 0]);
        shape().unwrap();
    }
}
