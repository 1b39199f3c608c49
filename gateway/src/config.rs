//! The configuration of `mayfly serve`: every key with its default, in one struct.
//!
//! Nothing has to be configured. What is written is checked as a whole, and every mistake is named at once. Relative paths
//! start where the gateway was started. The environment says only where the configuration is (`MAYFLY_CONFIG`) and where data
//! lies (`MAYFLY_DATA_DIR`); export of telemetry is configured by the standard `OTEL_*` variables.

mod credentials;
mod egress;
mod log;
mod validate;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_executor::spec::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{Document, NotYet, Problem, Shape};
use crate::units::{FORMATS, address_schema, duration_schema, duration_text, size_schema};
pub use credentials::{
    ExchangeConfig, KeySource, Oauth2Config, Offer, PostgresConfig, Scopes, SecretRef, SecretsConfig, SourceConfig, TokenConfig,
    VaultConfig,
};
pub use egress::EgressConfig;
pub use log::{LogFormat, LogSettings};

/// The configuration of a gateway (`mayfly.yaml`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where agents call: address:port, such as 127.0.0.1:8420.
    #[schemars(schema_with = "address_schema")]
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are: address:port, another than `listen`.
    #[schemars(schema_with = "address_schema")]
    pub observability_listen: SocketAddr,
    /// The folder of the store and of everything else that lasts; only the gateway's user may read it.
    #[schemars(with = "String", length(min = 1))]
    pub data_dir: PathBuf,
    /// The Unix socket of administration, at most 107 bytes long. Left out: `admin.sock` in `data_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub admin_socket: Option<PathBuf>,
    /// Folders with one subfolder for each tool; at least one.
    #[schemars(with = "Vec<String>", length(min = 1, max = 64))]
    pub tools: Vec<PathBuf>,
    /// Host folders of which tools may be shown a part, read-only: absolute paths, never `/`.
    #[schemars(with = "Vec<String>", length(max = 64))]
    pub allowed_mounts: Vec<PathBuf>,
    /// What decides about calls.
    pub policy: PolicyConfig,
    /// Ceilings of the agents' door.
    pub limits: LimitsConfig,
    /// What a commit survives.
    pub durability: Durability,
    /// How long running calls may go on after SIGTERM: 0s to 10m.
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub drain_grace: Duration,
    /// How long a sandbox may take to start: 1s to 10m.
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub start_timeout: Duration,
    /// The vault of `mayfly secret`.
    pub secrets: SecretsConfig,
    /// Where credentials of calls come from, each source under the name that `tool.yaml` uses for it.
    pub credentials: BTreeMap<String, SourceConfig>,
    /// What calls may do outside, within what their tools list.
    pub egress: EgressConfig,
    /// Sandboxes in this process.
    pub wasm: WasmSettings,
    /// Sandboxes in containers.
    pub docker: DockerSettings,
    /// Sandboxes in pods.
    pub kubernetes: KubernetesSettings,
    /// The gateway's own log.
    pub log: LogSettings,
}

/// What decides about calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// A folder of `.rego` files, or an OPA bundle (`.tar.gz`) with a `policy.wasm`.
    #[schemars(with = "String", length(min = 1))]
    pub path: PathBuf,
    /// A further file of policy data, JSON, beside what `path` holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub data: Option<PathBuf>,
    /// The Rego package that is asked, such as agent.authz.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"))]
    pub package: String,
    /// The time zone of `input.time`, `input.hour` and `input.weekday`: UTC, or an IANA name such as Europe/Berlin.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}$"))]
    pub timezone: String,
    /// What `input.environment` says: a word of at most 63 letters, digits, `_`, `-` and `.`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"))]
    pub environment: String,
    /// The longest that one decision may take: 1ms to 10s.
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub time_limit: Duration,
}

/// Ceilings of the agents' door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The longest request body: 1Ki to 64Mi.
    #[schemars(schema_with = "size_schema")]
    pub body: ByteSize,
    /// The deepest JSON in a request body.
    #[schemars(range(min = 4, max = 64))]
    pub json_depth: u32,
    /// The most connections at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: u32,
    /// The most calls that run at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub running: u32,
    /// The most requests of one agent in a second, on average.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: u32,
    /// The most requests of one agent at once, after a rest; at least `requests_per_second`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
    /// How long a client may take to send its request's headers: 1s to 1m.
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub header_timeout: Duration,
    /// The longest that a synchronous call waits for its result before it is answered with 202: 1s to 1h.
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub wait: Duration,
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A power cut.
    Full,
    /// The death of the process, not a power cut.
    Relaxed,
}

/// Sandboxes in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WasmSettings {
    /// The most instances at once.
    #[schemars(range(min = 1, max = 4096))]
    pub max_instances: u32,
    /// The largest `memory` of a wasm tool: 1Mi to 4Gi. Each instance reserves it as address space.
    #[schemars(schema_with = "size_schema")]
    pub max_memory: ByteSize,
    /// The folder of compiled modules; nobody else may write there. Left out: `wasm-cache` in `data_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub cache_dir: Option<PathBuf>,
}

/// Sandboxes in containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DockerSettings {
    /// Whether Docker is used.
    pub enabled: Enabled,
    /// The engine's socket: unix:///path. Left out: DOCKER_HOST, else Docker's own. Whoever reaches it is root on the host.
    #[schemars(regex(pattern = "^unix:///.+$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Sandboxes in pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesSettings {
    /// Whether Kubernetes is used.
    pub enabled: Enabled,
    /// Where sandboxes run: a namespace for them alone.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub namespace: String,
    /// A kubeconfig. Left out: the pod's own service account in a cluster, else KUBECONFIG or ~/.kube/config.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig. Left out: its current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub context: Option<String>,
    /// Whether a tool's image may be named by a tag; true or false (the default). What a tag means can change.
    pub allow_tags: bool,
}

