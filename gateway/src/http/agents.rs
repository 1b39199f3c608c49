//! The agents' door: calls and tools, and nothing without authentication.

use std::any::Any;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, FromRef, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::authentication::{self, Authenticate, Authenticated};
use super::body::{BodyLimits, JsonBody};
use super::events::LastEvent;
use super::openapi::Frame;
use super::prefer::{PREFERENCE_APPLIED, Prefer};
use super::problem::Problem;
use super::submission::Submission;
use super::{events, traceparent};
use crate::call::{CallId, CallRequest, CallView};
use crate::caller::Caller;
use crate::error::CallError;
use crate::gateway::{Gateway, SpanView, ToolView};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How many calls a list shows when nobody asks for more or fewer, and at most.
const DEFAULT_LIST: u32 = 50;
const MAX_LIST: u32 = 200;

/// What the handlers share.
#[derive(Clone)]
struct Door {
    gateway: Arc<Gateway>,
    limits: BodyLimits,
}

impl FromRef<Door> for Arc<Gateway> {
    fn from_ref(door: &Door) -> Self {
        door.gateway.clone()
    }
}

impl FromRef<Door> for BodyLimits {
    fn from_ref(door: &Door) -> Self {
        door.limits
    }
}

/// Every route of the door. Wants [`layers`] around it: alone, it answers nobody.
pub fn routes(gateway: Arc<Gateway>, limits: BodyLimits) -> Router {
    described().split_for_parts().0.with_state(Door { gateway, limits })
}

fn described() -> OpenApiRouter<Door> {
    OpenApiRouter::with_openapi(Frame::openapi())
        .routes(routes!(submit, list_calls))
        .routes(routes!(submit_to_tool))
        .routes(routes!(get_call, cancel_call))
        .routes(routes!(follow_call))
        .routes(routes!(trace_call))
        .routes(routes!(list_tools))
        .routes(routes!(get_tool))
        .routes(routes!(openapi))
}

/// Every layer of the door, around `router` and its fallbacks.
pub fn layers(router: Router, authenticator: Arc<dyn Authenticate>) -> Router {
    router
        .fallback(async || CallError::UnknownPath)
        .method_not_allowed_fallback(async || CallError::MethodNotAllowed)
        // Around the fallbacks too: a stranger does not learn which paths there are.
        .layer(from_fn_with_state(authenticator, authentication::require))
        // Around authentication: what panics there gets an answer, too.
        .layer(CatchPanicLayer::custom(panicked))
        .layer(map_response(forbid_storing))
}

async fn forbid_storing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The panic itself was printed by the panic hook; its message may hold anything, so it is not repeated.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request handler panicked; the request was answered with 500");
    CallError::Internal.into_response()
}

/// The id of a call in the path. What is no id is no call.
struct PathCall(CallId);

impl<S: Send + Sync> FromRequestParts<S> for PathCall {
    type Rejection = CallError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CallError> {
        let PathName(text) = PathName::from_request_parts(parts, state).await?;
        Uuid::try_parse(&text).map(|id| Self(CallId(id))).map_err(|_| CallError::UnknownCall)
    }
}

/// The one name in the path.
struct PathName(String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = CallError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CallError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| CallError::UnknownPath)?;
        // A name no tool can have is not repeated in an answer.
        if name.len() > 128 || name.chars().any(char::is_control) { Err(CallError::UnknownPath) } else { Ok(Self(name)) }
    }
}

/// What the headers of a submission say.
struct SubmissionHeaders {
    prefer: Prefer,
    traceparent: Option<String>,
    authenticated: Option<(Instant, Instant)>,
}

impl<S: Send + Sync> FromRequestParts<S> for SubmissionHeaders {
    type Rejection = CallError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, CallError> {
        if parts.headers.contains_key(IDEMPOTENCY_KEY) {
            let detail = "`Idempotency-Key` is not honoured yet, and ignoring it could run the tool twice; leave it out";
            return Err(CallError::BadRequest(detail.into()));
        }
        Ok(Self {
            prefer: Prefer::from_headers(&parts.headers),
            traceparent: traceparent::from_headers(&parts.headers),
            authenticated: parts.extensions.get().map(|Authenticated(from, until)| (*from, *until)),
        })
    }
}

