//! Server-sent events: states, progress and log lines, in order, resumable.

use mayfly_tests::harness::{Setup, tools};
use serde_json::json;

/// Writes a progress line and a log line to standard error, and never ends.
const TALK: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{\"progress\": 1, \"total\": 2}\nlooking\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 36))
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 16)))
    (loop $l (br $l))))"#;

#[tokio::test]
async fn followers_see_it_all_in_order_and_logs_only_where_exposed() {
    let yaml = |name, extra| tools::yaml(name, extra).replace("timeout: 2s", "timeout: 700ms");
    let mayfly = Setup::new()
        .tool("open", &yaml("open", "expose_logs: true\n"), Some(TALK))
        .tool("closed", &yaml("closed", ""), Some(TALK))
        .start();
    let ann = mayfly.agent("ann");
    for (tool, shown) in [("open", true), ("closed", false)] {
        let id = ann.start(tool, json!({})).await.body["id"].as_str().unwrap().to_owned();
        let events = ann.request("GET", &format!("/v1/calls/{id}/events")).send().await.unwrap();
        assert_eq!(events.headers()["content-type"], "text/event-stream");
        let text = events.text().await.unwrap();
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in {text}"));
        assert!(place("running") < place("progress") && place("progress") < place("timed_out"), "{text}");
        assert_eq!(text.contains("looking"), shown, "{text}");
        let resumed = ann.request("GET", &format!("/v1/calls/{id}/events")).header("Last-Event-ID", "0").send().await.unwrap();
        let resumed = resumed.text().await.unwrap();
        assert!(resumed.contains("timed_out") && !resumed.contains("running"), "{resumed}");
        let over = ann.request("GET", &format!("/v1/calls/{id}/events")).header("Last-Event-ID", "end").send().await.unwrap();
        assert_eq!(over.status(), 204, "a client that has seen the end is told not to come back");
        let line = mayfly.call_line(&id);
        assert!(!line.to_string().contains("looking"), "standard error is not in the record: {line}");
    }
}
