//! Warm sandboxes of Docker, seen from outside: claimed, used once, replaced, emptied, and gone with their gateway.

use std::process::Command;
use std::time::{Duration, Instant};

use mayfly_tests::harness::{Agent, Mayfly, Setup, cli, tools};
use serde_json::{Value, json};

/// Tells what it finds of those before it, and leaves something of each kind.
const DOCKERFILE: &str = r#"FROM debian:bookworm-slim
ENTRYPOINT ["sh", "-c", "files=$(ls /tmp | wc -l); others=$(ls /proc | grep -c '^[0-9]'); echo here >/tmp/left; sleep 1000 >/dev/null 2>&1 & echo \"{\\\"files\\\": $files, \\\"processes\\\": $others, \\\"variable\\\": \\\"$LEFT\\\"}\"; export LEFT=here"]
"#;

fn gateway(name: &str, warm: &str) -> Option<Mayfly> {
    if std::env::var("MAYFLY_TEST_SKIP_DOCKER").is_ok_and(|v| v == "1") {
        eprintln!("SKIPPED, as MAYFLY_TEST_SKIP_DOCKER=1 says: nothing of Docker is tested");
        return None;
    }
    let setup = Setup::new().tool(name, &yaml(name, warm), None);
    let folder = setup.dir.path().join("tools").join(name);
    std::fs::write(folder.join("Dockerfile"), DOCKERFILE).unwrap();
    let (code, _, err) = cli(&["tool", "build", folder.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    Some(setup.set("/docker/enabled", json!("always")).start())
}

fn yaml(name: &str, warm: &str) -> String {
    tools::yaml(name, "")
        .replace("backend: wasm\n  module: tool.wasm", &format!("backend: docker\n  image: mayfly-test/{name}:1\n  {warm}"))
        .replace("memory: 16Mi", "memory: 64Mi")
        .replace("timeout: 2s", "timeout: 20s")
}

fn pools(mayfly: &Mayfly) -> Value {
    let socket = mayfly.admin_socket();
    let (_, out, _) = cli(&["pool", "list", "-o", "json", "--socket", socket.to_str().unwrap()]);
    serde_json::from_str(&out).unwrap_or_default()
}

/// The containers of a tool.
fn standing(name: &str) -> Vec<String> {
    let output =
        Command::new("docker").args(["ps", "-aq", "--filter", &format!("label=mayfly.dev/tool={name}")]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_sandbox_is_as_fresh_as_a_cold_one_and_used_once() {
    let Some(mayfly) = gateway("warm_fresh", "warm: 2") else { return };
    let ann = mayfly.agent("ann");
    let full = || pools(&mayfly)[0]["idle"] == 2;
    until("the pool is full", full);
    for round in 0..3 {
        let answer = ann.call("warm_fresh", json!({})).await;
        // The shell, what it runs, and PID 1: nobody of before.
        assert_eq!(answer.body["result"]["files"], 0, "{round}: {answer:?}");
        assert!(answer.body["result"]["processes"].as_u64().unwrap() <= 5, "{round}: {answer:?}");
        assert_eq!(answer.body["result"]["variable"], "", "{round}: {answer:?}");
        let path = format!("/v1/calls/{}/trace", answer.body["id"].as_str().unwrap());
        let trace = ann.send(ann.request("GET", &path)).await.body.to_string();
        assert!(trace.contains("sandbox.claim") && !trace.contains("sandbox.start"), "{trace}");
        until("the pool is full again", full);
    }
    let pool = pools(&mayfly)[0].clone();
    assert_eq!((&pool["claims"], &pool["misses"], &pool["lost"]), (&json!(3), &json!(0), &json!(0)), "{pool}");
    assert!(pool["start_p50_ms"].as_f64().unwrap() > 1.0 && pool["oldest_seconds"].is_number(), "{pool}");
    assert_eq!(mayfly.metric("mayfly_pool_claims_total", "result=\"hit\"").await, 3.0);
    assert_eq!(mayfly.metric("mayfly_pool_sandboxes", "state=\"idle\"").await, 2.0);
    assert_eq!(mayfly.metric("mayfly_sandboxes", "state=\"warm\"").await, 2.0);
    assert!(mayfly.metric("mayfly_sandbox_start_seconds_count", "temperature=\"warm\"").await >= 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_container_that_dies_is_replaced_and_a_new_version_empties_the_pool() {
    let Some(mayfly) = gateway("warm_replaced", "warm: 2") else { return };
    let ann = mayfly.agent("ann");
    let full = || pools(&mayfly)[0]["idle"] == 2;
    until("the pool is full", full);
    let first = standing("warm_replaced");
    assert!(Command::new("docker").args(["kill", &first[0]]).output().unwrap().status.success());
    until("it is noticed", || pools(&mayfly)[0]["lost"] == 1);
    until("it is replaced", full);
    assert_eq!(ann.call("warm_replaced", json!({})).await.status, 200);

    let before = standing("warm_replaced");
    let file = mayfly.dir().join("tools/warm_replaced/tool.yaml");
    std::fs::write(&file, yaml("warm_replaced", "warm: 1\n  pids: 20").replace("version: 1.0.0", "version: 1.0.1")).unwrap();
    until("the old ones are gone", || before.iter().all(|id| !standing("warm_replaced").contains(id)));
    until("the new one is there", || pools(&mayfly)[0]["idle"] == 1 && pools(&mayfly)[0]["size"] == 1);
    let answer = ann.call("warm_replaced", json!({})).await;
    assert_eq!((answer.status, &answer.body["version"]), (200, &json!("1.0.1")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_go_with_a_killed_gateway_and_come_back_with_the_next() {
    let Some(mut mayfly) = gateway("warm_killed", "warm: {size: 3, when_empty: wait}") else { return };
    let ann = mayfly.agent("ann");
    for _ in 0..3 {
        until("the pool is full", || pools(&mayfly)[0]["idle"] == 3);
        let before = standing("warm_killed");
        let ann = Agent { url: mayfly.url.clone(), ..ann.clone() };
        let running = ann.start("warm_killed", json!({})).await;
        assert_eq!(running.status, 202, "{running:?}");
        mayfly.kill();
        mayfly.launch();
        until("what the killed one had is gone", || {
            let now = standing("warm_killed");
            before.iter().all(|id| !now.contains(id))
        });
    }
    until("the pool is full", || pools(&mayfly)[0]["idle"] == 3);
    assert_eq!(mayfly.stop(), Some(0));
    until("a gateway that stops leaves nothing", || standing("warm_killed").is_empty());
}
