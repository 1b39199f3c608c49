//! The proof that a call is authorized.

use std::sync::Arc;

use uuid::Uuid;

use crate::caller::Caller;
use crate::catalog::{Arguments, Tool};
use crate::policy::{Decision, Obligations, Question};

/// Owns everything that was decided on: caller, tool, arguments, obligations. Only policy makes one (its constructor and its
/// fields are private to this folder); it is neither `Clone` nor serializable, so it can be spent once and never stored. The
/// runner consumes it.
///
/// ```compile_fail
/// fn twice(permit: mayfly_gateway::policy::Permit) -> (mayfly_gateway::policy::Permit, mayfly_gateway::policy::Permit) {
///     (permit.clone(), permit)
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    pub(super) caller: Arc<Caller>,
    pub(super) tool: Arc<Tool>,
    pub(super) arguments: Arguments,
    pub(super) obligations: Obligations,
    pub(super) decision_id: Uuid,
}

impl Permit {
    /// For a decision that allows, demands no approval and whose obligations hold.
    pub(super) fn granted(question: Question, decision: &Decision) -> Self {
        Self {
            caller: question.caller,
            tool: question.tool,
            arguments: question.arguments,
            obligations: decision.obligations.clone(),
            decision_id: decision.id,
        }
    }

    /// Whose call it is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What it may run.
    pub fn tool(&self) -> &Arc<Tool> {
        &self.tool
    }

    /// With exactly which arguments.
    pub const fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    /// Takes it apart, and ends it: what is done with the parts is done once.
    pub fn spend(self) -> (Arc<Tool>, Arguments, Obligations) {
        (self.tool, self.arguments, self.obligations)
    }

    /// Under which obligations, already narrowed to the tool's own limits.
    pub const fn obligations(&self) -> &Obligations {
        &self.obligations
    }

    /// The decision it was made from.
    pub const fn decision_id(&self) -> Uuid {
        self.decision_id
    }
}
