//! One log line and one row a call, with the fields of the design, and no value that was marked `writeOnly` anywhere.

use mayfly_tests::harness::{Setup, tools};
use serde_json::json;

const CANARY: &str = "canary-7f3a91";

#[tokio::test]
async fn the_line_says_what_was_asked_decided_and_came_back() {
    let mayfly = Setup::new().tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO)).start();
    let ann = mayfly.agent("ann");
    let body = json!({"tool": "echo", "arguments": {"text": "seen"}, "task_id": "t-9", "reason": "to see"});
    let answer = ann.send(ann.request("POST", "/v1/calls").json(&body)).await;
    let line = mayfly.call_line(answer.body["id"].as_str().unwrap());
    for (field, value) in [
        ("agent_id", json!("ann")),
        ("task_id", json!("t-9")),
        ("tool", json!("echo")),
        ("version", json!("1.0.0")),
        ("tier", json!("free")),
        ("outcome", json!("succeeded")),
        ("trace_id", answer.body["trace_id"].clone()),
        ("decision_id", answer.body["decision_id"].clone()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["arguments"].to_string().contains("seen"), "{line}");
    for field in ["timestamp", "latency_ms", "decision", "output"] {
        assert!(!line[field].is_null(), "{field}: {line}");
    }
}

#[tokio::test]
async fn what_is_write_only_is_nowhere_but_in_the_sandbox() {
    let yaml = tools::yaml("echo", "").replace(
        "    text: { type: string, maxLength: 4096 }\n",
        "    text: { type: string, maxLength: 4096 }\n    password: { type: string, maxLength: 64, writeOnly: true }\n",
    );
    let mut mayfly = Setup::new().tool("echo", &yaml, Some(tools::ECHO)).env("MAYFLY_LOG", "debug").start();
    let ann = mayfly.agent("ann");
    let answer = ann.call("echo", json!({"text": "plain", "password": CANARY})).await;
    assert_eq!(answer.body["result"], json!({"text": "plain", "password": "[redacted]"}), "the echo does not come back");
    let id = answer.body["id"].as_str().unwrap().to_owned();
    mayfly.call_line(&id);
    let trace = ann.send(ann.request("GET", &format!("/v1/calls/{id}/trace"))).await;
    assert!(!trace.body.to_string().contains(CANARY));
    let bad = ann.call("echo", json!({"password": [CANARY]})).await;
    assert!(!bad.body.to_string().contains(CANARY), "{bad:?}");
    mayfly.stop();
    let log = serde_json::to_string(&mayfly.log()).unwrap();
    assert!(!log.contains(CANARY), "in the log");
    assert!(!log.contains(&ann.key), "the key is in the log");
    for file in std::fs::read_dir(mayfly.dir().join("data")).unwrap().flatten().filter(|f| f.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(!holds(CANARY.as_bytes()), "the canary is in {:?}", file.path());
        assert!(!holds(ann.key.rsplit('_').next().unwrap().as_bytes()), "the key is in {:?}", file.path());
    }
}
