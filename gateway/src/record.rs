//! What is known of one call, gathered step by step, and written out four ways: intent, outcome, log line, view.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use mayfly_executor::egress::{Contact, Wall};
use mayfly_executor::spec::{Destination, SandboxSpec, Source};
use mayfly_executor::wire;

use crate::call::{CallRequest, CallState, CallView};
use crate::catalog::{Arguments, Tool};
use crate::credentials;
use crate::error::CallError;
use crate::generation::{Absence, Generation};
use crate::inspect::Inspected;
use crate::live::LiveCall;
use crate::policy::{Decision, Permit};
use crate::redact::Redactor;
use crate::store::{Contacted, Intent, Outcome};
use crate::telemetry::log::{CallLine, Output, OutputKind};
use crate::telemetry::{Telemetry, names};

/// The name under which refusals are counted that have no row of their own.
const OTHERS: &str = "*";

/// The record of one call in the making.
pub struct Record {
    arrived: Instant,
    intent: Intent,
    /// The tool, once it is resolved.
    pub tool: Option<Arc<Tool>>,
    /// The arguments, once they are valid.
    pub arguments: Option<Arguments>,
    /// What policy said.
    pub decision: Option<Decision>,
    hidden: bool,
    committed: bool,
    leaked: Vec<String>,
    contacted: Vec<Contacted>,
}

impl Record {
    /// Starts with what the request says.
    pub fn new(call: &LiveCall, request: &CallRequest, arrived: Instant) -> Self {
        call.trace.set(names::GEN_AI_OPERATION_NAME, names::span::EXECUTE_TOOL);
        call.trace.set(names::GEN_AI_TOOL_CALL_ID, call.id.to_string());
        call.trace.set(names::GEN_AI_AGENT_ID, call.caller.agent_id().to_owned());
        for (name, value) in [(names::USER_ID, call.caller.user()), (names::TASK_ID, request.task_id.as_deref())] {
            if let Some(value) = value {
                call.trace.set(name, wire::clip(value).to_owned());
            }
        }
        let intent = Intent {
            call_id: call.id,
            agent_id: call.caller.agent_id().to_owned(),
            user: call.caller.user().map(str::to_owned),
            task_id: request.task_id.clone(),
            tool: request.tool.clone(),
            version: request.version.clone().unwrap_or_default(),
            tier: None,
            tool_digest: None,
            generation: None,
            decision_id: None,
            trace_id: call.trace.trace_id(),
            arguments: String::new(),
            arguments_sha256: String::new(),
            reason: request.reason.clone(),
            created_at: call.view().created_at,
            delivered: false,
            credentials: Vec::new(),
        };
        Self {
            arrived,
            intent,
            tool: None,
            arguments: None,
            decision: None,
            hidden: false,
            committed: false,
            leaked: Vec::new(),
            contacted: Vec::new(),
        }
    }

    /// Under which generation it is decided.
    pub fn generation(&mut self, call: &LiveCall, generation: &Generation) {
        self.intent.generation = Some(generation.digest.clone());
        call.trace.set(names::GENERATION, generation.digest.clone());
    }

    /// Keeps the true reason of an absence and gives back the error to show.
    pub fn hidden(&mut self, (shown, absence): (CallError, Option<Absence>)) -> CallError {
        self.hidden = absence == Some(Absence::Hidden);
        shown
    }

    /// Which tool it is for.
    pub fn tool(&mut self, call: &LiveCall, tool: &Arc<Tool>) {
        let definition = &tool.definition;
        self.intent.version.clone_from(&definition.version);
        self.intent.tier = Some(definition.tier);
        self.intent.tool_digest = Some(tool.digest.clone());
        self.tool = Some(tool.clone());
        call.amend(|view| view.version.clone_from(&definition.version));
        call.trace.rename(names::span::execute_tool(&definition.name));
        call.trace.set(names::GEN_AI_TOOL_NAME, definition.name.clone());
        call.trace.set(names::TOOL_VERSION, definition.version.clone());
        call.trace.set(names::TOOL_TIER, definition.tier.as_str());
        call.trace.set(names::TOOL_DIGEST, tool.digest.clone());
        if let Ok(SandboxSpec { source: Source::Module { sha256: digest, .. } | Source::Image(digest), .. }) = &tool.spec {
            call.trace.set(names::IMAGE_DIGEST, digest.clone());
        }
    }

