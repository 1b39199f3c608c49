//! Why a call did not give a result, and the one table that says how each reason looks from outside.
//!
//! `Display` is the sentence an agent reads: what is wrong and what to do about it. What only an operator may read
//! (engine messages, paths, policy errors) is logged where it happens, under the call's id, and never put in here.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::call::CallState;

/// A mistake in the arguments, or in the request around them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) into the arguments (of an invalid request: into its body); empty for the whole.
    pub pointer: String,
    /// What is wrong there and what is accepted. Never the value itself.
    pub detail: String,
}

/// Why a call was not carried out or gave no result.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// No valid credentials.
    #[error("authentication is required: send `Authorization: Bearer mf_...` with a key from `mayfly agent add`")]
    Unauthenticated,
    /// The agent is suspended.
    #[error("this agent is suspended; an operator can lift it with `mayfly agent resume`")]
    AgentSuspended,
    /// Too many requests from this caller.
    #[error("too many requests; try again in {} s", .retry_after.as_secs_f64().ceil().max(1.0))]
    RateLimited {
        /// When it makes sense to come back.
        retry_after: Duration,
    },
    /// The request is not what the API takes.
    #[error("{0}")]
    BadRequest(String),
    /// The body is longer than this gateway takes.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body came too slowly.
    #[error("the body did not arrive within {} s; send it again, faster", .0.as_secs())]
    BodyTimeout(Duration),
    /// The body is not JSON by its content type.
    #[error("send the body as `Content-Type: application/json`")]
    UnsupportedMediaType,
    /// Unknown, hidden and forbidden tools look the same.
    #[error("there is no tool `{0}` for you; `GET /v1/tools` lists those there are")]
    UnknownTool(String),
    /// The tool exists in another version only.
    #[error("tool `{tool}` is served in version {served}; leave `version` out or ask for that one")]
    UnknownVersion {
        /// The tool.
        tool: String,
        /// Its version.
        served: String,
    },
    /// No such call, or it is somebody else's.
    #[error("there is no such call of yours")]
    UnknownCall,
    /// There is nothing at this path.
    #[error("there is nothing here; `GET /openapi.json` describes what there is")]
    UnknownPath,
    /// The path exists for other methods.
    #[error("this path does not take this method; `GET /openapi.json` describes what it takes")]
    MethodNotAllowed,
    /// The body is JSON, but not what this path takes.
    #[error("the body is not what this path takes; `GET /openapi.json` describes it")]
    InvalidRequest {
        /// Every mistake found; the pointers lead into the body.
        violations: Vec<Violation>,
    },
    /// The arguments do not fit the tool's schema.
    #[error("the arguments do not fit the input schema of `{tool}`; `GET /v1/tools/{tool}` shows it")]
    InvalidArguments {
        /// The tool.
        tool: String,
        /// Every mistake found, at most 32.
        violations: Vec<Violation>,
    },
    /// Policy said no.
    #[error("policy does not allow this call{}", .reasons.first().map(|r| format!(": {r}")).unwrap_or_default())]
    Denied {
        /// The reasons policy chose to give.
        reasons: Vec<String>,
    },
    /// Policy could not decide, which is a no.
    #[error("policy could not decide, so the call was not made; the operator's log says why, under this call's id")]
    PolicyUnavailable,
    /// A human has to approve, and this gateway cannot ask one yet.
    #[error("this call needs approval, and approval is not available yet; nothing was run")]
    ApprovalUnavailable,
    /// The decision demands what cannot be enforced.
    #[error("policy demands `{0}`, which cannot be enforced for this tool, so the call was not made")]
    ObligationUnenforceable(String),
    /// The tool runs as often at once as it may.
    #[error("`{tool}` is running as often at once as it may ({limit}); try again shortly")]
    ToolBusy {
        /// The tool.
        tool: String,
        /// Its limit.
        limit: u32,
    },
    /// The gateway runs as many calls as it may.
    #[error("this gateway is running as many calls as it may; try again shortly")]
    Saturated,
    /// The gateway is shutting down.
    #[error("this gateway is shutting down; try another or try again")]
    Draining,
    /// The tool's image or module is not there, or its engine does not answer.
    #[error("`{0}` cannot run at the moment; an operator finds the reason with `mayfly tool list` and `mayfly doctor`")]
    ToolUnavailable(String),
    /// A credential that the call needs could not be had.
    #[error("the credential `{0}` could not be had, so the call was not made; the operator's log says why, under this call's id")]
    CredentialUnavailable(String),
    /// The ledger could not be written, so nothing was run.
    #[error("this call could not be recorded, so it was not made")]
    LedgerUnavailable,
    /// Killed at the deadline.
    #[error("the tool was killed at its deadline of {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Ended by its caller or a drain.
    #[error("the call was canceled{}", if *.may_have_run { "; the tool may have run" } else { " before the tool ran" })]
    Canceled {
        /// Whether the tool may have had an effect.
        may_have_run: bool,
    },
    /// The sandbox or the gateway went away in the middle.
    #[error("the sandbox was lost{}", if *.may_have_run { "; the tool may have run: look before you try again" } else { " before the tool ran: it is safe to try again" })]
    Interrupted {
        /// Whether the tool may have had an effect.
        may_have_run: bool,
    },
    /// The tool's output does not pass inspection.
    #[error("the tool ran, and its output was withheld: {0}")]
    OutputRejected(String),
    /// A fault of ours.
    #[error("something went wrong here; the operator's log says what, under this call's id")]
    Internal,
}

