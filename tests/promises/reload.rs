//! Policy and tools change while the gateway runs: the next call sees the new, or the old stays, loudly.

use std::time::Duration;

use mayfly_tests::harness::{Agent, Setup, tools};
use serde_json::json;

async fn becomes(ann: &Agent, status: u16) {
    for _ in 0..100 {
        if ann.call("echo", json!({"text": "x"})).await.status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the answer never became {status}");
}

#[tokio::test]
async fn an_edited_policy_decides_the_next_call_and_a_broken_one_changes_nothing() {
    let mayfly = Setup::new().tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO)).start();
    let ann = mayfly.agent("ann");
    let rego = mayfly.dir().join("policy/authz.rego");
    becomes(&ann, 200).await;
    std::fs::write(&rego, "package agent.authz\nallow := false\n").unwrap();
    becomes(&ann, 403).await;
    std::fs::write(&rego, "package agent.authz\nallow := true if {{{\n").unwrap();
    let line = mayfly.wait_log(|line| line["level"] == "ERROR" && line.to_string().contains("authz.rego"));
    assert!(line.to_string().contains("stays"), "it says that the old one stays: {line}");
    assert_eq!(ann.call("echo", json!({"text": "x"})).await.status, 403, "the old one stayed");
    let moved = mayfly.dir().join("policy.new");
    std::fs::write(&moved, "package agent.authz\nallow := true\n").unwrap();
    std::fs::rename(&moved, &rego).unwrap();
    becomes(&ann, 200).await;
}

#[tokio::test]
async fn tools_come_change_and_go() {
    let mayfly = Setup::new().start();
    let ann = mayfly.agent("ann");
    assert_eq!(ann.call("echo", json!({"text": "x"})).await.status, 404);
    let folder = mayfly.dir().join("tools/echo");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("tool.wasm"), wat::parse_str(tools::ECHO).unwrap()).unwrap();
    std::fs::write(folder.join("tool.yaml"), tools::yaml("echo", "")).unwrap();
    becomes(&ann, 200).await;
    std::fs::write(folder.join("tool.yaml"), tools::yaml("echo", "surprise: true\n")).unwrap();
    mayfly.wait_log(|line| line["level"] == "ERROR" && line.to_string().contains("surprise"));
    assert_eq!(ann.call("echo", json!({"text": "x"})).await.status, 200, "the old one stayed");
    std::fs::remove_dir_all(&folder).unwrap();
    becomes(&ann, 404).await;
}

#[test]
fn a_gateway_does_not_start_on_a_broken_policy() {
    let setup = Setup::new().policy("package agent.authz\nallow if");
    let config = setup.dir.path().join("mayfly.json");
    std::fs::write(
        &config,
        json!({"policy": {"path": setup.dir.path().join("policy")}, "tools": [setup.dir.path().join("tools")],
        "data_dir": setup.dir.path().join("data"), "listen": "127.0.0.1:0", "observability_listen": "127.0.0.1:0"})
        .to_string(),
    )
    .unwrap();
    let (code, _, err) = mayfly_tests::harness::cli(&["serve", "--config", config.to_str().unwrap()]);
    assert_ne!(code, 0);
    assert!(err.contains("authz.rego"), "{err}");
}
