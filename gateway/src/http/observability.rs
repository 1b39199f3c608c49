//! What monitoring reads: `/metrics`, `/healthz`, `/readyz`, nothing else, and nothing of any call.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// What this door asks of the process.
pub trait Vitals: Send + Sync {
    /// All metrics as OpenMetrics text.
    fn metrics(&self) -> String;

    /// Whether calls can be served.
    ///
    /// # Errors
    /// Why not, in a sentence that anyone may read.
    fn ready(&self) -> Result<(), String>;
}

/// Every route of the door.
pub fn router(vitals: Arc<dyn Vitals>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        // That this process answers at all.
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(vitals)
}

async fn metrics(State(vitals): State<Arc<dyn Vitals>>) -> Response {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], vitals.metrics()).into_response()
}

async fn ready(State(vitals): State<Arc<dyn Vitals>>) -> Response {
    match vitals.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    struct Draining;

    impl Vitals for Draining {
        fn metrics(&self) -> String {
            "# EOF\n".into()
        }
        fn ready(&self) -> Result<(), String> {
            Err("shutting down".into())
        }
    }

    #[tokio::test]
    async fn three_paths_and_nothing_else() {
        for (path, status, text) in [
            ("/metrics", 200, "# EOF\n"),
            ("/healthz", 200, "ok\n"),
            ("/readyz", 503, "shutting down\n"),
            ("/", 404, ""),
            ("/v1/calls", 404, ""),
        ] {
            let response = router(Arc::new(Draining)).oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text, "{path}");
        }
    }
}
