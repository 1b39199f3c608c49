//! Who may call what, as far as policy can say it before there are arguments.

use serde::{Deserialize, Serialize};

use crate::catalog::Tool;
use crate::catalog::definition::Tier;

/// Pairs of agents and tools. A pair that is missing here is refused whatever the arguments; one that is here is decided with each
/// call's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessView {
    /// The digest of the tools, rules and grants that were asked.
    pub generation: String,
    /// Whether the policy says who sees what (`visible`). Where it does not, every agent is listed with every tool, and only each
    /// call's decision tells.
    pub decided: bool,
    /// The pairs.
    pub access: Vec<Access>,
}

/// An agent that may ask for a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The agent.
    pub agent: String,
    /// The user it acts for.
    pub user: Option<String>,
    /// Whether it is refused at the door all the same.
    pub suspended: bool,
    /// The tool.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// Its tier.
    pub tier: Tier,
    /// The sources of the credentials that its calls are given.
    pub credentials: Vec<String>,
    /// Where its calls may connect to.
    pub network: Vec<String>,
}

impl Access {
    /// Of an agent to a tool.
    pub fn new(agent: &crate::caller::Agent, tool: &Tool) -> Self {
        let definition = &tool.definition;
        let mut credentials: Vec<_> = definition.credentials.iter().map(|one| one.source.clone()).collect();
        credentials.sort();
        credentials.dedup();
        Self {
            agent: agent.name.clone(),
            user: agent.user.clone(),
            suspended: agent.suspended,
            tool: definition.name.clone(),
            version: definition.version.clone(),
            tier: definition.tier,
            credentials,
            network: definition.executor.network.iter().map(ToString::to_string).collect(),
        }
    }
}
