use super::fixture::InMemory;
use super::*;
use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

async fn ask(admin: &Arc<InMemory>, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(body.map_or_else(Body::empty, |text| Body::from(text.to_owned()))).unwrap();
    let response = router(admin.clone(), admin.clone()).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
}

#[tokio::test]
async fn an_agent_comes_pauses_and_goes() {
    let admin = Arc::new(InMemory::default());
    let (status, added) = ask(&admin, "POST", "/admin/v1/agents", Some(r#"{"name": "sre-bot", "user": "ada"}"#)).await;
    assert_eq!((status, &added["key"], &added["name"]), (201, &json!("mf_sre-bot"), &json!("sre-bot")));
    assert_eq!(ask(&admin, "POST", "/admin/v1/agents/sre-bot/suspend", None).await.1["suspended"], true);
    assert_eq!(ask(&admin, "POST", "/admin/v1/agents/sre-bot/resume", None).await.1["suspended"], false);
    let (_, agents) = ask(&admin, "GET", "/admin/v1/agents", None).await;
    assert_eq!(agents[0]["user"], "ada");
    assert!(!agents.to_string().contains("mf_"), "a list shows a key");
    assert_eq!(ask(&admin, "DELETE", "/admin/v1/agents/sre-bot", None).await, (204, Value::Null));
    assert_eq!(ask(&admin, "GET", "/admin/v1/agents", None).await, (200, json!([])));
}

#[tokio::test]
async fn what_makes_no_sense_is_a_problem_with_its_reason() {
    let admin = Arc::new(InMemory::default());
    ask(&admin, "POST", "/admin/v1/agents", Some(r#"{"name": "a"}"#)).await;
    ask(&admin, "POST", "/admin/v1/agents", Some(r#"{"name": "gone"}"#)).await;
    ask(&admin, "DELETE", "/admin/v1/agents/gone", None).await;
    for (method, path, body, status, told) in [
        ("POST", "/admin/v1/agents", Some(r#"{"name": "a"}"#), 409, "already"),
        ("POST", "/admin/v1/agents", Some(r#"{"name": "gone"}"#), 409, "was removed"),
        ("POST", "/admin/v1/agents", Some(r#"{"name": ""}"#), 422, "needed"),
        ("POST", "/admin/v1/agents", Some(r#"{"nam": "b"}"#), 422, "unknown field `nam`"),
        ("POST", "/admin/v1/agents", Some(r#"{"name": "b", "name": "c"}"#), 400, "/name is given twice"),
        ("POST", "/admin/v1/agents", Some("[]x"), 400, "trailing"),
        ("POST", "/admin/v1/agents", None, 415, "application/json"),
        ("DELETE", "/admin/v1/agents/b", None, 404, "no agent `b`"),
        ("POST", "/admin/v1/agents/b/suspend", None, 404, "no agent `b`"),
        ("GET", "/admin/v1/agents/a", None, 405, "method"),
        ("GET", "/admin", None, 404, "nothing here"),
    ] {
        let (answered, problem) = ask(&admin, method, path, body).await;
        assert_eq!(answered, status, "{method} {path} {body:?}");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(told), "{problem}");
    }
}

#[tokio::test]
async fn tools_sandboxes_and_generation_are_shown() {
    let admin = Arc::new(InMemory::default());
    assert_eq!(ask(&admin, "GET", "/admin/v1/tools", None).await.1[0]["unavailable"], "Docker does not answer");
    assert_eq!(ask(&admin, "GET", "/admin/v1/sandboxes", None).await.1[0]["started"], 2);
    assert_eq!(ask(&admin, "GET", "/admin/v1/generation", None).await.1["refused"], Value::Null);
}

#[tokio::test]
async fn a_secret_goes_in_and_its_value_never_comes_out() {
    let admin = Arc::new(InMemory::default());
    let (status, set) = ask(&admin, "PUT", "/admin/v1/secrets/github", Some(r#"{"value": "aHVudGVyMjI="}"#)).await;
    assert_eq!((status, &set["name"], &set["version"]), (200, &json!("github"), &json!(1)));
    assert_eq!(admin.secrets.lock()["github"], b"hunter22");
    let (_, listed) = ask(&admin, "GET", "/admin/v1/secrets", None).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert!(![set, listed].iter().any(|told| told.to_string().contains("value")));
    for wrong in [
        r#"{"value": "canary!"}"#,
        r#"{"value": ["canary"]}"#,
        r#"{"valu": "canary"}"#,
        r#"{"value": "", "canary": 1}"#,
        r#""canary""#,
    ] {
        let (status, problem) = ask(&admin, "PUT", "/admin/v1/secrets/github", Some(wrong)).await;
        assert_eq!(status, 422, "{wrong}");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
    assert_eq!(ask(&admin, "POST", "/admin/v1/master-key/rotate", None).await.1["key_id"], "0123456789abcdef");
    assert_eq!(ask(&admin, "GET", "/admin/v1/credentials/leaked", None).await, (200, json!([])));
    assert_eq!(ask(&admin, "DELETE", "/admin/v1/secrets/github", None).await.0, 204);
    assert_eq!(ask(&admin, "DELETE", "/admin/v1/secrets/github", None).await.0, 404);
}
