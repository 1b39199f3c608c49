//! The registered agents, and the check of what a request carries.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::keys::PresentedKey;
use super::{AgentError, AgentKey, Caller, KeyHasher};
use crate::error::CallError;
use crate::store::{AgentRow, Store, StoreError};

/// Compared with when nobody has the presented id, so that this takes as long as a wrong secret.
const NOBODY: [u8; 32] = [0; 32];

/// A registered agent, as operators see it: nothing of its key but the public part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// The user it acts for.
    pub user: Option<String>,
    /// The public part of its key.
    pub key_id: String,
    /// When it was registered.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether it is locked out.
    pub suspended: bool,
}

impl Agent {
    /// Who policy would be told about, if it called: for questions about what it may, not for a call.
    pub(crate) fn as_caller(&self) -> Caller {
        Caller { agent_id: self.name.clone(), user: self.user.clone(), actors: Vec::new() }
    }
}

/// What is known of a key id.
#[derive(Debug, Clone)]
struct Registered {
    mac: [u8; 32],
    suspended: bool,
    caller: Arc<Caller>,
}

/// Every registered agent by the public part of its key.
type Agents = HashMap<String, Registered>;

/// Knows every registered agent. A change is in the store first and counts for every request that comes after it; one that was
/// begun is carried out here too, also when whoever asked for it has gone.
#[derive(Debug)]
pub struct Authenticator {
    hasher: KeyHasher,
    store: Arc<Store>,
    by_key_id: Arc<ArcSwap<Agents>>,
    /// One change at a time, so that what is swapped in is never older than what it replaces.
    changes: Arc<Mutex<()>>,
}

impl Authenticator {
    /// Reads the installation's key from the data folder, or creates it for a store without agents, and loads the agents.
    ///
    /// # Errors
    /// [`AgentError::KeyFile`] when the key is missing although agents are registered, or cannot be used; [`AgentError::Store`].
    pub async fn open(dir: &Path, store: Arc<Store>) -> Result<Self, AgentError> {
        let agents = store.agents().await?;
        let hasher = match KeyHasher::load(dir)? {
            Some(hasher) => hasher,
            None if agents.is_empty() => KeyHasher::create(dir)?,
            None => {
                return Err(AgentError::KeyFile {
                    path: dir.to_owned(),
                    problem: format!(
                        "agent-key.hmac is missing, and without it no key of the {} registered agents can be checked; restore it from a backup",
                        agents.len()
                    ),
                });
            }
        };
        let by_key_id = Arc::new(ArcSwap::from_pointee(agents.into_iter().map(registered).collect()));
        Ok(Self { hasher, store, by_key_id, changes: Arc::default() })
    }

