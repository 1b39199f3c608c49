//! Policy: asks Rego about one call and turns a yes into the [`Permit`] that the rest of the pipeline needs.
//!
//! Two engines, one face: folders of `.rego` run on regorus, OPA bundles with a `policy.wasm` on opa-wasm. Which of them answers
//! makes no difference to a decision. Whatever goes wrong in here is a no, and this room never does I/O while it decides.

mod builtins;
mod bundle;
mod decision;
mod explain;
mod fast;
mod findings;
mod fired;
mod input;
mod load;
mod obligations;
mod permit;
mod source;
mod syntax;
mod verdict;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use crate::caller::Caller;
use crate::catalog::definition::Tier;
use crate::catalog::{Arguments, Tool};

pub use decision::{Decision, Isolation, Obligations};
pub use explain::Explained;
pub use input::{PolicyInput, RESERVED_NAMES};
pub use load::{PolicyLoadError, Problem};
pub use permit::Permit;

use verdict::Answer;

/// How policy is loaded and asked.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// The package that is asked, dotted: `agent.authz`.
    pub package: String,
    /// IANA name of the zone in which `input.time`, `input.hour` and `input.weekday` are written.
    pub timezone: String,
    /// What `input.environment` says.
    pub environment: String,
    /// The longest that one evaluation may take.
    pub time_limit: Duration,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            package: "agent.authz".to_owned(),
            timezone: "UTC".to_owned(),
            environment: "development".to_owned(),
            time_limit: Duration::from_millis(100),
        }
    }
}

/// One loaded policy with its data: immutable, and asked from many tasks at once.
pub struct Policy {
    engine: Engine,
    clock: input::Clock,
    environment: String,
    digest: String,
    notes: Vec<Problem>,
}

enum Engine {
    Source(Box<source::SourcePolicy>),
    Bundle(Box<bundle::BundlePolicy>),
}

/// One call, as policy is asked about it.
pub struct Question {
    /// Whose call it is.
    pub caller: Arc<Caller>,
    /// What it is to run.
    pub tool: Arc<Tool>,
    /// With exactly which arguments.
    pub arguments: Arguments,
    /// The task it belongs to.
    pub task_id: Option<String>,
    /// When it is asked.
    pub now: OffsetDateTime,
}

/// What follows from a decision.
#[derive(Debug)]
pub enum Verdict {
    /// The call may run, under the permit's obligations.
    Permitted(Permit),
    /// Policy said no; the decision has the reasons.
    Denied,
    /// A human has to approve first.
    ApprovalDemanded,
    /// The decision allows, but demands this obligation, which is unknown, malformed or cannot be enforced for this tool.
    Unenforceable(String),
}

/// Policy could not decide, which is a no. For the operator's log: the text may quote values of the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It took longer than the configured time limit.
    #[error("policy evaluation was ended at its time limit of {} ms; raise `policy.time_limit` or simplify the policy", .0.as_millis())]
    TimeLimit(Duration),
    /// A rule failed: a builtin on a value it does not take, rules that contradict each other, a trap.
    #[error("policy evaluation failed: {0}")]
    Evaluation(String),
    /// The tool says to take `action` or `resource` from an argument that is not there or is not text.
    #[error("the tool takes `{0}` from an argument that is missing or is not a string")]
    Unclassified(&'static str),
    /// The time of the call has no representation in the configured zone.
    #[error("the time of the call cannot be written in the policy's time zone")]
    Clock,
}

