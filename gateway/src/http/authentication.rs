//! Authentication in front of everything: without a caller, a door does not even say whether a path exists.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::caller::Caller;
use crate::error::CallError;
use crate::gateway::Gateway;

/// Who can tell the caller behind an `Authorization` header.
pub trait Authenticate: Send + Sync {
    /// The caller, in constant time in the secret and without I/O.
    ///
    /// # Errors
    /// As the pipeline says why: [`CallError::Unauthenticated`], [`CallError::AgentSuspended`], [`CallError::RateLimited`].
    fn authenticate(&self, authorization: Option<&str>) -> Result<Arc<Caller>, CallError>;
}

impl Authenticate for Gateway {
    fn authenticate(&self, authorization: Option<&str>) -> Result<Arc<Caller>, CallError> {
        Self::authenticate(self, authorization)
    }
}

/// When the caller was looked at, from and until: the first span of a call's trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authenticated(pub(super) Instant, pub(super) Instant);

/// Puts the `Arc<Caller>` into the request's extensions, or answers instead of what lies behind.
pub(super) async fn require(State(door): State<Arc<dyn Authenticate>>, mut request: Request, next: Next) -> Response {
    let from = Instant::now();
    match authorization(request.headers()).and_then(|value| door.authenticate(value)) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(Authenticated(from, Instant::now()));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// The one `Authorization` header. Two are none: nobody shall be able to tell us one thing and a proxy another.
fn authorization(headers: &HeaderMap) -> Result<Option<&str>, CallError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value)),
        _ => Err(CallError::Unauthenticated),
    }
}
