//! The store: calls, sandboxes and agents, durable in one SQLite database. All SQL is in [`sqlite`].
//!
//! # Flow
//! Every write enters one bounded queue; one task takes all that wait and commits them as one transaction (see [`writer`]).
//! Reads have connections of their own and never wait for a write.
//!
//! # Guarantees
//! - What a method acknowledged with `Ok` is on the disk: it survives SIGKILL, and a power cut too with [`Durability::Full`].
//! - A call gets exactly one outcome, whoever tries.
//! - What a method refused with `Err` is not recorded, except that after [`StoreError::Database`] a failed disk may hold more than it said.
//! - Backpressure, never loss: a full queue makes callers wait. A failed commit fails those who wait for it, and the next one is tried.
//! - One process has a data folder at a time.
//!
//! # Assumptions
//! Dropping the future of a write does not undo it: once queued it is carried out, and only nobody hears of it.

mod error;
mod folder;
mod rows;
mod sqlite;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use mayfly_executor::error::LedgerError;
use mayfly_executor::{InstanceId, SandboxId, SandboxLedger, SandboxRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::call::{CallId, CallState};
use crate::error::CallError;

pub use error::StoreError;
pub use rows::{AgentRow, CallRow, Contacted, CredentialRow, Envelope, Intent, Outcome, SecretRow};
use sqlite::{Checkpointer, Reader, Settings};
use writer::{CredentialWrite, SecretWrite, Write, Writer};

/// Name of the database in the data folder.
const DATABASE: &str = "mayfly.db";

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A power cut: every commit waits for the disk.
    #[default]
    Full,
    /// The end of the process. A power cut may take the last moments with it, never the consistency.
    Relaxed,
}

/// The open store; shared as `Arc`.
#[derive(Debug)]
pub struct Store {
    instance: InstanceId,
    writer: Writer,
    reader: Reader,
}

impl Store {
    /// Opens the store in the folder `dir`, which is created with mode 0700 if need be, and brings it to this version's form.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it, [`StoreError::Folder`] and [`StoreError::Migration`] when it cannot be used.
    pub async fn open(dir: &Path, durability: Durability) -> Result<Arc<Self>, StoreError> {
        Self::open_with(dir, Settings { durability, max_pages: None }).await
    }

    async fn open_with(dir: &Path, settings: Settings) -> Result<Arc<Self>, StoreError> {
        let lock = folder::claim(dir)?;
        let path = dir.join(DATABASE);
        folder::make_private(&path)?;
        let (ledger, instance) = sqlite::Ledger::open(&path, settings).await?;
        folder::sync(dir)?;
        let reader = Reader::open(&path);
        let writer = Writer::spawn(ledger, Checkpointer::new(&path, settings), lock);
        Ok(Arc::new(Self { instance, writer, reader }))
    }

    /// The id of this installation: what it starts carries it, across restarts.
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Records a call as running, before anything of it is delivered. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was recorded, and nothing may be delivered.
    pub async fn commit(&self, intent: Intent) -> Result<(), StoreError> {
        self.writer.write(Write::Call(Box::new(intent), None)).await
    }

    /// Records a call that ended before it ran, with its outcome, at once.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was recorded.
    pub async fn refuse(&self, intent: Intent, outcome: Outcome) -> Result<(), StoreError> {
        self.writer.write(Write::Call(Box::new(intent), Some(Box::new(outcome)))).await
    }

    /// Records that the invocation is about to leave: from here on the tool may have run. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::NotOpen`] when the call has ended; otherwise nothing was recorded, and nothing may be delivered.
    pub async fn delivering(&self, call: CallId) -> Result<(), StoreError> {
        self.writer.write(Write::Delivering(call)).await
    }

    /// Records the one outcome of a call. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::NotOpen`] when the call has its outcome already: the first one stays.
    pub async fn settle(&self, outcome: Outcome) -> Result<(), StoreError> {
        let (call, state) = (outcome.call_id, outcome.state);
        let settled = self.writer.write(Write::Settle(Box::new(outcome))).await;
        if let Err(StoreError::NotOpen(_)) = &settled {
            tracing::error!(%call, state = state.as_str(), "a second outcome was refused; the first one stays");
        }
        settled
    }

    /// Ends every call that an earlier process left open as `interrupted`; it may have run if it was being delivered. For the
    /// start, before the first call.
    ///
    /// # Errors
    /// [`StoreError`]: some may still be open, and it can be repeated.
    pub async fn recover(&self) -> Result<Vec<CallId>, StoreError> {
        let now = OffsetDateTime::now_utc();
        let open = self.reader.open_calls().await?;
        let outcomes = open.iter().map(|call| {
            let error = CallError::Interrupted { may_have_run: call.delivered };
            self.settle(Outcome {
                call_id: call.call_id,
                state: CallState::Interrupted,
                is_error: true,
                result: None,
                problem: Some(error.face().slug.to_owned()),
                detail: Some("the gateway ended while the call was running".to_owned()),
                may_have_run: Some(call.delivered),
                exit: None,
                leaked: Vec::new(),
                contacted: Vec::new(),
                // No monotonic clock spans two processes; the wall clock may have been set back in between.
                duration_ms: (now - call.created_at).as_seconds_f64().max(0.0) * 1e3,
                finished_at: now,
            })
        });
        futures_util::future::try_join_all(outcomes).await?;
        Ok(open.into_iter().map(|call| call.call_id).collect())
    }

