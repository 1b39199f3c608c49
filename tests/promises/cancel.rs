//! Whoever goes away takes the call along, and nothing stays behind.

use std::time::Duration;

use mayfly_tests::harness::{Setup, tools};
use serde_json::json;

fn setup() -> Setup {
    Setup::new().tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO)).tool(
        "spin",
        &tools::yaml("spin", "").replace("timeout: 2s", "timeout: 20s"),
        Some(tools::SPIN),
    )
}

// More threads than one: the client's connection has to close while the test waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_cancels_its_call() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let call = ann.request("POST", "/v1/calls").json(&json!({"tool": "spin", "arguments": {}, "task_id": "hang-up"}));
    assert!(call.timeout(Duration::from_millis(400)).send().await.is_err(), "the client gives up");
    let line = mayfly.wait_log(|line| line["event"] == "tool_call" && line["task_id"] == "hang-up");
    assert_eq!(line["outcome"], "canceled", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_half_of_them_canceled_leave_nothing() {
    let mayfly = setup().set("/limits", json!({"requests_per_second": 100_000, "burst": 100_000, "running": 300})).start();
    let ann = mayfly.agent("ann");
    let round = async |rounds: u64| {
        for n in 0..rounds {
            let calls = (0..200_u64).map(|i| {
                let ann = ann.clone();
                tokio::spawn(async move {
                    if i % 2 == 0 {
                        return assert_eq!(ann.call("echo", json!({"text": "x"})).await.status, 200);
                    }
                    let started = ann.start("spin", json!({})).await;
                    assert_eq!(started.status, 202, "{started:?}");
                    tokio::time::sleep(Duration::from_millis((i * 7 + n) % 60)).await;
                    let path = format!("/v1/calls/{}", started.body["id"].as_str().unwrap());
                    let ended = ann.send(ann.request("DELETE", &path)).await;
                    assert_eq!(ended.body["state"], "canceled", "{ended:?}");
                })
            });
            futures_util::future::join_all(calls).await.into_iter().for_each(|done| done.unwrap());
        }
    };
    round(2).await;
    let before = mayfly.resident();
    round(4).await;
    let grown = mayfly.resident().saturating_sub(before);
    assert!(grown < 48 << 20, "800 calls grew the gateway by {grown} bytes");
    assert_eq!(mayfly.metric("mayfly_sandboxes", "").await, 0.0, "a sandbox was left");
    let running = ann.send(ann.request("GET", "/v1/calls?limit=200")).await.body.to_string();
    assert!(!running.contains("\"running\""), "a call is stuck");
}