impl Policy {
    /// Loads a folder of `.rego` files, or an OPA bundle (`.tar.gz`, or an unpacked one) that holds a `policy.wasm`.
    ///
    /// `data` is a JSON or YAML document whose top-level keys replace those of the policy's own data. Blocks for file I/O and
    /// compilation. On error every problem that could be found is listed, with file and line.
    pub fn load(path: &Path, data: Option<&Path>, settings: &PolicySettings) -> Result<Self, PolicyLoadError> {
        let clock = input::Clock::new(&settings.timezone)?;
        let contents = load::Contents::read(path, data)?;
        load::check_package(&settings.package)?;
        let digest = contents.digest();
        let (engine, notes) = if contents.wasm.is_some() {
            let (policy, notes) = bundle::BundlePolicy::load(contents, &settings.package, settings.time_limit)?;
            (Engine::Bundle(Box::new(policy)), notes)
        } else {
            let (policy, notes) = source::SourcePolicy::load(contents, &settings.package, settings.time_limit)?;
            (Engine::Source(Box::new(policy)), notes)
        };
        Ok(Self { engine, clock, environment: settings.environment.clone(), digest, notes })
    }

    /// Lower-case hex SHA-256 over names and contents of everything that was loaded.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What an operator should know of this policy although it loaded, with file and line where there is one.
    pub fn notes(&self) -> &[Problem] {
        &self.notes
    }

    /// Which engine answers, in words for an operator.
    pub fn engine(&self) -> &'static str {
        match &self.engine {
            Engine::Source(policy) if policy.is_compiled() => "regorus, compiled to bytecode",
            Engine::Source(_) => "regorus, interpreted",
            Engine::Bundle(_) => "opa-wasm",
        }
    }

    /// Decides about one call. The only source of a [`Permit`].
    pub fn authorize(&self, question: Question) -> Result<(Decision, Verdict), PolicyError> {
        let input = PolicyInput::of_call(&question, &self.clock, &self.environment)?;
        let answer = self.ask(&input)?;
        let mut decision = Decision::read(&answer);
        decision.approval |= question.tool.definition.tier == Tier::Supervised;
        if question.tool.definition.tier == Tier::Forbidden {
            decision.allow = false;
        }
        if !decision.allow {
            return Ok((decision, Verdict::Denied));
        }
        let definition = &question.tool.definition;
        match obligations::enforceable(answer.obligations.as_ref(), definition) {
            Err(key) => {
                decision.allow = false;
                Ok((decision, Verdict::Unenforceable(key)))
            }
            Ok(obligations) => {
                decision.obligations = obligations;
                if decision.approval {
                    return Ok((decision, Verdict::ApprovalDemanded));
                }
                let permit = Permit::granted(question, &decision);
                Ok((decision, Verdict::Permitted(permit)))
            }
        }
    }

    /// Which of `tools` this caller may see: one evaluation, whatever their number. Undefined shows all, an error none.
    pub fn visible<'a>(
        &self,
        caller: &Caller,
        now: OffsetDateTime,
        tools: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<&'a str> {
        match self.view(caller, now) {
            Ok(answer) => verdict::visible(answer.as_ref(), tools),
            Err(error) => {
                tracing::warn!(agent_id = caller.agent_id(), %error, "policy could not say which tools are visible, so none are");
                BTreeSet::new()
            }
        }
    }

    /// Whether the policy says anything about which tools this caller sees.
    pub fn says_what_sees(&self, caller: &Caller, now: OffsetDateTime) -> bool {
        !matches!(self.view(caller, now), Ok(None))
    }

    /// What `visible` is; `None` where it is undefined.
    fn view(&self, caller: &Caller, now: OffsetDateTime) -> Result<Option<Value>, PolicyError> {
        let input = || PolicyInput::of_view(caller, now, &self.clock, &self.environment);
        match &self.engine {
            Engine::Source(policy) if !policy.has_view() => Ok(None),
            Engine::Source(policy) => policy.visible(&input()?),
            Engine::Bundle(policy) => policy.visible(&input()?),
        }
    }

    fn ask(&self, input: &PolicyInput) -> Result<Answer, PolicyError> {
        match &self.engine {
            Engine::Source(policy) => policy.ask(input),
            Engine::Bundle(policy) => policy.ask(input),
        }
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("engine", &self.engine()).field("digest", &self.digest).finish_non_exhaustive()
    }
}
