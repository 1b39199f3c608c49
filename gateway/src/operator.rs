//! What operators and monitoring see and do: the faces that the other two listeners ask for.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use dashmap::DashMap;
use futures_util::future::join_all;
use mayfly_executor::Dispatcher;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use time::OffsetDateTime;

use crate::caller::{Agent, AgentError};
use crate::catalog::Tool;
use crate::gateway::Gateway;
use crate::http::admin::access::{Access, AccessView};
use crate::http::admin::{
    Admin, AdminError, AgentRequest, AgentView, GenerationView, NewAgent, PoolView, SandboxCounts, ToolStatus,
};
use crate::http::observability::Vitals;
use crate::store::StoreError;

/// How long one tool may take to be made ready: a large module, compiled for the first time.
const PREPARING: Duration = Duration::from_secs(120);

/// The operator's view of a running gateway.
pub struct Operator {
    gateway: Arc<Gateway>,
    dispatcher: Arc<Dispatcher>,
    /// Digest of a tool -> why its sandbox could not be prepared.
    unprepared: DashMap<String, String>,
    /// Why the last reload was refused.
    refused: Mutex<Option<String>>,
}

impl Operator {
    /// An operator of `gateway`.
    pub fn new(gateway: Arc<Gateway>, dispatcher: Arc<Dispatcher>) -> Arc<Self> {
        Arc::new(Self { gateway, dispatcher, unprepared: DashMap::new(), refused: Mutex::default() })
    }

    /// Keeps why the last reload was refused; `None`: it was not.
    pub fn reloaded(&self, refused: Option<String>) {
        *self.refused.lock() = refused;
    }

    /// Makes every tool of the current generation ready, so that no first call finds out, and remembers which is not.
    pub async fn prepare(&self) {
        let generation = self.gateway.generation.load_full();
        let current: HashSet<_> = generation.catalog.iter().map(|tool| tool.digest.clone()).collect();
        self.unprepared.retain(|digest, _| current.contains(digest));
        // At once: nothing of a tool's old version may be claimed any more.
        self.dispatcher.keep_warm(generation.catalog.iter().filter_map(|tool| tool.warm()).collect());
        join_all(generation.catalog.iter().map(|tool| self.prepare_one(tool))).await;
    }

    async fn prepare_one(&self, tool: &Tool) {
        let problem = match &tool.spec {
            Err(why) => Some(why.to_string()),
            Ok(spec) => match tokio::time::timeout(PREPARING, self.dispatcher.prepare(spec)).await {
                Ok(prepared) => prepared.err().map(|error| error.to_string()),
                Err(_) => Some(format!("it was not ready within {} s", PREPARING.as_secs())),
            },
        };
        match problem {
            None => drop(self.unprepared.remove(&tool.digest)),
            Some(problem) => {
                tracing::warn!(tool = %tool.definition.name, %problem, "a tool cannot run; calls of it are answered with 503");
                self.unprepared.insert(tool.digest.clone(), problem);
            }
        }
    }

    fn status(&self, tool: &Tool) -> ToolStatus {
        let definition = &tool.definition;
        ToolStatus {
            name: definition.name.clone(),
            version: definition.version.clone(),
            tier: definition.tier,
            backend: definition.executor.backend,
            unavailable: self.unprepared.get(&tool.digest).map(|problem| problem.clone()),
        }
    }

    async fn find(&self, name: &str) -> Result<AgentView, AdminError> {
        let agents = self.gateway.callers.list().await?;
        agents.into_iter().find(|agent| agent.name == name).map(view).ok_or_else(|| AdminError::UnknownAgent(name.to_owned()))
    }
}

fn view(agent: Agent) -> AgentView {
    AgentView { name: agent.name, user: agent.user, suspended: agent.suspended, created_at: agent.created_at }
}

