//! Why the store did not do what it was asked.

use std::path::PathBuf;
use std::sync::Arc;

use mayfly_executor::error::LedgerError;
use thiserror::Error;

use crate::call::CallId;
use crate::error::CallError;

/// Why the store did not do what it was asked. Written for the operator. `Clone`, since one failed commit fails everyone in it.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data folder cannot be used.
    #[error("the data folder {}: {problem}", .path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Another process has the data folder open.
    #[error("another gateway has the data folder {}{}; stop it, or give this one a folder of its own", .path.display(), .pid.map(|p| format!(" (process {p})")).unwrap_or_default())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who, if it says so.
        pid: Option<u32>,
    },
    /// The database is not one this version can use.
    #[error("the database cannot be brought to this version's form: {0}")]
    Migration(#[source] Arc<sqlx::migrate::MigrateError>),
    /// The disk is full: nothing of this write was recorded.
    #[error("the disk that holds the store is full; make room, the gateway goes on by itself")]
    Full,
    /// The call has its outcome already, or was never recorded.
    #[error("call {0} is not open: it has its outcome, or it was never recorded")]
    NotOpen(CallId),
    /// The call is recorded already.
    #[error("call {0} is recorded already")]
    DuplicateCall(CallId),
    /// The name is taken.
    #[error("there is an agent `{0}` already; choose another name")]
    DuplicateAgent(String),
    /// The name was that of an agent whose calls are on record: whoever had it next would own them.
    #[error("agent `{0}` was removed; its calls are still on record under that name; choose another name")]
    RemovedAgent(String),
    /// There is no such agent.
    #[error("there is no agent `{0}`; `mayfly agent list` shows those there are")]
    UnknownAgent(String),
    /// A row would break a rule of the ledger.
    #[error("the row does not fit the ledger: {0}")]
    Unfit(#[source] Arc<sqlx::Error>),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[source] Arc<sqlx::Error>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// SQLite's primary result code for a full disk (<https://www.sqlite.org/rescode.html#full>).
const SQLITE_FULL: &str = "13";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(|e| e.code()) {
            Some(code) if code == SQLITE_FULL => Self::Full,
            _ => Self::Database(Arc::new(error)),
        }
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// What an agent is told; whoever converts logs the store's own words first.
impl From<StoreError> for CallError {
    fn from(_: StoreError) -> Self {
        Self::LedgerUnavailable
    }
}
