//! The proof that a call is authorized.

use std::sync::Arc;

use crate::caller::Caller;
use crate::catalog::{Arguments, Tool};
use crate::policy::Obligations;

/// Owns everything that was decided on: caller, tool, arguments, obligations. Only policy makes one (its fields are
/// private to this folder); it is neither `Clone` nor serializable, so it can be spent once and never stored. The runner consumes it.
#[derive(Debug)]
pub struct Permit {
    pub(super) caller: Arc<Caller>,
    pub(super) tool: Arc<Tool>,
    pub(super) arguments: Arguments,
    pub(super) obligations: Obligations,
}

impl Permit {
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

    /// Under which obligations.
    pub const fn obligations(&self) -> &Obligations {
        &self.obligations
    }
}