    /// With which arguments: the redacted form, and the digest of the one value that everybody sees.
    pub fn arguments(&mut self, call: &LiveCall, tool: &Tool, arguments: &Arguments) {
        self.arguments = Some(arguments.clone());
        self.intent.arguments = arguments.redacted.to_string();
        self.intent.arguments_sha256 = hex::encode(Sha256::digest(&arguments.bytes));
        for (name, class) in [(names::ACTION, tool.action(arguments)), (names::RESOURCE, tool.resource(arguments))] {
            if let Ok(class) = class {
                call.trace.set(name, class.to_owned());
            }
        }
        call.trace.set(names::GEN_AI_TOOL_CALL_ARGUMENTS, wire::clip(&self.intent.arguments).to_owned());
    }

    /// What policy said.
    pub fn decision(&mut self, call: &LiveCall, decision: &Decision) {
        let id = decision.id.to_string();
        call.amend(|view| view.decision_id = Some(id.clone()));
        call.trace.set(names::DECISION_ID, id.clone());
        call.trace.set(names::DECISION_ALLOW, decision.allow);
        if !decision.reasons.is_empty() {
            call.trace.set(names::DECISION_REASONS, decision.reasons.join("; "));
        }
        self.intent.decision_id = Some(id);
        self.decision = Some(decision.clone());
    }

    /// Which credentials it is given: the names of their sources.
    pub fn credentials(&mut self, call: &LiveCall, permit: &Permit) {
        let granted = credentials::granted(permit.tool(), permit.obligations());
        let names: BTreeSet<_> = granted.map(|one| one.source.clone()).collect();
        self.intent.credentials = names.into_iter().collect();
        if !self.intent.credentials.is_empty() {
            call.trace.set(names::CREDENTIALS, self.intent.credentials.join(", "));
        }
    }

    /// What it connected to, and what it asked for. A tool chose the names of the latter.
    pub fn contacted(&mut self, call: &LiveCall, redactor: &Redactor, wall: &Wall) {
        let row = |Contact { destination, addresses, connections, refused, sent, received }| {
            let destination = redactor.text(Destination::to_string(&destination));
            Contacted { destination, addresses, connections, refused, sent, received }
        };
        self.contacted = wall.contacts().into_iter().map(row).collect();
        let others = wall.others_refused();
        if others > 0 {
            self.contacted.push(Contacted { destination: OTHERS.to_owned(), refused: others, ..Contacted::default() });
        }
        let reached: Vec<_> =
            self.contacted.iter().filter(|one| one.connections > 0).map(|one| one.destination.as_str()).collect();
        if !reached.is_empty() {
            call.trace.set(names::CONTACTED, wire::clip(&reached.join(", ")).to_owned());
        }
    }

    /// Which of them stood in what the tool wrote.
    pub fn leaked(&mut self, call: &LiveCall, sources: Vec<String>) {
        if !sources.is_empty() {
            tracing::error!(call_id = %call.id, tool = %self.intent.tool, ?sources, "a tool wrote a credential of its call; it was redacted");
            call.trace.set(names::CREDENTIALS_LEAKED, sources.join(", "));
        }
        self.leaked = sources;
    }

    /// The row to commit. `delivered` says that commit and delivery are one moment (in-process sandboxes).
    pub fn intent(&self, delivered: bool) -> Intent {
        Intent { delivered, ..self.intent.clone() }
    }

    /// The intent is durable.
    pub const fn committed(&mut self) {
        self.committed = true;
    }

    /// Whether the intent is durable.
    pub const fn is_committed(&self) -> bool {
        self.committed
    }

    /// The true status: a hidden tool counts as refused, whatever the wire showed.
    pub fn true_status(&self, end: &Result<Inspected, CallError>) -> u16 {
        match end {
            _ if self.hidden => 403,
            Ok(_) => 200,
            Err(error) => error.face().status,
        }
    }

    /// From arrival until now.
    pub fn elapsed(&self) -> Duration {
        self.arrived.elapsed()
    }