/// Whether a backend is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Enabled {
    /// When its engine answers at start.
    Auto,
    /// Always: the gateway does not start without it.
    Always,
    /// Not at all.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8420)),
            observability_listen: SocketAddr::from(([127, 0, 0, 1], 8421)),
            data_dir: PathBuf::from(".mayfly"),
            admin_socket: None,
            tools: vec![PathBuf::from("images")],
            allowed_mounts: Vec::new(),
            policy: PolicyConfig::default(),
            limits: LimitsConfig::default(),
            durability: Durability::Full,
            drain_grace: Duration::from_secs(30),
            start_timeout: Duration::from_secs(30),
            secrets: SecretsConfig::default(),
            credentials: BTreeMap::new(),
            egress: EgressConfig::default(),
            wasm: WasmSettings::default(),
            docker: DockerSettings::default(),
            kubernetes: KubernetesSettings::default(),
            log: LogSettings::default(),
        }
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("policies/default"),
            data: None,
            package: "agent.authz".to_owned(),
            timezone: "UTC".to_owned(),
            environment: "development".to_owned(),
            time_limit: Duration::from_millis(100),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            body: ByteSize::mebibytes(1),
            json_depth: 64,
            connections: 4096,
            running: 512,
            requests_per_second: 1000,
            burst: 2000,
            header_timeout: Duration::from_secs(10),
            wait: Duration::from_secs(60),
        }
    }
}

impl Default for WasmSettings {
    fn default() -> Self {
        Self { max_instances: 256, max_memory: ByteSize::mebibytes(1024), cache_dir: None }
    }
}

impl Default for DockerSettings {
    fn default() -> Self {
        Self { enabled: Enabled::Auto, host: None }
    }
}

impl Default for KubernetesSettings {
    /// Never: the context that a kubeconfig happens to point to is not asked unbidden.
    fn default() -> Self {
        let namespace = "mayfly-executions".to_owned();
        Self { enabled: Enabled::Never, namespace, kubeconfig: None, context: None, allow_tags: false }
    }
}

/// What is planned and cannot be configured yet.
const NOT_YET: &[NotYet] = &[
    NotYet { pointer: "/admin_listen", value: None, instead: "`admin_socket`" },
    NotYet { pointer: "/tls", value: None, instead: "leave it out; a proxy on the same host can end TLS" },
];

/// Why there is no configuration: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// Every mistake, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Config {
    /// The configuration in `file`, else in the file that `MAYFLY_CONFIG` names, else the defaults.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(file, |name| std::env::var_os(name))
    }

    fn load_with(file: Option<&Path>, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = file.map(Path::to_owned).or_else(|| set("MAYFLY_CONFIG"));
        let (document, found) = match &named {
            Some(file) => Document::read(file).map_err(|p| ConfigError { problems: vec![p] })?,
            None => (Document::empty(Path::new("the defaults")), Vec::new()),
        };
        Self::from_document(&document, found, set("MAYFLY_DATA_DIR"))
    }

    /// Reads a text as if it were `file`, without a look at the environment.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let (document, found) = Document::parse(file, text).map_err(|p| ConfigError { problems: vec![p] })?;
        Self::from_document(&document, found, None)
    }

    fn from_document(document: &Document, mut problems: Vec<Problem>, data_dir: Option<PathBuf>) -> Result<Self, ConfigError> {
        // A file of comments alone is a configuration without keys.
        let said = if document.value.is_null() { document.with(Value::Object(Map::new())) } else { document.clone() };
        match Shape::of::<Self>(FORMATS, NOT_YET) {
            Ok(shape) => problems.extend(shape.check(&said)),
            Err(fault) => problems.push(said.error("", format!("cannot be checked: {fault}"), "")),
        }
        let mut config = readable(&said.value);
        if let Some(data_dir) = data_dir {
            config.data_dir = data_dir;
        }
        problems.extend(validate::check(&config, &said));
        problems.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// Where the administration socket is.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin_socket.clone().unwrap_or_else(|| self.data_dir.join("admin.sock"))
    }

    /// Where compiled modules are kept.
    pub fn wasm_cache(&self) -> PathBuf {
        self.wasm.cache_dir.clone().unwrap_or_else(|| self.data_dir.join("wasm-cache"))
    }
}

/// The keys that can be read, with defaults for those that cannot, so that a mistake in one does not hide those in others.
fn readable(said: &Value) -> Config {
    let reads = |key: &str, value: &Value| {
        let alone = Value::Object(std::iter::once((key.to_owned(), value.clone())).collect());
        serde_json::from_value::<Config>(alone).is_ok()
    };
    let mut kept = Map::new();
    for (key, value) in said.as_object().into_iter().flatten() {
        if reads(key, value) {
            kept.insert(key.clone(), value.clone());
        } else if let Some(members) = value.as_object() {
            let one = |name: &String, member: &Value| Value::Object(std::iter::once((name.clone(), member.clone())).collect());
            let members = members.iter().filter(|(name, member)| reads(key, &one(name, member)));
            let members: Map<String, Value> = members.map(|(name, member)| (name.clone(), member.clone())).collect();
            if reads(key, &Value::Object(members.clone())) {
                kept.insert(key.clone(), Value::Object(members));
            }
        }
    }
    serde_json::from_value(Value::Object(kept)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
