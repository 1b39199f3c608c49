//! What a refused or failed request is answered with: an RFC 9457 problem.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::error::{CallError, Violation};
use crate::gateway::CallFailure;

/// Media type of a problem (RFC 9457, section 6.1).
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// Start of every problem type; what follows is the slug.
pub(crate) const TYPE_PREFIX: &str = "https://mayfly.dev/problems/";

/// An RFC 9457 problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// What kind of problem: `https://mayfly.dev/problems/` and a slug.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The same for every problem of a type.
    pub(crate) title: String,
    /// The HTTP status code.
    pub(crate) status: u16,
    /// What is wrong here and what to do about it.
    pub(crate) detail: String,
    /// The path of the call it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// The call's id: also refused calls have one, and a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call_id: Option<String>,
    /// W3C trace id, 32 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    /// The policy decision, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decision_id: Option<String>,
    /// The reasons policy chose to give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reasons: Vec<String>,
    /// The mistakes in the arguments or the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) violations: Vec<Violation>,
    /// Whether the tool may have had an effect, where that is in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) may_have_run: Option<bool>,
    /// When to come back, sent as `Retry-After`.
    #[serde(skip)]
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    /// The last part of the type.
    pub(crate) fn slug(&self) -> &str {
        self.kind.strip_prefix(TYPE_PREFIX).unwrap_or(&self.kind)
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let face = error.face();
        let detail = error.to_string();
        let (mut reasons, mut violations, mut may_have_run, mut retry_after) = (Vec::new(), Vec::new(), None, None);
        match error {
            CallError::Denied { reasons: given } => reasons = given,
            CallError::InvalidRequest { violations: found } | CallError::InvalidArguments { violations: found, .. } => {
                violations = found
            }
            CallError::Canceled { may_have_run: may } | CallError::Interrupted { may_have_run: may } => may_have_run = Some(may),
            CallError::TimedOut(_) | CallError::OutputRejected(_) => may_have_run = Some(true),
            CallError::RateLimited { retry_after: pause } => retry_after = Some(pause),
            CallError::ToolBusy { .. } | CallError::Saturated => retry_after = Some(Duration::from_secs(1)),
            CallError::Draining => retry_after = Some(Duration::from_secs(5)),
            _ => {}
        }
        Self {
            kind: format!("{TYPE_PREFIX}{}", face.slug),
            title: face.title.to_owned(),
            status: face.status,
            detail,
            instance: None,
            call_id: None,
            trace_id: None,
            decision_id: None,
            reasons,
            violations,
            may_have_run,
            retry_after,
        }
    }
}

impl From<CallFailure> for Problem {
    fn from(failure: CallFailure) -> Self {
        Self {
            instance: Some(format!("/v1/calls/{}", failure.id)),
            call_id: Some(failure.id.to_string()),
            trace_id: Some(failure.trace_id),
            decision_id: failure.decision_id,
            ..Self::from(failure.error)
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem is text, numbers and lists of text: writing it cannot fail.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], body).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(pause) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs_f64().ceil().max(1.0) as u64));
        }
        response
    }
}

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

impl IntoResponse for CallFailure {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::CallId;

    /// One of each. Adding a variant breaks `row`, which reminds of adding it here.
    fn every_error() -> Vec<CallError> {
        let violation = Violation { pointer: "/replicas".into(), detail: "must be at most 10".into() };
        vec![
            CallError::Unauthenticated,
            CallError::AgentSuspended,
            CallError::RateLimited { retry_after: Duration::from_millis(2500) },
            CallError::BadRequest("send one `Prefer` header less".into()),
            CallError::TooLarge { limit: 1 << 20 },
            CallError::BodyTimeout(Duration::from_secs(10)),
            CallError::UnsupportedMediaType,
            CallError::UnknownTool("x".into()),
            CallError::UnknownVersion { tool: "x".into(), served: "1.2.0".into() },
            CallError::UnknownCall,
            CallError::UnknownPath,
            CallError::MethodNotAllowed,
            CallError::InvalidRequest { violations: vec![violation.clone()] },
            CallError::InvalidArguments { tool: "x".into(), violations: vec![violation] },
            CallError::Denied { reasons: vec!["secrets are never read".into(), "not at night".into()] },
            CallError::PolicyUnavailable,
            CallError::ApprovalUnavailable,
            CallError::ObligationUnenforceable("isolation".into()),
            CallError::ToolBusy { tool: "x".into(), limit: 2 },
            CallError::Saturated,
            CallError::Draining,
            CallError::ToolUnavailable("x".into()),
            CallError::LedgerUnavailable,
            CallError::TimedOut(Duration::from_secs(30)),
            CallError::Canceled { may_have_run: false },
            CallError::Interrupted { may_have_run: true },
            CallError::OutputRejected("it is longer than 1Mi".into()),
            CallError::Internal,
        ]
    }

    #[test]
    fn every_error_has_its_row() {
        let rows: Vec<String> = every_error()
            .into_iter()
            .map(|error| {
                let response = error.clone().into_response();
                let header = |name| response.headers().get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_owned());
                assert_eq!(header(header::CONTENT_TYPE).as_deref(), Some(MEDIA_TYPE));
                assert_eq!(response.status().as_u16(), error.face().status);
                let extra: String = [header::WWW_AUTHENTICATE, header::RETRY_AFTER]
                    .into_iter()
                    .filter_map(|name| header(name.clone()).map(|value| format!(" {name}: {value}")))
                    .collect();
                format!("{}{extra}\n{}", response.status(), serde_json::to_string_pretty(&Problem::from(error)).unwrap())
            })
            .collect();
        let slugs: std::collections::BTreeSet<_> = every_error().iter().map(|error| error.face().slug).collect();
        assert_eq!(slugs.len(), rows.len(), "two errors share a type");
        insta::assert_snapshot!(rows.join("\n\n"));
    }

    #[test]
    fn a_refused_call_is_named() {
        let id = CallId::generate();
        let failure = CallFailure {
            error: CallError::Denied { reasons: vec!["no".into()] },
            id,
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            decision_id: Some("d".into()),
        };
        let problem = Problem::from(failure);
        assert_eq!(problem.instance, Some(format!("/v1/calls/{id}")));
        assert_eq!((problem.call_id, problem.decision_id.as_deref()), (Some(id.to_string()), Some("d")));
        assert_eq!(problem.reasons, ["no"]);
    }
}
