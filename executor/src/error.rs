//! What can go wrong on the sandbox side, in words that the gateway can map to an outcome.
//!
//! A tool that fails is not an error: that is a [`Report`](crate::wire::Report). These are failures of ours or of
//! the engine. `Display` is written for the operator's log, never for an agent.

use thiserror::Error;

/// A sandbox could not be started. Nothing of the call ran.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The image or module is not there, or no longer has its digest.
    #[error("{source_name} is not there: {detail}")]
    SourceMissing {
        /// The module path or image reference.
        source_name: String,
        /// What was found instead and what to do.
        detail: String,
    },
    /// The image or module is there and cannot be run (does not compile, is no executor image).
    #[error("{source_name} cannot run: {detail}")]
    SourceInvalid {
        /// The module path or image reference.
        source_name: String,
        /// Why.
        detail: String,
    },
    /// The engine does not answer, or is not configured.
    #[error("the {backend} engine is unavailable: {detail}")]
    EngineUnavailable {
        /// Which backend.
        backend: crate::BackendKind,
        /// What the engine or the socket said.
        detail: String,
    },
    /// The backend has no room for another sandbox right now.
    #[error("the {backend} backend has no room for another sandbox")]
    Saturated {
        /// Which backend.
        backend: crate::BackendKind,
    },
    /// The engine has no room for another sandbox right now: a quota, or no node that takes it.
    #[error("the {backend} engine has no room for another sandbox: {detail}")]
    NoRoom {
        /// Which backend.
        backend: crate::BackendKind,
        /// Its message.
        detail: String,
    },
    /// The engine answered and refused.
    #[error("the {backend} engine refused the sandbox: {detail}")]
    Refused {
        /// Which backend.
        backend: crate::BackendKind,
        /// Its message.
        detail: String,
    },
    /// The sandbox could not be entered in the ledger, so it was not started.
    #[error("the sandbox could not be recorded before it was started")]
    NotRecorded(#[source] LedgerError),
    /// It did not come up in time.
    #[error("the sandbox did not start within {0:?}")]
    Timeout(std::time::Duration),
}

/// A started sandbox did not give a report.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// No byte of the invocation was written, or the sandbox provably did not accept it: it may be tried again.
    #[error("the invocation was not delivered: {0}")]
    NotDelivered(String),
    /// The sandbox went away after delivery. The tool may have run.
    #[error("the sandbox was lost after delivery: {0}")]
    Lost(String),
    /// The kernel killed the sandbox, executor included, for its memory.
    #[error("the sandbox was killed for its memory")]
    OutOfMemory,
    /// What came over the wire was not the protocol, or did not open under the call's key. The tool may have run.
    #[error("the sandbox broke the protocol: {0}")]
    Protocol(String),
    /// Nothing came within the deadline and its grace; the sandbox is being destroyed. The tool ran.
    #[error("the sandbox did not report within its deadline and grace")]
    Overdue,
}

impl RunError {
    /// Whether the tool may have had any effect.
    pub const fn may_have_run(&self) -> bool {
        !matches!(self, Self::NotDelivered(_))
    }
}

/// The engine could not list or destroy.
#[derive(Debug, Error)]
#[error("{backend}: {detail}")]
pub struct BackendError {
    /// Which backend.
    pub backend: crate::BackendKind,
    /// The engine's message.
    pub detail: String,
}

/// The ledger refused a sandbox row.
#[derive(Debug, Error)]
#[error("the ledger: {0}")]
pub struct LedgerError(pub String);