    /// One call, whoever's it is: ask [`CallRow::is_owned_by`] before showing it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn call(&self, call: CallId) -> Result<Option<CallRow>, StoreError> {
        self.reader.call(call).await
    }

    /// The calls of one owner, newest first by order of recording, at most `limit`; of one task if given. Tasks are scoped to
    /// their owner: the same task id of another agent or user is another task. What may be long is left out: `arguments` is
    /// empty and `result` is `None`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn calls(
        &self,
        agent_id: &str,
        user: Option<&str>,
        task_id: Option<&str>,
        limit: u32,
    ) -> Result<Vec<CallRow>, StoreError> {
        self.reader.calls(agent_id, user, task_id, limit).await
    }

    /// Registers an agent.
    ///
    /// # Errors
    /// [`StoreError::DuplicateAgent`] when the name is taken, [`StoreError::RemovedAgent`] when it was once.
    pub async fn add_agent(&self, agent: AgentRow) -> Result<(), StoreError> {
        let name = agent.name.clone();
        let added = self.writer.write(Write::AddAgent(Box::new(agent))).await;
        if matches!(added, Err(StoreError::DuplicateAgent(_))) && self.reader.was_removed(&name).await? {
            return Err(StoreError::RemovedAgent(name));
        }
        added
    }

    /// Removes an agent and wipes its key. Its calls stay, and so does its name: nobody can have it again.
    ///
    /// # Errors
    /// [`StoreError::UnknownAgent`].
    pub async fn remove_agent(&self, name: &str) -> Result<(), StoreError> {
        self.writer.write(Write::RemoveAgent { name: name.to_owned(), at: OffsetDateTime::now_utc() }).await
    }

    /// Locks an agent out, or lets it in again. Repeating it is no error.
    ///
    /// # Errors
    /// [`StoreError::UnknownAgent`].
    pub async fn suspend_agent(&self, name: &str, suspended: bool) -> Result<(), StoreError> {
        self.writer.write(Write::SuspendAgent { name: name.to_owned(), suspended }).await
    }

    /// Every agent that was not removed, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agents(&self) -> Result<Vec<AgentRow>, StoreError> {
        self.reader.agents().await
    }

    /// The vault's secrets, sealed, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn secrets(&self) -> Result<Vec<SecretRow>, StoreError> {
        self.reader.secrets().await
    }

    /// Writes a secret over what has its name.
    ///
    /// # Errors
    /// [`StoreError`]: what was there stays.
    pub async fn put_secret(&self, secret: SecretRow) -> Result<(), StoreError> {
        self.writer.write(Write::Secret(SecretWrite::Put(Box::new(secret)))).await
    }

    /// Removes a secret. Repeating it is no error.
    ///
    /// # Errors
    /// [`StoreError`]: it stays.
    pub async fn remove_secret(&self, name: &str) -> Result<(), StoreError> {
        self.writer.write(Write::Secret(SecretWrite::Remove(name.to_owned()))).await
    }

    /// Every credential that is not known to be gone, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn credentials(&self) -> Result<Vec<CredentialRow>, StoreError> {
        self.reader.credentials().await
    }

    /// Records a credential that is about to be minted. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was recorded, and nothing may be minted.
    pub async fn open_credential(&self, credential: CredentialRow) -> Result<(), StoreError> {
        self.writer.write(Write::Credential(CredentialWrite::Open(Box::new(credential)))).await
    }

    /// Records what a credential is revoked by.
    ///
    /// # Errors
    /// [`StoreError`]: only its expiry ends it, unless it is revoked now.
    pub async fn credential_handle(&self, id: Uuid, handle: &str) -> Result<(), StoreError> {
        self.writer.write(Write::Credential(CredentialWrite::Handle(id, handle.to_owned()))).await
    }

    /// Records that an attempt to revoke a credential failed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn credential_failed(&self, id: Uuid, error: &str) -> Result<(), StoreError> {
        self.writer.write(Write::Credential(CredentialWrite::Failed(id, error.to_owned()))).await
    }

    /// Records that a credential is gone. Repeating it is no error.
    ///
    /// # Errors
    /// [`StoreError`]: it will be revoked once more.
    pub async fn close_credential(&self, id: Uuid) -> Result<(), StoreError> {
        self.writer.write(Write::Credential(CredentialWrite::Close(id))).await
    }

    /// Carries out what is queued, closes the database and lets the folder go. Writes after it are refused as [`StoreError::Closed`].
    pub async fn close(&self) {
        // Readers first: the last connection to go has to be one that may tidy up the log.
        self.reader.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl SandboxLedger for Store {
    async fn opening(&self, row: &SandboxRow) -> Result<(), LedgerError> {
        Ok(self.writer.write(Write::OpenSandbox(row.clone())).await?)
    }

    async fn closed(&self, id: SandboxId) -> Result<(), LedgerError> {
        Ok(self.writer.write(Write::CloseSandbox(id)).await?)
    }

    async fn open_rows(&self) -> Result<Vec<SandboxRow>, LedgerError> {
        Ok(self.reader.sandboxes().await?)
    }
}

/// Nanoseconds since 1970, as the database has them. Ends in 2262.
fn to_nanos(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

fn from_nanos(nanos: i64) -> Result<OffsetDateTime, sqlx::Error> {
    OffsetDateTime::from_unix_timestamp_nanos(nanos.into()).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

fn system_time(nanos: i64) -> Result<SystemTime, sqlx::Error> {
    from_nanos(nanos).map(SystemTime::from)
}

#[cfg(test)]
mod tests;