    /// The caller behind the value of an `Authorization` header. No I/O; takes the same time for a wrong secret and an unknown id.
    ///
    /// # Errors
    /// [`CallError::AgentSuspended`] to an agent that proved who it is; [`CallError::Unauthenticated`] for everything else that is wrong.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Arc<Caller>, CallError> {
        let key = authorization.and_then(bearer).and_then(PresentedKey::parse).ok_or(CallError::Unauthenticated)?;
        let agents = self.by_key_id.load();
        let registered = agents.get(key.id());
        let is_right = self.hasher.verify(&key, registered.map_or(&NOBODY, |r| &r.mac));
        match registered {
            Some(registered) if is_right && registered.suspended => Err(CallError::AgentSuspended),
            Some(registered) if is_right => Ok(registered.caller.clone()),
            _ => Err(CallError::Unauthenticated),
        }
    }

    /// Registers an agent and makes its key, which nobody can ask for again.
    ///
    /// # Errors
    /// [`AgentError`], with what is accepted.
    pub async fn add(&self, name: &str, user: Option<&str>) -> Result<AgentKey, AgentError> {
        check_name(name)?;
        user.map_or(Ok(()), check_user)?;
        let key = AgentKey::generate()?;
        let row = AgentRow {
            key_id: key.id().to_owned(),
            name: name.to_owned(),
            user: user.map(str::to_owned),
            key_mac: self.hasher.mac(&key),
            created_at: OffsetDateTime::now_utc(),
            suspended: false,
        };
        let (key_id, agent) = registered(row.clone());
        let store = self.store.clone();
        let write = async move { store.add_agent(row).await };
        self.change(write, move |agents| drop(agents.insert(key_id, agent))).await?;
        Ok(key)
    }

    /// Removes an agent: its key is worth nothing from here on, and nobody can have its name again.
    ///
    /// # Errors
    /// [`AgentError::Store`], also when there is no such agent.
    pub async fn remove(&self, name: &str) -> Result<(), AgentError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let gone = name.clone();
        let write = async move { store.remove_agent(&name).await };
        self.change(write, move |agents| agents.retain(|_, agent| agent.caller.agent_id != gone)).await
    }

    /// Locks an agent out.
    ///
    /// # Errors
    /// [`AgentError::Store`], also when there is no such agent.
    pub async fn suspend(&self, name: &str) -> Result<(), AgentError> {
        self.set_suspended(name, true).await
    }

    /// Lets an agent in again.
    ///
    /// # Errors
    /// [`AgentError::Store`], also when there is no such agent.
    pub async fn resume(&self, name: &str) -> Result<(), AgentError> {
        self.set_suspended(name, false).await
    }

    /// Every agent, by name.
    ///
    /// # Errors
    /// [`AgentError::Store`].
    pub async fn list(&self) -> Result<Vec<Agent>, AgentError> {
        let rows = self.store.agents().await?;
        let agent = |row: AgentRow| Agent {
            name: row.name,
            user: row.user,
            key_id: row.key_id,
            created_at: row.created_at,
            suspended: row.suspended,
        };
        Ok(rows.into_iter().map(agent).collect())
    }

    async fn set_suspended(&self, name: &str, suspended: bool) -> Result<(), AgentError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let changed = name.clone();
        let write = async move { store.suspend_agent(&name, suspended).await };
        let apply = move |agents: &mut Agents| {
            agents.values_mut().filter(|agent| agent.caller.agent_id == changed).for_each(|agent| agent.suspended = suspended);
        };
        self.change(write, apply).await
    }

    /// Carries out a change: in the store and, once that is acknowledged, here, where nothing can fail any more. On a task of
    /// its own: dropped between the two, a suspension would be recorded and not in force.
    async fn change(
        &self,
        write: impl Future<Output = Result<(), StoreError>> + Send + 'static,
        apply: impl FnOnce(&mut Agents) + Send + 'static,
    ) -> Result<(), AgentError> {
        let (by_key_id, changes) = (self.by_key_id.clone(), self.changes.clone());
        let task = tokio::spawn(async move {
            let _turn = changes.lock().await;
            write.await?;
            let mut agents = (**by_key_id.load()).clone();
            apply(&mut agents);
            by_key_id.store(Arc::new(agents));
            Ok::<(), StoreError>(())
        });
        // The task ends early only with the process.
        Ok(task.await.unwrap_or(Err(StoreError::Closed))?)
    }
}

fn registered(agent: AgentRow) -> (String, Registered) {
    let caller = Arc::new(Caller { agent_id: agent.name, user: agent.user, actors: Vec::new() });
    (agent.key_id, Registered { mac: agent.key_mac, suspended: agent.suspended, caller })
}

/// The token of a `Bearer` header (RFC 6750, section 2.1); the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// `[a-z0-9][a-z0-9._-]{0,62}`
fn check_name(name: &str) -> Result<(), AgentError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_name = name.len() <= 63
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
    is_name.then_some(()).ok_or_else(|| AgentError::Name(name.chars().take(80).collect()))
}

fn check_user(user: &str) -> Result<(), AgentError> {
    let is_user = (1..=256).contains(&user.chars().count()) && !user.chars().any(char::is_control);
    is_user.then_some(()).ok_or_else(|| AgentError::User(user.chars().take(80).collect()))
}

#[cfg(test)]
mod tests;
