//! The wall of Docker, seen from outside: nothing of a call in `docker inspect` or `docker logs`, and no container left when
//! the gateway is killed.

use std::process::Command;
use std::time::{Duration, Instant};

use mayfly_tests::harness::{Agent, Mayfly, Setup, cli, tools};
use serde_json::json;

const CANARY: &str = "canary-51c0de";

/// A tool that waits as many seconds as it is told and then echoes; `None` where Docker is not to be tested.
fn gateway() -> Option<Mayfly> {
    if std::env::var("MAYFLY_TEST_SKIP_DOCKER").is_ok_and(|v| v == "1") {
        eprintln!("SKIPPED, as MAYFLY_TEST_SKIP_DOCKER=1 says: nothing of Docker is tested");
        return None;
    }
    let yaml = tools::yaml("sleeper", "")
        .replace("backend: wasm\n  module: tool.wasm", "backend: docker\n  image: mayfly-test/sleeper:1")
        .replace("memory: 16Mi", "memory: 64Mi")
        .replace("timeout: 2s", "timeout: 60s");
    let setup = Setup::new().tool("sleeper", &yaml, None);
    let folder = setup.dir.path().join("tools/sleeper");
    let dockerfile = "FROM debian:bookworm-slim\nENTRYPOINT [\"sh\", \"-c\", \"sleep 2; cat; echo $$ >&2\"]\n";
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    let (code, _, err) = cli(&["tool", "build", folder.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    Some(setup.set("/docker/enabled", json!("always")).start())
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The containers that run the image of this test.
fn standing() -> Vec<String> {
    docker(&["ps", "-aq", "--no-trunc", "--filter", "label=mayfly.dev/tool=sleeper"]).split_whitespace().map(str::to_owned).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn nothing_of_a_call_is_in_the_engine_and_a_killed_gateway_leaves_nothing() {
    let Some(mut mayfly) = gateway() else { return };
    let ann = mayfly.agent("ann");
    let id = ann.start("sleeper", json!({"text": CANARY})).await.body["id"].as_str().unwrap().to_owned();
    until("a container starts", || !standing().is_empty()).await;
    let container = standing().remove(0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    for view in [docker(&["inspect", &container]), docker(&["logs", &container]), docker(&["top", &container])] {
        assert!(!view.contains(CANARY), "{view}");
    }
    let done = ann.wait(&id).await;
    assert_eq!(done["result"], json!({"text": CANARY}), "{done}");
    until("it is gone", || standing().is_empty()).await;

    let id = ann.start("sleeper", json!({"text": "x"})).await.body["id"].as_str().unwrap().to_owned();
    until("a container starts", || !standing().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    mayfly.kill();
    mayfly.launch();
    let ann = Agent { url: mayfly.url.clone(), ..ann };
    let view = ann.get(&id).await.body;
    assert_eq!(view["state"], "interrupted", "{view}");
    until("the reaper has been", || standing().is_empty()).await;

    let id = ann.start("sleeper", json!({"text": "x"})).await.body["id"].as_str().unwrap().to_owned();
    let canceled = ann.send(ann.request("DELETE", &format!("/v1/calls/{id}"))).await;
    assert_eq!(canceled.body["state"], "canceled", "{canceled:?}");
    until("a canceled call leaves nothing", || standing().is_empty()).await;
}