    /// The one outcome.
    pub fn outcome(&self, call: &LiveCall, end: &Result<Inspected, CallError>) -> Outcome {
        let problem = end.as_ref().err().map(|error| error.face().slug.to_owned());
        let may_have_run = match end {
            Ok(inspected) => inspected.may_have_run,
            Err(CallError::TimedOut(_) | CallError::OutputRejected(_)) => true,
            Err(CallError::Canceled { may_have_run } | CallError::Interrupted { may_have_run }) => *may_have_run,
            Err(_) => false,
        };
        Outcome {
            call_id: call.id,
            state: outcome_state(end),
            is_error: !matches!(end, Ok(inspected) if !inspected.is_error),
            result: end.as_ref().ok().map(|inspected| inspected.result.to_string()),
            problem,
            detail: self.detail(end),
            may_have_run: Some(may_have_run),
            exit: end.as_ref().ok().map(|inspected| inspected.exit.clone()),
            leaked: self.leaked.clone(),
            contacted: self.contacted.clone(),
            duration_ms: self.elapsed().as_secs_f64() * 1e3,
            finished_at: OffsetDateTime::now_utc(),
        }
    }

    /// The true reason, also of what is shown as something else.
    fn detail(&self, end: &Result<Inspected, CallError>) -> Option<String> {
        let error = match end {
            Ok(inspected) => return inspected.detail.clone(),
            Err(error) => error,
        };
        let absence = if self.hidden { " (it exists, and is hidden from this caller)" } else { "" };
        let reasons = match error {
            CallError::Denied { reasons } if reasons.len() > 1 => format!("; also: {}", reasons[1..].join("; ")),
            CallError::InvalidArguments { violations, .. } => {
                violations.iter().map(|v| format!("; {}: {}", v.pointer, v.detail)).collect()
            }
            _ => String::new(),
        };
        Some(format!("{error}{absence}{reasons}"))
    }

    /// Ends the trace, counts the call, writes its line.
    pub fn publish(&self, call: &LiveCall, telemetry: &Telemetry, end: &Result<Inspected, CallError>) {
        let took = self.elapsed();
        let state = outcome_state(end);
        call.trace.set(names::OUTCOME, state.as_str());
        if let Ok(Inspected { exit, detail: Some(detail), .. }) = end {
            tracing::warn!(call_id = %call.id, tool = %self.intent.tool, %exit, %detail, "a tool failed");
        }
        if let Ok(inspected) = end {
            call.trace.set(names::EXIT, inspected.exit.clone());
            call.trace.set(names::OUTPUT_TYPE, if inspected.result.is_string() { "text" } else { "json" });
            call.trace.set(names::OUTPUT_BYTES, i64::try_from(inspected.output_bytes).unwrap_or(i64::MAX));
        }
        self.leaked.iter().for_each(|source| telemetry.metrics().written(source));
        call.trace.finish(!matches!(end, Ok(inspected) if !inspected.is_error));
        telemetry.keep(call.id, &call.trace);
        let (caller, tool, arguments) = (&*call.caller, self.tool.as_deref(), self.arguments.as_ref());
        telemetry.metrics().call(Some(caller), tool, arguments, self.true_status(end), took);
        telemetry.log().call(&CallLine {
            call_id: call.id,
            agent_id: Some(caller.agent_id()),
            user: caller.user(),
            task_id: self.intent.task_id.as_deref(),
            tool: &self.intent.tool,
            version: tool.map(|tool| tool.definition.version.as_str()),
            tier: self.intent.tier,
            arguments,
            decision: self.decision.as_ref(),
            output: end.as_ref().ok().map(|inspected| Output {
                bytes: inspected.output_bytes,
                kind: if inspected.result.is_string() { OutputKind::Text } else { OutputKind::Json },
            }),
            latency: took,
            outcome: state,
            error: end.as_ref().err().map(|error| error.face().slug),
            credentials: &self.intent.credentials,
            leaked: &self.leaked,
            contacted: &self.contacted,
            trace_id: &self.intent.trace_id,
        });
    }

    /// The call as every door shows it from now on.
    pub fn view(&self, call: &LiveCall, outcome: &Outcome, end: &Result<Inspected, CallError>) -> CallView {
        let mut view = call.view();
        view.state = outcome_state(end);
        view.is_error = Some(!matches!(end, Ok(inspected) if !inspected.is_error));
        view.result = end.as_ref().ok().map(|inspected| inspected.result.clone());
        view.may_have_run = outcome.may_have_run;
        view.duration_ms = Some(outcome.duration_ms);
        view
    }
}

const fn outcome_state(end: &Result<Inspected, CallError>) -> CallState {
    match end {
        Ok(inspected) if inspected.is_error => CallState::Failed,
        Ok(_) => CallState::Succeeded,
        Err(error) => error.face().state,
    }
}
