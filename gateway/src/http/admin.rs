//! Administration, for the operator: served on a [socket](super::socket) that only they can open, which is all the
//! authentication there is. Never put this router on TCP.

pub mod access;
pub mod custody;

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use mayfly_executor::BackendKind;
use mayfly_executor::pool::PoolStatus;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use super::body::{BodyLimits, JsonBody};
use super::problem::{Problem, TYPE_PREFIX};
use crate::catalog::definition::Tier;
use crate::error::CallError;
use access::AccessView;
use custody::Custody;

/// What this door asks of the gateway.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Registers an agent and makes its key, which is shown this once.
    async fn add_agent(&self, agent: AgentRequest) -> Result<NewAgent, AdminError>;
    /// The registered agents, by name.
    async fn agents(&self) -> Result<Vec<AgentView>, AdminError>;
    /// Removes an agent; its key is worth nothing from then on, and nobody can have its name again.
    async fn remove_agent(&self, name: &str) -> Result<(), AdminError>;
    /// Suspends an agent, or lifts that. Doing it twice is no error.
    async fn set_suspended(&self, name: &str, suspended: bool) -> Result<AgentView, AdminError>;
    /// Every tool of the catalog, by name.
    fn tools(&self) -> Vec<ToolStatus>;
    /// What each backend has started and destroyed.
    fn sandboxes(&self) -> Vec<SandboxCounts>;
    /// The pools of warm sandboxes, by tool.
    fn pools(&self) -> Vec<PoolView>;
    /// What is being served.
    fn generation(&self) -> GenerationView;
    /// Which agents see a tool.
    async fn who_can(&self, tool: &str) -> Result<AccessView, AdminError>;
    /// Which tools an agent sees.
    async fn what_can(&self, agent: &str) -> Result<AccessView, AdminError>;
}

/// An agent to register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRequest {
    /// Its name: what policy knows as `agent_id`.
    pub name: String,
    /// The user it acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A registered agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its name: what policy knows as `agent_id`.
    pub name: String,
    /// The user it acts for.
    pub user: Option<String>,
    /// Whether it is refused at the door.
    pub suspended: bool,
    /// When it was registered.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// An agent and its key. Not `Debug`: the key is a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewAgent {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentView,
    /// `mf_...`, shown this once and stored nowhere.
    pub key: String,
}

/// A tool, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolStatus {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Tier.
    pub tier: Tier,
    /// Where it runs.
    pub backend: BackendKind,
    /// Why it cannot run at the moment; `null` when it can.
    pub unavailable: Option<String>,
}

/// Sandboxes of one backend since this process began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxCounts {
    /// Which.
    pub backend: BackendKind,
    /// Asked of the engine.
    pub started: u64,
    /// Confirmed gone.
    pub destroyed: u64,
    /// Of those destroyed: found by the reaper, unknown to us.
    pub orphans: u64,
}

/// A pool of warm sandboxes since its tool took this form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Whose it is.
    pub tool: String,
    /// Where its sandboxes run.
    pub backend: BackendKind,
    /// How many it is to hold.
    pub size: u32,
    /// How many wait for a call.
    pub idle: usize,
    /// How many are being started.
    pub starting: u32,
    /// Calls that got one.
    pub claims: u64,
    /// Calls that found none.
    pub misses: u64,
    /// Sandboxes that died before a call had them.
    pub lost: u64,
    /// How long the oldest has waited, in seconds.
    pub oldest_seconds: Option<f64>,
    /// Median of the last start times, in milliseconds.
    pub start_p50_ms: Option<f64>,
    /// The longest of them.
    pub start_max_ms: Option<f64>,
    /// Why the last start failed, if none has succeeded since.
    pub failure: Option<String>,
}

impl From<PoolStatus> for PoolView {
    fn from(status: PoolStatus) -> Self {
        let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1000.0;
        Self {
            tool: status.tool,
            backend: status.backend,
            size: status.size,
            idle: status.idle,
            starting: status.starting,
            claims: status.claims,
            misses: status.misses,
            lost: status.lost,
            oldest_seconds: status.oldest.map(|oldest| oldest.as_secs_f64()),
            start_p50_ms: status.start_p50.map(millis),
            start_max_ms: status.start_max.map(millis),
            failure: status.failure,
        }
    }
}

/// The catalog, policy and data that calls are decided with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationView {
    /// Its digest, as records name it.
    pub digest: String,
    /// When it was loaded.
    #[serde(with = "time::serde::rfc3339")]
    pub loaded_at: OffsetDateTime,
    /// Why the last attempt to load a newer one was refused; `null` when it was not.
    pub refused: Option<String>,
}

