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
use crate::store::{AgentRow, Store};

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

/// What is known of a key id.
#[derive(Debug)]
struct Registered {
    mac: [u8; 32],
    suspended: bool,
    caller: Arc<Caller>,
}

/// Knows every registered agent. A change is in the store first and counts for every request that comes after it.
#[derive(Debug)]
pub struct Authenticator {
    hasher: KeyHasher,
    store: Arc<Store>,
    by_key_id: ArcSwap<HashMap<String, Registered>>,
    /// One change at a time, so that what is swapped in is never older than what it replaces.
    changes: Mutex<()>,
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
        Ok(Self { hasher, store, by_key_id: ArcSwap::from_pointee(index(agents)), changes: Mutex::default() })
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
        let _turn = self.changes.lock().await;
        let key = AgentKey::generate()?;
        let row = AgentRow {
            key_id: key.id().to_owned(),
            name: name.to_owned(),
            user: user.map(str::to_owned),
            key_mac: self.hasher.mac(&key),
            created_at: OffsetDateTime::now_utc(),
            suspended: false,
        };
        self.store.add_agent(row).await?;
        self.reload().await?;
        Ok(key)
    }

    /// Removes an agent: its key is worth nothing from here on.
    ///
    /// # Errors
    /// [`AgentError::Store`], also when there is no such agent.
    pub async fn remove(&self, name: &str) -> Result<(), AgentError> {
        let _turn = self.changes.lock().await;
        self.store.remove_agent(name).await?;
        self.reload().await
    }

    /// Locks an agent out.
    ///
    /// # Errors
    /// [`AgentError::Store`], also when there is no such agent.
    pub async fn suspend(&self, name: &str) -> Result<(), AgentError> {
        let _turn = self.changes.lock().await;
        self.store.suspend_agent(name, true).await?;
        self.reload().await
    }

    /// Lets an agent in again.
    ///
    /// # Errors
    /// [`AgentError::Store`], also when there is no such agent.
    pub async fn resume(&self, name: &str) -> Result<(), AgentError> {
        let _turn = self.changes.lock().await;
        self.store.suspend_agent(name, false).await?;
        self.reload().await
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

    async fn reload(&self) -> Result<(), AgentError> {
        self.by_key_id.store(Arc::new(index(self.store.agents().await?)));
        Ok(())
    }
}

fn index(agents: Vec<AgentRow>) -> HashMap<String, Registered> {
    let registered = |agent: AgentRow| {
        let caller = Arc::new(Caller { agent_id: agent.name, user: agent.user, actors: Vec::new() });
        (agent.key_id, Registered { mac: agent.key_mac, suspended: agent.suspended, caller })
    };
    agents.into_iter().map(registered).collect()
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
