use super::*;
use crate::error::{CallError, Violation};
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use serde_json::json;

/// A stand-in for the agents' door: repeats what it heard.
async fn door() -> String {
    let heard = async |headers: HeaderMap, body: String| {
        axum::Json(json!([{
            "span_id": headers["authorization"].to_str().unwrap(), "parent_span_id": body,
            "name": headers.get("prefer").map_or("", |value| value.to_str().unwrap()),
            "start_us": 0, "duration_us": 0, "error": false, "attributes": {},
        }]))
    };
    let router = Router::new()
        .route("/base/v1/calls/{id}/trace", get(heard))
        .route("/base/v1/calls", post(async || CallError::Denied { reasons: vec!["no".into(), "never".into()] }))
        .route(
            "/base/v1/tools/{name}",
            get(async |axum::extract::Path(name): axum::extract::Path<String>| axum::Json(json!({"input_schema": name}))),
        )
        .route("/html/v1/calls", post(async || "<html>"))
        .route("/elsewhere/v1/calls", post(async || axum::response::Redirect::temporary("/base/v1/calls")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn client(url: &str) -> AgentsClient {
    AgentsClient::new(url, "mf_key".into()).unwrap()
}

#[tokio::test]
async fn the_key_is_sent_and_names_are_encoded() {
    let url = door().await;
    let spans = client(&format!("{url}/base")).trace("an id").await.unwrap();
    assert_eq!(spans[0].span_id, "Bearer mf_key");
    assert_eq!(client(&format!("{url}/base/")).input_schema("../a/b?c").await.unwrap(), "../a/b?c");
    for name in ["..", ".", ""] {
        assert_eq!(Failure::from(client(&url).input_schema(name).await.unwrap_err()).exit, Exit::NotFound);
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_full() {
    let url = door().await;
    let failure = Failure::from(client(&format!("{url}/base")).call(&json!({}), Some(3)).await.unwrap_err());
    assert_eq!(failure, Failure::new(Exit::Denied, "policy does not allow this call: no\n  also: never"));
}

#[tokio::test]
async fn what_is_no_gateway_is_unreachable() {
    let url = door().await;
    for address in [format!("{url}/html"), format!("{url}/elsewhere"), format!("{url}/nothing"), "http://127.0.0.1:9".into()] {
        assert_eq!(
            Failure::from(client(&address).call(&json!({}), None).await.unwrap_err()).exit,
            Exit::Unreachable,
            "{address}"
        );
    }
    for address in ["", "127.0.0.1:8420", "ftp://x", "unix:/x"] {
        assert_eq!(AgentsClient::new(address, "k".into()).err().map(|failure| failure.exit), Some(Exit::Usage), "{address}");
    }
}

#[test]
fn every_refusal_has_its_exit_code() {
    let violation = Violation { pointer: "/n".into(), detail: "must be there".into() };
    for (error, exit) in [
        (CallError::Unauthenticated, Exit::Denied),
        (CallError::AgentSuspended, Exit::Denied),
        (CallError::Denied { reasons: vec![] }, Exit::Denied),
        (CallError::ApprovalUnavailable, Exit::Denied),
        (CallError::PolicyUnavailable, Exit::Denied),
        (CallError::UnknownTool("x".into()), Exit::NotFound),
        (CallError::UnknownCall, Exit::NotFound),
        (CallError::InvalidArguments { tool: "x".into(), violations: vec![violation.clone()] }, Exit::Invalid),
        (CallError::BadRequest("x".into()), Exit::Invalid),
        (CallError::TooLarge { limit: 1 }, Exit::Invalid),
        (CallError::TimedOut(Duration::from_secs(1)), Exit::ToolFailed),
        (CallError::Canceled { may_have_run: true }, Exit::ToolFailed),
        (CallError::Interrupted { may_have_run: true }, Exit::ToolFailed),
        (CallError::OutputRejected("x".into()), Exit::ToolFailed),
        (CallError::Saturated, Exit::Unreachable),
        (CallError::Draining, Exit::Unreachable),
        (CallError::ToolBusy { tool: "x".into(), limit: 1 }, Exit::Unreachable),
        (CallError::LedgerUnavailable, Exit::Unreachable),
        (CallError::Internal, Exit::Unreachable),
    ] {
        assert_eq!(Refusal(error.clone().into()).exit(), exit, "{error}");
    }
    let refusal = Refusal(CallError::InvalidRequest { violations: vec![violation] }.into());
    assert!(refusal.text().ends_with("\n  /n: must be there"), "{}", refusal.text());
}

#[tokio::test]
async fn administration_is_asked_over_its_socket() {
    use crate::http::{admin, serve, socket};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = socket::bind(&path).unwrap();
    let admin = std::sync::Arc::new(admin::fixture::InMemory::default());
    let router = admin::router(admin.clone(), admin);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(serve::serve(listener, router, shutdown.clone(), serve::ConnectionLimits::default()));
    let client = AdminClient::new(path.clone());
    let body = json!({"name": "a/b ?"});
    let added: admin::NewAgent = client.ask(Method::POST, &["agents"], Some(&body)).await.unwrap();
    assert_eq!(added.key, "mf_a/b ?");
    let agent: admin::AgentView = client.ask(Method::POST, &["agents", "a/b ?", "suspend"], None).await.unwrap();
    assert!(agent.suspended);
    let () = client.ask(Method::DELETE, &["agents", "a/b ?"], None).await.unwrap();
    let gone = client.ask::<()>(Method::DELETE, &["agents", "a/b ?"], None).await.unwrap_err();
    assert_eq!(Failure::from(gone).exit, Exit::NotFound);
    shutdown.cancel();
    task.await.unwrap();
    let failure = Failure::from(client.ask::<Value>(Method::GET, &["agents"], None).await.unwrap_err());
    assert!(failure.exit == Exit::Unreachable && failure.message.contains("admin.sock"), "{failure}");
}
