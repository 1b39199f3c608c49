//! Every limit bites, and says so.

use mayfly_tests::harness::{Setup, tools};
use serde_json::json;

/// Grows its memory until it cannot, then traps.
const HOG: &str = r#"(module (memory (export "memory") 1)
  (func (export "_start") (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable))"#;

/// Writes for ever.
const FLOOD: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (i32.store (i32.const 4) (i32.const 4096))
    (loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))) (br $l))))"#;

#[tokio::test]
async fn memory_and_output() {
    let mayfly = Setup::new()
        .tool("hog", &tools::yaml("hog", ""), Some(HOG))
        .tool("flood", &tools::yaml("flood", ""), Some(FLOOD))
        .start();
    let ann = mayfly.agent("ann");
    let hog = ann.call("hog", json!({})).await;
    assert_eq!((hog.status, &hog.body["state"], &hog.body["is_error"]), (200, &json!("failed"), &json!(true)), "{hog:?}");
    assert!(hog.body["result"]["error"].as_str().unwrap().contains("memory ceiling of 16Mi"), "{hog:?}");
    let flood = ann.call("flood", json!({})).await;
    assert!(flood.body["result"]["error"].as_str().unwrap().contains("output limit of 64Ki"), "{flood:?}");
}

#[tokio::test]
async fn concurrency_of_a_tool_and_of_the_gateway() {
    let spin = |name| tools::yaml(name, "limits: { concurrency: 1 }\n").replace("timeout: 2s", "timeout: 20s");
    let mut mayfly = Setup::new()
        .tool("one", &spin("one"), Some(tools::SPIN))
        .tool("two", &spin("two"), Some(tools::SPIN))
        .tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO))
        .set("/limits", json!({"running": 2}))
        .start();
    mayfly.leaves_running = true;
    let ann = mayfly.agent("ann");
    let first = ann.start("one", json!({})).await;
    assert_eq!(first.status, 202);
    let busy = ann.call("one", json!({})).await;
    assert_eq!((busy.status, busy.body["title"].as_str()), (429, Some("Tool at its concurrency limit")), "{busy:?}");
    assert_eq!(ann.start("two", json!({})).await.status, 202);
    let full = ann.call("echo", json!({})).await;
    assert_eq!((full.status, full.body["title"].as_str()), (503, Some("Gateway at its limit")), "{full:?}");
    let path = format!("/v1/calls/{}", first.body["id"].as_str().unwrap());
    ann.send(ann.request("DELETE", &path)).await;
    assert_eq!(ann.call("echo", json!({})).await.status, 200, "what ended makes room");
}

#[tokio::test]
async fn a_caller_that_floods_is_held_off_and_others_are_not() {
    let mayfly = Setup::new()
        .tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO))
        .set("/limits", json!({"requests_per_second": 5, "burst": 5}))
        .start();
    let (ann, bob) = (mayfly.agent("ann"), mayfly.agent("bob"));
    let mut refused = None;
    for _ in 0..30 {
        let answer = ann.call("echo", json!({})).await;
        if answer.status == 429 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("thirty at once are too many");
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(bob.call("echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn obligations_narrow_and_what_cannot_be_enforced_denies() {
    let policy = r#"package agent.authz
import rego.v1
allow := true
obligations := {"timeout": "200ms"} if input.tool == "spin"
obligations := {"row_cap": 2} if input.arguments.text == "rows"
obligations := {"moon_phase": "full"} if input.arguments.text == "unknown"
obligations := {"isolation": "container"} if input.arguments.text == "isolate"
"#;
    let mayfly = Setup::new()
        .policy(policy)
        .tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO))
        .tool("spin", &tools::yaml("spin", "").replace("timeout: 2s", "timeout: 60s"), Some(tools::SPIN))
        .start();
    let ann = mayfly.agent("ann");
    let begun = std::time::Instant::now();
    assert_eq!(ann.call("spin", json!({})).await.status, 504);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "the decision's timeout holds");
    for text in ["unknown", "isolate"] {
        let answer = ann.call("echo", json!({"text": text})).await;
        assert_eq!((answer.status, answer.body["title"].as_str()), (403, Some("Obligation cannot be enforced")), "{answer:?}");
    }
    let uncountable = ann.call("echo", json!({"text": "rows"})).await;
    assert_eq!(uncountable.status, 403, "a tool that does not say where its rows are cannot be held to a cap: {uncountable:?}");
}
