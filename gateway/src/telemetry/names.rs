//! Every name that a trace or a metric of ours carries, in one place, because dashboards, alerts and queries rest on them.
//!
//! Spans follow the OpenTelemetry conventions for generative AI (`execute_tool {tool}`, `gen_ai.*`); what those have no word
//! for is under `mayfly.*`. Attributes of spans made inside a sandbox are under [`SANDBOX_PREFIX`], so that a tool cannot
//! write what reads like a statement of ours.

pub use opentelemetry_semantic_conventions::attribute::{ERROR_TYPE, USER_ID};

// The conventions for generative AI moved to a repository of their own, <https://github.com/open-telemetry/semantic-conventions-genai>,
// which has no Rust crate yet.

/// Always [`span::EXECUTE_TOOL`].
pub const GEN_AI_OPERATION_NAME: &str = "gen_ai.operation.name";
/// The tool, by its name in the catalog.
pub const GEN_AI_TOOL_NAME: &str = "gen_ai.tool.name";
/// The call's id.
pub const GEN_AI_TOOL_CALL_ID: &str = "gen_ai.tool.call.id";
/// The arguments as JSON; redacted.
pub const GEN_AI_TOOL_CALL_ARGUMENTS: &str = "gen_ai.tool.call.arguments";
/// The agent that calls.
pub const GEN_AI_AGENT_ID: &str = "gen_ai.agent.id";
/// The sentence of a failed span, in a waterfall; an exported span has it in its status.
pub const FAILURE: &str = "mayfly.failure";

/// Names of spans.
pub mod span {
    /// The whole call, and the value of `gen_ai.operation.name`. Becomes [`execute_tool`] once the tool is known.
    pub const EXECUTE_TOOL: &str = "execute_tool";
    /// Who is calling.
    pub const AUTHENTICATE: &str = "authenticate";
    /// The catalog and the input schema.
    pub const VALIDATE: &str = "validate";
    /// What policy says.
    pub const AUTHORIZE: &str = "authorize";
    /// Making the intent durable.
    pub const COMMIT: &str = "commit";
    /// Getting the call's credentials.
    pub const MINT: &str = "mint";
    /// Starting a sandbox for the call.
    pub const SANDBOX_START: &str = "sandbox.start";
    /// A warm sandbox is taken from its pool.
    pub const SANDBOX_CLAIM: &str = "sandbox.claim";
    /// From delivery to report; spans made inside the sandbox are its children.
    pub const TOOL_RUN: &str = "tool.run";
    /// Making the outcome durable.
    pub const RECORD: &str = "record";
    /// Inspecting what came back.
    pub const SETTLE: &str = "settle";
    /// Removing the sandbox; may end after the answer.
    pub const TEARDOWN: &str = "teardown";

    /// The root's name for a tool that the catalog knows. Never with a name that a caller made up.
    pub fn execute_tool(tool: &str) -> String {
        format!("{EXECUTE_TOOL} {tool}")
    }
}

