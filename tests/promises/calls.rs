//! One call, end to end: allowed, denied, failed, timed out, each with one clear answer and one outcome.

use mayfly_tests::harness::{Setup, tools};
use serde_json::json;

const POLICY: &str = r#"package agent.authz
import rego.v1
default allow := false
allow if input.agent_id == "ann"
deny contains "no shouting" if input.arguments.text == "LOUD"
"#;

fn setup() -> Setup {
    Setup::new()
        .policy(POLICY)
        .tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO))
        .tool("spin", &tools::yaml("spin", "").replace("timeout: 2s", "timeout: 300ms"), Some(tools::SPIN))
        .tool("hidden", &tools::yaml("hidden", "").replace("tier: free", "tier: forbidden"), Some(tools::ECHO))
        .tool("careful", &tools::yaml("careful", "").replace("tier: free", "tier: supervised"), Some(tools::ECHO))
}

#[tokio::test]
async fn an_allowed_call_returns_what_the_tool_wrote() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let answer = ann.call("echo", json!({"text": "hello"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["state"], "succeeded");
    assert_eq!(answer.body["result"], json!({"text": "hello"}));
    assert_eq!(answer.body["is_error"], false);
    for given in ["id", "trace_id", "decision_id", "created_at"] {
        assert!(answer.body[given].is_string(), "{given}: {answer:?}");
    }
    let again = ann.get(answer.body["id"].as_str().unwrap()).await;
    assert_eq!(again.body, answer.body, "a call looks the same everywhere");
}

#[tokio::test]
async fn the_published_flat_form_and_the_name_in_the_path_are_the_same_call() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let flat = ann.send(ann.request("POST", "/v1/calls").json(&json!({"tool": "echo", "text": "a", "task_id": "t1"}))).await;
    assert_eq!((flat.status, &flat.body["result"]), (200, &json!({"text": "a"})), "{flat:?}");
    let path =
        ann.send(ann.request("POST", "/v1/tools/echo/calls").json(&json!({"arguments": {"text": "b"}, "task_id": "t1"}))).await;
    assert_eq!((path.status, &path.body["result"]), (200, &json!({"text": "b"})), "{path:?}");
    let other = ann.send(ann.request("POST", "/v1/tools/echo/calls").json(&json!({"tool": "spin", "arguments": {}}))).await;
    assert_eq!(other.status, 422, "a name in the body that differs from the path's: {other:?}");
    let listed = ann.send(ann.request("GET", "/v1/calls?task_id=t1")).await;
    let listed = listed.body["calls"].as_array().or(listed.body.as_array()).unwrap().len();
    assert_eq!(listed, 2);
}

#[tokio::test]
async fn the_same_tool_with_another_argument_is_refused_without_a_sandbox() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let answer = ann.call("echo", json!({"text": "LOUD"})).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert!(answer.body["detail"].as_str().unwrap().contains("no shouting"), "{answer:?}");
    assert!(answer.body["decision_id"].is_string());
    let line = mayfly.call_line(answer.body["call_id"].as_str().unwrap());
    assert_eq!(line["outcome"], "denied");
    assert_eq!(mayfly.metric("mayfly_sandbox_start_seconds_count", "").await, 0.0, "a denied call starts nothing");
    let stranger = mayfly.agent("bob").call("echo", json!({"text": "hi"})).await;
    assert_eq!(stranger.status, 403, "default deny");
}

#[tokio::test]
async fn a_call_that_never_ends_is_killed_at_its_deadline() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let begun = std::time::Instant::now();
    let answer = ann.call("spin", json!({})).await;
    assert_eq!((answer.status, &answer.body["title"]), (504, &json!("Tool timed out")), "{answer:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    let view = ann.get(answer.body["call_id"].as_str().unwrap()).await.body;
    assert_eq!(view["state"], "timed_out");
}

#[tokio::test]
async fn forbidden_and_unknown_look_the_same_and_are_counted_apart() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let (hidden, unknown) = (ann.call("hidden", json!({})).await, ann.call("nosuch", json!({})).await);
    assert_eq!((hidden.status, unknown.status), (404, 404));
    assert_eq!(
        hidden.body["detail"].as_str().unwrap().replace("hidden", "X"),
        unknown.body["detail"].as_str().unwrap().replace("nosuch", "X")
    );
    assert_eq!(mayfly.metric("tool_gateway_calls_total", "status=\"403\"").await, 1.0);
    assert_eq!(mayfly.metric("tool_gateway_calls_total", "status=\"404\"").await, 1.0);
    let listed = ann.send(ann.request("GET", "/v1/tools")).await.body.to_string();
    assert!(listed.contains("\"echo\"") && !listed.contains("\"hidden\""), "{listed}");
    assert_eq!(ann.send(ann.request("GET", "/v1/tools/hidden")).await.status, 404);
}

#[tokio::test]
async fn what_needs_approval_is_refused_until_there_is_approval() {
    let mayfly = setup().start();
    let answer = mayfly.agent("ann").call("careful", json!({})).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body["detail"].as_str().unwrap().contains("approval is not available yet"), "{answer:?}");
}

#[tokio::test]
async fn another_version_is_named() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let wanted = json!({"tool": "echo", "version": "2.0.0", "arguments": {}});
    let answer = ann.send(ann.request("POST", "/v1/calls").json(&wanted)).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body["detail"].as_str().unwrap().contains("1.0.0"), "{answer:?}");
}

#[tokio::test]
async fn past_the_longest_wait_the_call_goes_on_and_is_looked_up() {
    let mayfly = setup().set("/limits", json!({"wait": "1s"})).tool("slow", &tools::yaml("slow", ""), Some(tools::SPIN)).start();
    let ann = mayfly.agent("ann");
    let answer = ann.call("slow", json!({})).await;
    assert_eq!((answer.status, &answer.body["state"]), (202, &json!("running")), "{answer:?}");
    let id = answer.body["id"].as_str().unwrap();
    assert_eq!(answer.headers["location"].to_str().unwrap(), format!("/v1/calls/{id}"));
    assert_eq!(ann.wait(id).await["state"], "timed_out");
}
