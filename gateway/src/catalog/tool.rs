//! A tool that passed the check.

use mayfly_executor::spec::SandboxSpec;

use super::definition::Definition;

/// A loaded tool: its definition, what was derived from it, and whether it can run here.
#[derive(Debug)]
pub struct Tool {
    /// What its `tool.yaml` says.
    pub definition: Definition,
    /// Lower-case hex SHA-256 over the definition and the pinned artifact.
    pub digest: String,
    /// The sandbox it runs in, or why it cannot run here.
    pub spec: Result<SandboxSpec, Unavailable>,
}

/// Why a well-defined tool cannot run at the moment, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