/// The tool's version.
pub const TOOL_VERSION: &str = "mayfly.tool.version";
/// Its tier.
pub const TOOL_TIER: &str = "mayfly.tool.tier";
/// Digest over its definition and artifact.
pub const TOOL_DIGEST: &str = "mayfly.tool.digest";
/// The action that policy reasoned about.
pub const ACTION: &str = "mayfly.action";
/// The resource that policy reasoned about.
pub const RESOURCE: &str = "mayfly.resource";
/// The task, in its owner's words.
pub const TASK_ID: &str = "mayfly.task.id";
/// The decision's id.
pub const DECISION_ID: &str = "mayfly.decision.id";
/// Whether policy allowed.
pub const DECISION_ALLOW: &str = "mayfly.decision.allow";
/// The reasons it chose to give.
pub const DECISION_REASONS: &str = "mayfly.decision.reasons";
/// Digest of the generation of catalog, policy and data that decided.
pub const GENERATION: &str = "mayfly.generation";
/// The sources of the credentials that the call is given.
pub const CREDENTIALS: &str = "mayfly.credentials";
/// The sources of those that stood in its output, and were taken out.
pub const CREDENTIALS_LEAKED: &str = "mayfly.credentials.leaked";
/// The destinations that it connected to.
pub const CONTACTED: &str = "mayfly.egress.contacted";
/// The call's final state.
pub const OUTCOME: &str = "mayfly.outcome";
/// How the tool ended.
pub const EXIT: &str = "mayfly.exit";
/// Bytes of result.
pub const OUTPUT_BYTES: &str = "mayfly.output.bytes";
/// `json` or `text`.
pub const OUTPUT_TYPE: &str = "mayfly.output.type";
/// Where the sandbox came from.
pub const BACKEND: &str = "mayfly.backend";
/// `warm` or `cold`.
pub const TEMPERATURE: &str = "mayfly.temperature";
/// The sandbox's id.
pub const SANDBOX_ID: &str = "mayfly.sandbox.id";
/// Digest of the image or module.
pub const IMAGE_DIGEST: &str = "mayfly.image.digest";
/// How many spans from inside the sandbox were not taken.
pub const SPANS_REFUSED: &str = "mayfly.spans.refused";
/// Before every attribute that was written inside a sandbox.
pub const SANDBOX_PREFIX: &str = "sandbox.";

/// Instrumentation scope of our own spans.
pub const SCOPE: &str = "mayfly";
/// Instrumentation scope of spans made inside a sandbox.
pub const SANDBOX_SCOPE: &str = "mayfly.sandbox";
/// `service.name` unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say otherwise.
pub const SERVICE: &str = "mayfly";

/// Names of metrics, as they are registered: counters are shown with `_total` after it.
pub mod metric {
    /// Shown as `agent_tool_calls_total{agent_id,action,resource,result}`.
    pub const AGENT_TOOL_CALLS: &str = "agent_tool_calls";
    /// Shown as `tool_gateway_calls_total{agent_id,tool,status}`.
    pub const GATEWAY_CALLS: &str = "tool_gateway_calls";
    /// `{agent_id,tool}`
    pub const GATEWAY_DURATION: &str = "tool_gateway_duration_seconds";
    /// `{backend,temperature}`
    pub const SANDBOX_START: &str = "mayfly_sandbox_start_seconds";
    /// How many sandboxes a pool is to hold.
    pub const POOL_SIZE: &str = "mayfly_pool_size";
    /// How many it has.
    pub const POOL_SANDBOXES: &str = "mayfly_pool_sandboxes";
    /// Calls that asked it; the library appends `_total`.
    pub const POOL_CLAIMS: &str = "mayfly_pool_claims";
    /// Sandboxes that died waiting; the library appends `_total`.
    pub const POOL_LOST: &str = "mayfly_pool_lost";
    /// Seconds that the oldest has waited.
    pub const POOL_OLDEST: &str = "mayfly_pool_oldest_seconds";
    /// `{backend,state}`
    pub const SANDBOXES: &str = "mayfly_sandboxes";
    /// Shown as `mayfly_sandbox_orphans_total`.
    pub const SANDBOX_ORPHANS: &str = "mayfly_sandbox_orphans";
    /// Shown as `mayfly_credentials_total{source,result}`.
    pub const CREDENTIALS: &str = "mayfly_credentials";
    /// `{source}`: alert on any.
    pub const CREDENTIALS_OWED: &str = "mayfly_credentials_owed";
    /// Shown as `mayfly_credentials_written_total{source}`.
    pub const CREDENTIALS_WRITTEN: &str = "mayfly_credentials_written";
    /// Shown as `mayfly_reload_failures_total`.
    pub const RELOAD_FAILURES: &str = "mayfly_reload_failures";
    /// Shown as `mayfly_spans_dropped_total`.
    pub const SPANS_DROPPED: &str = "mayfly_spans_dropped";
    /// Shown as `mayfly_log_lines_lost_total`.
    pub const LOG_LINES_LOST: &str = "mayfly_log_lines_lost";
}

/// The label value of what is not in a registry.
pub const UNKNOWN: &str = "_unknown";