/// Why an administrative request was not carried out. `Display` is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdminError {
    /// No agent of that name.
    #[error("there is no agent `{0}`; `mayfly agent list` shows those there are")]
    UnknownAgent(String),
    /// No tool of that name.
    #[error("there is no tool `{0}`; `mayfly tool list` shows those there are")]
    UnknownTool(String),
    /// No secret of that name.
    #[error("there is no secret `{0}`; `mayfly secret list` shows those there are")]
    UnknownSecret(String),
    /// No credential of that id that could be forgotten.
    #[error("there is no credential `{0}` that no call holds; `mayfly credential list` shows those there are")]
    UnknownCredential(Uuid),
    /// The name is taken.
    #[error("there is an agent `{0}` already; choose another name")]
    AgentExists(String),
    /// The name was that of an agent that is gone.
    #[error("agent `{0}` was removed; its calls are still on record under that name; choose another name")]
    AgentRemoved(String),
    /// What was asked for makes no sense; says what is accepted.
    #[error("{0}")]
    Invalid(String),
    /// The store did not take it.
    #[error("the store could not be read or written, so nothing was changed: {0}")]
    Store(String),
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, slug, title) = match self {
            Self::UnknownAgent(_) => (StatusCode::NOT_FOUND, "unknown-agent", "No such agent"),
            Self::UnknownTool(_) => (StatusCode::NOT_FOUND, "unknown-tool", "No such tool"),
            Self::UnknownCredential(_) => (StatusCode::NOT_FOUND, "unknown-credential", "No such credential"),
            Self::UnknownSecret(_) => (StatusCode::NOT_FOUND, "unknown-secret", "No such secret"),
            Self::AgentExists(_) => (StatusCode::CONFLICT, "agent-exists", "Name is taken"),
            Self::AgentRemoved(_) => (StatusCode::CONFLICT, "agent-removed", "Name was taken"),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "Invalid request"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "Store unavailable"),
        };
        let kind = format!("{TYPE_PREFIX}{slug}");
        Problem { kind, title: title.into(), status: status.as_u16(), detail: self.to_string(), ..CallError::Internal.into() }
            .into_response()
    }
}

/// What the handlers share.
#[derive(Clone)]
struct Door(Arc<dyn Admin>);

impl FromRef<Door> for BodyLimits {
    fn from_ref(_: &Door) -> Self {
        Self { bytes: 64 << 10, ..Self::default() }
    }
}

/// Every route of the door.
pub fn router(admin: Arc<dyn Admin>, custody: Arc<dyn Custody>) -> Router {
    Router::new()
        .route("/admin/v1/agents", get(agents).post(add_agent))
        .route("/admin/v1/agents/{name}", delete(remove_agent))
        .route("/admin/v1/agents/{name}/suspend", post(suspend_agent))
        .route("/admin/v1/agents/{name}/resume", post(resume_agent))
        .route("/admin/v1/tools", get(async |State(Door(admin)): State<Door>| Json(admin.tools())))
        .route("/admin/v1/sandboxes", get(async |State(Door(admin)): State<Door>| Json(admin.sandboxes())))
        .route("/admin/v1/pools", get(async |State(Door(admin)): State<Door>| Json(admin.pools())))
        .route("/admin/v1/access/tools/{name}", get(who_can))
        .route("/admin/v1/access/agents/{name}", get(what_can))
        .route("/admin/v1/generation", get(async |State(Door(admin)): State<Door>| Json(admin.generation())))
        .fallback(async || CallError::UnknownPath)
        .method_not_allowed_fallback(async || CallError::MethodNotAllowed)
        .with_state(Door(admin))
        .merge(custody::routes(custody))
}

async fn agents(State(Door(admin)): State<Door>) -> Result<Json<Vec<AgentView>>, AdminError> {
    admin.agents().await.map(Json)
}

async fn add_agent(State(Door(admin)): State<Door>, JsonBody(body): JsonBody) -> Result<Response, AdminError> {
    // serde names the member at fault; there is no secret in this body that it could repeat.
    let agent = serde_json::from_value(body).map_err(|error| AdminError::Invalid(error.to_string()))?;
    let added = admin.add_agent(agent).await?;
    Ok((StatusCode::CREATED, Json(added)).into_response())
}

async fn remove_agent(State(Door(admin)): State<Door>, Path(name): Path<String>) -> Result<StatusCode, AdminError> {
    admin.remove_agent(&name).await.map(|()| StatusCode::NO_CONTENT)
}

async fn suspend_agent(State(Door(admin)): State<Door>, Path(name): Path<String>) -> Result<Json<AgentView>, AdminError> {
    admin.set_suspended(&name, true).await.map(Json)
}

async fn resume_agent(State(Door(admin)): State<Door>, Path(name): Path<String>) -> Result<Json<AgentView>, AdminError> {
    admin.set_suspended(&name, false).await.map(Json)
}

async fn who_can(State(Door(admin)): State<Door>, Path(name): Path<String>) -> Result<Json<AccessView>, AdminError> {
    admin.who_can(&name).await.map(Json)
}

async fn what_can(State(Door(admin)): State<Door>, Path(name): Path<String>) -> Result<Json<AccessView>, AdminError> {
    admin.what_can(&name).await.map(Json)
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