/// Submit a call.
///
/// Waits for its outcome, as long as the gateway holds calls at most (`limits.wait`) and no longer than `Prefer` says with
/// `wait=N` (seconds) or `respond-async`: a call that is not over by then is answered with 202 and goes on. A client that hangs up while it waits cancels the call. Instead of under
/// `arguments`, the arguments may stand beside `tool`.
#[utoipa::path(
    post, path = "/v1/calls", tag = "calls", request_body = Submission,
    params(("Prefer" = Option<String>, Header, description = "`wait=N`, `respond-async` (RFC 7240)"),
           ("traceparent" = Option<String>, Header, description = "W3C Trace Context; the call's trace continues it")),
    responses((status = 200, description = "The call is over; a tool that failed has `is_error`", body = CallView),
              (status = 202, description = "The call goes on; `Location` is where to look", body = CallView),
              (status = "default", description = "It was refused or gave no result", body = Problem, content_type = "application/problem+json"))
)]
async fn submit(
    State(gateway): State<Arc<Gateway>>,
    State(limits): State<BodyLimits>,
    Extension(caller): Extension<Arc<Caller>>,
    headers: Result<SubmissionHeaders, CallError>,
    body: Result<JsonBody, CallError>,
) -> Response {
    take(&gateway, caller, read(headers, body, None), limits.wait).await
}

/// Submit a call of the tool in the path.
///
/// As `POST /v1/calls`; `tool` may be left out of the body.
#[utoipa::path(
    post, path = "/v1/tools/{name}/calls", tag = "calls", request_body = Submission,
    params(("name" = String, Path, description = "The tool's name"),
           ("Prefer" = Option<String>, Header, description = "`wait=N`, `respond-async` (RFC 7240)"),
           ("traceparent" = Option<String>, Header, description = "W3C Trace Context; the call's trace continues it")),
    responses((status = 200, description = "The call is over; a tool that failed has `is_error`", body = CallView),
              (status = 202, description = "The call goes on; `Location` is where to look", body = CallView),
              (status = "default", description = "It was refused or gave no result", body = Problem, content_type = "application/problem+json"))
)]
async fn submit_to_tool(
    State(gateway): State<Arc<Gateway>>,
    State(limits): State<BodyLimits>,
    Extension(caller): Extension<Arc<Caller>>,
    PathName(name): PathName,
    headers: Result<SubmissionHeaders, CallError>,
    body: Result<JsonBody, CallError>,
) -> Response {
    take(&gateway, caller, read(headers, body, Some(name)), limits.wait).await
}

/// What is asked for, and how long the caller wants to wait for it.
fn read(
    headers: Result<SubmissionHeaders, CallError>,
    body: Result<JsonBody, CallError>,
    name: Option<String>,
) -> Result<(CallRequest, Prefer), CallError> {
    let (headers, JsonBody(body)) = (headers?, body?);
    let request = Submission::read(body, name)?.into_request(headers.traceparent, headers.authenticated);
    Ok((request, headers.prefer))
}

/// Runs what could be read; what could not leaves a record all the same.
async fn take(
    gateway: &Arc<Gateway>,
    caller: Arc<Caller>,
    read: Result<(CallRequest, Prefer), CallError>,
    most: Duration,
) -> Response {
    match read {
        Ok((request, prefer)) => run(gateway, caller, request, prefer, most).await,
        Err(error) => gateway.refuse(caller, error).await.into_response(),
    }
}

/// Both ways in lead here; the call is held for `most` at most. While this future waits it holds the ticket: when the client
/// hangs up, both are dropped, and the call is canceled.
async fn run(gateway: &Arc<Gateway>, caller: Arc<Caller>, request: CallRequest, prefer: Prefer, most: Duration) -> Response {
    let mut ticket = match gateway.submit(caller, request).await {
        Ok(ticket) => ticket,
        Err(failure) => return failure.into_response(),
    };
    let outcome = tokio::time::timeout(prefer.wait(most), ticket.outcome()).await.ok();
    let mut response = match outcome {
        Some(Ok(view)) => Json(view).into_response(),
        Some(Err(failure)) => failure.into_response(),
        None => {
            let view = ticket.view();
            ticket.detach();
            (StatusCode::ACCEPTED, [(header::LOCATION, format!("/v1/calls/{}", view.id))], Json(view)).into_response()
        }
    };
    if let Some(applied) = prefer.applied(most) {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}

/// Which calls to list.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those of this task.
    task_id: Option<String>,
    /// At most so many, from 1 to 200; 50 if left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// List your calls, newest first.
///
/// A list leaves results out: `result` is `null` in it, and `GET /v1/calls/{id}` has it.
#[utoipa::path(
    get, path = "/v1/calls", tag = "calls", params(Which),
    responses((status = 200, description = "Your calls, without their results", body = Vec<CallView>),
              (status = "default", description = "Refused", body = Problem, content_type = "application/problem+json"))
)]
async fn list_calls(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Arc<Caller>>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Vec<CallView>>, CallError> {
    let Query(which) = which.map_err(|rejection| CallError::BadRequest(rejection.body_text()))?;
    let limit = which.limit.unwrap_or(DEFAULT_LIST);
    if !(1..=MAX_LIST).contains(&limit) {
        return Err(CallError::BadRequest(format!("`limit` must be from 1 to {MAX_LIST}")));
    }
    gateway.calls(&caller, which.task_id.as_deref(), limit).await.map(Json)
}

/// Look at a call of yours.
#[utoipa::path(
    get, path = "/v1/calls/{id}", tag = "calls", params(("id" = String, Path, description = "The call's id")),
    responses((status = 200, description = "The call as it stands", body = CallView),
              (status = "default", description = "Refused", body = Problem, content_type = "application/problem+json"))
)]
async fn get_call(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Arc<Caller>>,
    PathCall(id): PathCall,
) -> Result<Json<CallView>, CallError> {
    gateway.call(&caller, id).await.map(Json)
}