impl From<AgentError> for AdminError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Name(_) | AgentError::User(_) => Self::Invalid(error.to_string()),
            AgentError::Store(StoreError::DuplicateAgent(name)) => Self::AgentExists(name),
            AgentError::Store(StoreError::RemovedAgent(name)) => Self::AgentRemoved(name),
            AgentError::Store(StoreError::UnknownAgent(name)) => Self::UnknownAgent(name),
            other => Self::Store(other.to_string()),
        }
    }
}

#[async_trait]
impl Admin for Operator {
    async fn add_agent(&self, agent: AgentRequest) -> Result<NewAgent, AdminError> {
        let key = self.gateway.callers.add(&agent.name, agent.user.as_deref()).await?;
        Ok(NewAgent { agent: self.find(&agent.name).await?, key: key.secret().expose_secret().to_owned() })
    }

    async fn agents(&self) -> Result<Vec<AgentView>, AdminError> {
        Ok(self.gateway.callers.list().await?.into_iter().map(view).collect())
    }

    async fn remove_agent(&self, name: &str) -> Result<(), AdminError> {
        Ok(self.gateway.callers.remove(name).await?)
    }

    async fn set_suspended(&self, name: &str, suspended: bool) -> Result<AgentView, AdminError> {
        let callers = &self.gateway.callers;
        if suspended {
            callers.suspend(name).await?
        } else {
            callers.resume(name).await?
        }
        self.find(name).await
    }

    fn tools(&self) -> Vec<ToolStatus> {
        self.gateway.generation.load().catalog.iter().map(|tool| self.status(tool)).collect()
    }

    fn sandboxes(&self) -> Vec<SandboxCounts> {
        let counts = self.dispatcher.backends().map(|(backend, counts)| SandboxCounts {
            backend: backend.kind(),
            started: counts.started.load(Ordering::Acquire),
            destroyed: counts.destroyed.load(Ordering::Acquire),
            orphans: counts.orphans.load(Ordering::Acquire),
        });
        counts.collect()
    }

    fn pools(&self) -> Vec<PoolView> {
        self.dispatcher.pools().into_iter().map(PoolView::from).collect()
    }

    async fn who_can(&self, name: &str) -> Result<AccessView, AdminError> {
        let generation = self.gateway.generation.load_full();
        let tool = generation.catalog.get(name).ok_or_else(|| AdminError::UnknownTool(name.to_owned()))?;
        let agents = self.gateway.callers.list().await?;
        let sees = |agent: &&Agent| generation.sees(&agent.as_caller(), tool);
        let access = agents.iter().filter(sees).map(|agent| Access::new(agent, tool)).collect();
        let decided = agents.iter().all(|agent| generation.policy.says_what_sees(&agent.as_caller(), OffsetDateTime::now_utc()));
        Ok(AccessView { generation: generation.digest.clone(), decided, access })
    }

    async fn what_can(&self, name: &str) -> Result<AccessView, AdminError> {
        let generation = self.gateway.generation.load_full();
        let agents = self.gateway.callers.list().await?;
        let agent = agents.iter().find(|agent| agent.name == name).ok_or_else(|| AdminError::UnknownAgent(name.to_owned()))?;
        let caller = agent.as_caller();
        let tools = generation.catalog.iter().filter(|tool| generation.sees(&caller, tool));
        let access = tools.map(|tool| Access::new(agent, tool)).collect();
        let decided = generation.policy.says_what_sees(&caller, OffsetDateTime::now_utc());
        Ok(AccessView { generation: generation.digest.clone(), decided, access })
    }

    fn generation(&self) -> GenerationView {
        let generation = self.gateway.generation.load();
        let refused = self.refused.lock().clone();
        GenerationView { digest: generation.digest.clone(), loaded_at: generation.loaded_at, refused }
    }
}

impl Vitals for Operator {
    fn metrics(&self) -> String {
        self.gateway.telemetry.metrics().scrape(&self.dispatcher)
    }

    fn ready(&self) -> Result<(), String> {
        if self.gateway.tasks.is_closed() { Err("shutting down".into()) } else { Ok(()) }
    }
}
