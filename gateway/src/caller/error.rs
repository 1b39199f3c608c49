//! Why an agent could not be registered or changed.

use std::path::PathBuf;

use thiserror::Error;

use crate::store::StoreError;

/// Why an agent could not be registered or changed, or keys cannot be checked at all. Written for the operator.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The name is not one.
    #[error("{0:?} is no name for an agent; write 1 to 63 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit")]
    Name(String),
    /// The user is not one.
    #[error("{0:?} is no name for a user; write 1 to 256 characters, none of them a control character")]
    User(String),
    /// The file that keys are checked with cannot be used.
    #[error("{}: {problem}", .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(String),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
