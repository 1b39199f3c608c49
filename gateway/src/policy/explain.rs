//! `policy eval`: one raw input, and everything policy has to say about it.

use serde::Serialize;
use serde_json::Value;

use super::decision::Decision;
use super::{Engine, Policy, PolicyError, PolicyInput, fired, obligations};

/// A decision taken apart. Nothing can be run with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// Whether a call with this input would be allowed, before the tool's own limits are looked at.
    pub allow: bool,
    /// Whether `deny` says anything.
    pub deny: bool,
    /// The strings of `deny`, sorted.
    pub reasons: Vec<String>,
    /// Whether a human would have to approve.
    pub approval: bool,
    /// What is demanded on top, as policy wrote it; `null` where it demands nothing.
    pub obligations: Value,
    /// The obligation that is unknown or malformed, which is a denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unenforceable: Option<String>,
    /// `file:line: rule` of what fired; absent for bundles, which do not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fired: Option<Vec<String>>,
}

impl Policy {
    /// Evaluates a raw input, taken as it is. Slow where it names the rules that fired: not for serving.
    pub fn explain(&self, input: Value) -> Result<Explained, PolicyError> {
        let input = PolicyInput(input);
        let answer = self.ask(&input)?;
        let decision = Decision::read(&answer);
        let unenforceable = obligations::read(answer.obligations.as_ref()).err();
        let fired = match &self.engine {
            Engine::Source(policy) => Some(fired::fired(policy, &regorus::Value::from(input.0))),
            Engine::Bundle(_) => None,
        };
        Ok(Explained {
            allow: decision.allow && unenforceable.is_none(),
            deny: answer.denies(),
            reasons: decision.reasons,
            approval: decision.approval,
            obligations: answer.obligations.unwrap_or_default(),
            unenforceable,
            fired,
        })
    }
}
