//! The wall of Docker, seen from outside: nothing of a call in `docker inspect` or `docker logs`, and no container left when
//! the gateway is killed.

use std::time::Duration;

use mayfly_tests::harness::{Agent, Engine, Mayfly, Setup, cli, until};
use serde_json::json;

const CANARY: &str = "canary-51c0de";
const PATIENCE: Duration = Duration::from_secs(30);

/// A tool that waits two seconds and then echoes; `None` where Docker is not to be tested.
fn gateway() -> Option<Mayfly> {
    let engine = Engine::docker()?;
    let dockerfile = "FROM debian:bookworm-slim\nENTRYPOINT [\"sh\", \"-c\", \"sleep 2; cat; echo $$ >&2\"]\n";
    Some(Setup::new().container(&engine, "sleeper", dockerfile, "timeout: 60s").start())
}

/// All that it prints: a log has two streams.
fn docker(args: &[&str]) -> String {
    let (_, out, err) = Engine::docker().unwrap().attempt("docker", args, "");
    out + &err
}

/// The containers that run the image of this test.
fn standing() -> Vec<String> {
    docker(&["ps", "-aq", "--no-trunc", "--filter", "label=mayfly.dev/tool=sleeper"])
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_call_is_in_the_engine_and_a_killed_gateway_leaves_nothing() {
    let Some(mut mayfly) = gateway() else { return };
    let ann = mayfly.agent("ann");
    let id = ann.start("sleeper", json!({"text": CANARY})).await.body["id"].as_str().unwrap().to_owned();
    until("a container starts", PATIENCE, || !standing().is_empty());
    let container = standing().remove(0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    for view in [docker(&["inspect", &container]), docker(&["logs", &container]), docker(&["top", &container])] {
        assert!(!view.contains(CANARY), "{view}");
    }
    let done = ann.wait(&id).await;
    assert_eq!(done["result"], json!({"text": CANARY}), "{done}");
    until("it is gone", PATIENCE, || standing().is_empty());

    let id = ann.start("sleeper", json!({"text": "x"})).await.body["id"].as_str().unwrap().to_owned();
    until("a container starts", PATIENCE, || !standing().is_empty());
    tokio::time::sleep(Duration::from_millis(400)).await;
    mayfly.kill();
    mayfly.launch();
    let ann = Agent { url: mayfly.url.clone(), ..ann };
    let view = ann.get(&id).await.body;
    assert_eq!(view["state"], "interrupted", "{view}");
    until("the reaper has been", PATIENCE, || standing().is_empty());

    let id = ann.start("sleeper", json!({"text": "x"})).await.body["id"].as_str().unwrap().to_owned();
    let canceled = ann.send(ann.request("DELETE", &format!("/v1/calls/{id}"))).await;
    assert_eq!(canceled.body["state"], "canceled", "{canceled:?}");
    until("a canceled call leaves nothing", PATIENCE, || standing().is_empty());
}

/// What `tool new` writes can be built and tried as it says, on an engine whose builder is the classic one too.
#[test]
fn a_new_tool_is_built_and_tried_as_it_says() {
    if Engine::docker().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("newcomer");
    let tool = tool.to_str().unwrap();
    let run = |args: &[&str]| {
        let (code, out, err) = cli(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    };
    run(&["tool", "new", tool, "--kind", "docker"]);
    let file = dir.path().join("newcomer/Dockerfile");
    let dockerfile = std::fs::read_to_string(&file).unwrap();
    // The one image that is on this machine without a registry.
    let base = dockerfile.lines().find(|line| line.starts_with("FROM ")).unwrap();
    std::fs::write(&file, dockerfile.replace(base, "FROM debian:bookworm-slim")).unwrap();
    run(&["tool", "check", tool]);
    run(&["tool", "build", tool]);
    let tried: serde_json::Value = serde_json::from_str(&run(&["tool", "run", tool, "--arg", "name=World"])).unwrap();
    assert_eq!(tried, json!({"text": "hello, World"}));
}