/// One row of the table: how a [`CallError`] looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Face {
    /// HTTP status code.
    pub status: u16,
    /// Last part of the problem type, `https://mayfly.dev/problems/{slug}` (RFC 9457).
    pub slug: &'static str,
    /// The problem's title.
    pub title: &'static str,
    /// The state the call's record gets, for errors that end a call.
    pub state: CallState,
}

impl CallError {
    /// The table.
    pub const fn face(&self) -> Face {
        use CallState::{Canceled, Denied, Failed, Interrupted, TimedOut};
        let (status, slug, title, state) = match self {
            Self::Unauthenticated => (401, "unauthenticated", "Authentication required", Denied),
            Self::AgentSuspended => (403, "agent-suspended", "Agent suspended", Denied),
            Self::RateLimited { .. } => (429, "rate-limited", "Too many requests", Denied),
            Self::BadRequest(_) => (400, "bad-request", "Malformed request", Denied),
            Self::TooLarge { .. } => (413, "too-large", "Body too large", Denied),
            Self::BodyTimeout(_) => (408, "body-timeout", "Body came too slowly", Denied),
            Self::UnsupportedMediaType => (415, "unsupported-media-type", "Unsupported media type", Denied),
            Self::UnknownTool(_) => (404, "unknown-tool", "No such tool", Denied),
            Self::UnknownVersion { .. } => (404, "unknown-version", "No such version", Denied),
            Self::UnknownCall => (404, "unknown-call", "No such call", Denied),
            Self::UnknownPath => (404, "unknown-path", "Nothing here", Denied),
            Self::MethodNotAllowed => (405, "method-not-allowed", "Method not allowed", Denied),
            Self::InvalidRequest { .. } => (422, "invalid-request", "Invalid request", Denied),
            Self::InvalidArguments { .. } => (422, "invalid-arguments", "Invalid arguments", Denied),
            Self::Denied { .. } => (403, "denied", "Denied by policy", Denied),
            Self::PolicyUnavailable => (500, "policy-unavailable", "Policy could not decide", Denied),
            Self::ApprovalUnavailable => (403, "approval-unavailable", "Approval is not available yet", Denied),
            Self::ObligationUnenforceable(_) => (403, "obligation-unenforceable", "Obligation cannot be enforced", Denied),
            Self::ToolBusy { .. } => (429, "tool-busy", "Tool at its concurrency limit", Denied),
            Self::Saturated => (503, "saturated", "Gateway at its limit", Denied),
            Self::Draining => (503, "draining", "Shutting down", Denied),
            Self::ToolUnavailable(_) => (503, "tool-unavailable", "Tool unavailable", Failed),
            Self::CredentialUnavailable(_) => (503, "credential-unavailable", "Credential unavailable", Failed),
            Self::LedgerUnavailable => (503, "ledger-unavailable", "Call could not be recorded", Failed),
            Self::TimedOut(_) => (504, "timed-out", "Tool timed out", TimedOut),
            Self::Canceled { .. } => (409, "canceled", "Call canceled", Canceled),
            Self::Interrupted { .. } => (502, "interrupted", "Call interrupted", Interrupted),
            Self::OutputRejected(_) => (502, "output-rejected", "Output withheld", Failed),
            Self::Internal => (500, "internal", "Internal error", Failed),
        };
        Face { status, slug, title, state }
    }
}