/// Cancel a call of yours.
///
/// Kills its sandbox and answers when it has ended. A call that is over stays as it is.
#[utoipa::path(
    delete, path = "/v1/calls/{id}", tag = "calls", params(("id" = String, Path, description = "The call's id")),
    responses((status = 200, description = "The call, ended", body = CallView),
              (status = "default", description = "Refused", body = Problem, content_type = "application/problem+json"))
)]
async fn cancel_call(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Arc<Caller>>,
    PathCall(id): PathCall,
) -> Result<Json<CallView>, CallError> {
    gateway.cancel(&caller, id).await.map(Json)
}

/// Follow a call of yours.
///
/// Server-sent events, named `state`, `progress` and `log`, each a `CallEvent` with its number as id; the id of the final
/// state, after which the stream ends, is `end`. A client that comes back with `Last-Event-ID` gets what came after, and with
/// `end` nothing but 204, on which an `EventSource` stops coming back.
#[utoipa::path(
    get, path = "/v1/calls/{id}/events", tag = "calls",
    params(("id" = String, Path, description = "The call's id"),
           ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received")),
    responses((status = 200, description = "The events", body = String, content_type = "text/event-stream"),
              (status = 204, description = "You have seen the final state: nothing follows"),
              (status = "default", description = "Refused", body = Problem, content_type = "application/problem+json"))
)]
async fn follow_call(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Arc<Caller>>,
    PathCall(id): PathCall,
    headers: HeaderMap,
) -> Result<Response, CallError> {
    let after = match events::last_event_id(&headers)? {
        None => None,
        Some(LastEvent::Number(number)) => Some(number),
        Some(LastEvent::End) => {
            let is_over = gateway.call(&caller, id).await?.state.is_final();
            let early = || CallError::BadRequest("`Last-Event-ID` is `end`, and the call is not over".into());
            return is_over.then(|| StatusCode::NO_CONTENT.into_response()).ok_or_else(early);
        }
    };
    gateway.follow(&caller, id, after).await.map(events::stream)
}

/// The trace of a recent call of yours.
#[utoipa::path(
    get, path = "/v1/calls/{id}/trace", tag = "calls", params(("id" = String, Path, description = "The call's id")),
    responses((status = 200, description = "Its spans", body = Vec<SpanView>),
              (status = "default", description = "Refused", body = Problem, content_type = "application/problem+json"))
)]
async fn trace_call(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Arc<Caller>>,
    PathCall(id): PathCall,
) -> Result<Json<Vec<SpanView>>, CallError> {
    gateway.trace(&caller, id).await.map(Json)
}

/// List the tools you may see.
#[utoipa::path(
    get, path = "/v1/tools", tag = "tools",
    responses((status = 200, description = "The tools", body = Vec<ToolView>),
              (status = "default", description = "Refused", body = Problem, content_type = "application/problem+json"))
)]
async fn list_tools(State(gateway): State<Arc<Gateway>>, Extension(caller): Extension<Arc<Caller>>) -> Json<Vec<ToolView>> {
    Json(gateway.tools(&caller))
}

/// Look at a tool.
#[utoipa::path(
    get, path = "/v1/tools/{name}", tag = "tools", params(("name" = String, Path, description = "The tool's name")),
    responses((status = 200, description = "The tool", body = ToolView),
              (status = "default", description = "Refused", body = Problem, content_type = "application/problem+json"))
)]
async fn get_tool(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Arc<Caller>>,
    PathName(name): PathName,
) -> Result<Json<ToolView>, CallError> {
    gateway.tool(&caller, &name).map(Json)
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "description",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
async fn openapi() -> Json<&'static utoipa::openapi::OpenApi> {
    static DESCRIPTION: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(|| described().into_openapi());
    Json(&DESCRIPTION)
}

#[cfg(test)]
mod tests;
