//! An administration in memory, for tests of the door and of its client.

use super::custody::{CredentialView, MasterKeyView, SecretView};
use super::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use time::macros::datetime;

/// Agents live in a map; their keys are their names.
#[derive(Default)]
pub(crate) struct InMemory {
    agents: Mutex<BTreeMap<String, AgentView>>,
    removed: Mutex<BTreeSet<String>>,
    pub(crate) secrets: Mutex<BTreeMap<String, Vec<u8>>>,
}

#[async_trait]
impl Custody for InMemory {
    async fn set_secret(&self, name: &str, value: &[u8]) -> Result<SecretView, AdminError> {
        let at = datetime!(2026-01-02 03:04:05 UTC);
        self.secrets.lock().insert(name.to_owned(), value.to_vec());
        Ok(SecretView { name: name.to_owned(), version: 1, created_at: at, updated_at: at })
    }

    fn secrets(&self) -> Vec<SecretView> {
        let at = datetime!(2026-01-02 03:04:05 UTC);
        let view = |name: &String| SecretView { name: name.clone(), version: 1, created_at: at, updated_at: at };
        self.secrets.lock().keys().map(view).collect()
    }

    async fn remove_secret(&self, name: &str) -> Result<(), AdminError> {
        self.secrets.lock().remove(name).map(|_| ()).ok_or_else(|| AdminError::UnknownSecret(name.into()))
    }

    async fn rotate_master_key(&self) -> Result<MasterKeyView, AdminError> {
        Ok(MasterKeyView { key_id: "0123456789abcdef".into() })
    }

    async fn credentials(&self, _: bool) -> Result<Vec<CredentialView>, AdminError> {
        Ok(Vec::new())
    }

    async fn forget_credential(&self, id: Uuid) -> Result<(), AdminError> {
        Err(AdminError::UnknownCredential(id))
    }
}

#[async_trait]
impl Admin for InMemory {
    async fn add_agent(&self, agent: AgentRequest) -> Result<NewAgent, AdminError> {
        if agent.name.is_empty() {
            return Err(AdminError::Invalid("a name is needed".into()));
        }
        if self.removed.lock().contains(&agent.name) {
            return Err(AdminError::AgentRemoved(agent.name));
        }
        let view = AgentView {
            name: agent.name.clone(),
            user: agent.user,
            suspended: false,
            created_at: datetime!(2026-01-02 03:04:05 UTC),
        };
        let mut agents = self.agents.lock();
        if agents.contains_key(&agent.name) {
            return Err(AdminError::AgentExists(agent.name));
        }
        agents.insert(agent.name.clone(), view.clone());
        Ok(NewAgent { agent: view, key: format!("mf_{}", agent.name) })
    }

    async fn agents(&self) -> Result<Vec<AgentView>, AdminError> {
        Ok(self.agents.lock().values().cloned().collect())
    }

    async fn remove_agent(&self, name: &str) -> Result<(), AdminError> {
        self.agents.lock().remove(name).ok_or_else(|| AdminError::UnknownAgent(name.into()))?;
        self.removed.lock().insert(name.to_owned());
        Ok(())
    }

    async fn set_suspended(&self, name: &str, suspended: bool) -> Result<AgentView, AdminError> {
        let mut agents = self.agents.lock();
        let agent = agents.get_mut(name).ok_or_else(|| AdminError::UnknownAgent(name.into()))?;
        agent.suspended = suspended;
        Ok(agent.clone())
    }

    fn tools(&self) -> Vec<ToolStatus> {
        let tool = |name: &str, backend, unavailable: Option<&str>| ToolStatus {
            name: name.into(),
            version: "1.0.0".into(),
            tier: Tier::Free,
            backend,
            unavailable: unavailable.map(str::to_owned),
        };
        vec![tool("git_log", BackendKind::Docker, Some("Docker does not answer")), tool("http_probe", BackendKind::Wasm, None)]
    }

    fn sandboxes(&self) -> Vec<SandboxCounts> {
        vec![SandboxCounts { backend: BackendKind::Wasm, started: 2, destroyed: 2, orphans: 0 }]
    }

    fn pools(&self) -> Vec<PoolView> {
        vec![PoolView {
            tool: "git_log".into(),
            backend: BackendKind::Docker,
            size: 3,
            idle: 2,
            starting: 1,
            claims: 40,
            misses: 2,
            lost: 1,
            oldest_seconds: Some(71.2),
            start_p50_ms: Some(183.4),
            start_max_ms: Some(421.0),
            failure: None,
        }]
    }

    async fn who_can(&self, tool: &str) -> Result<AccessView, AdminError> {
        Err(AdminError::UnknownTool(tool.to_owned()))
    }

    async fn what_can(&self, agent: &str) -> Result<AccessView, AdminError> {
        Err(AdminError::UnknownAgent(agent.to_owned()))
    }

    fn generation(&self) -> GenerationView {
        GenerationView { digest: "d".into(), loaded_at: datetime!(2026-01-02 03:04:05 UTC), refused: None }
    }
}
