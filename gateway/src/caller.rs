//! Who is calling. The doors hand in what the request carried; what comes out is a [`Caller`] or nothing.
//!
//! One seam: [`Authenticator::authenticate`]. Tokens, delegation and client certificates are further ways to the same `Caller`.

mod authenticator;
mod error;
mod keys;

pub use authenticator::{Agent, Authenticator};
pub use error::AgentError;
pub use keys::{AgentKey, KeyHasher};

/// The authenticated party. Only this module makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    agent_id: String,
    user: Option<String>,
    actors: Vec<String>,
}

impl Caller {
    /// The agent's registered name.
    pub fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// The user the agent acts for.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The delegation chain between user and agent, outermost first.
    pub fn actors(&self) -> &[String] {
        &self.actors
    }

    /// Whether a call of `agent_id` for `user` is this caller's own.
    pub fn owns(&self, agent_id: &str, user: Option<&str>) -> bool {
        self.agent_id == agent_id && self.user() == user
    }
}

#[cfg(test)]
impl Caller {
    /// A caller that no key stands behind, for tests of what comes after authentication.
    pub(crate) fn fixture(agent_id: &str) -> Self {
        Self { agent_id: agent_id.to_owned(), user: None, actors: Vec::new() }
    }

    /// One that acts for a user, through others.
    pub(crate) fn delegate(agent_id: &str, user: &str, actors: &[&str]) -> Self {
        let actors = actors.iter().map(|actor| (*actor).to_owned()).collect();
        Self { agent_id: agent_id.to_owned(), user: Some(user.to_owned()), actors }
    }
}
