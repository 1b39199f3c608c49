//! Warm sandboxes, seen from outside: claimed and used once, on each engine; and on Docker replaced, emptied, and gone with their
//! gateway.

use std::time::Duration;

use mayfly_tests::harness::{Agent, Engine, Kind, Mayfly, Setup, tools};
use serde_json::json;

/// Tells what it finds of those before it, and leaves something of each kind.
const DOCKERFILE: &str = r#"FROM debian:bookworm-slim
ENTRYPOINT ["sh", "-c", "files=$(ls /tmp | wc -l); others=$(ls /proc | grep -c '^[0-9]'); asleep=$(cat /proc/[0-9]*/comm | grep -c sleep); echo here >/tmp/left; sleep 1000 >/dev/null 2>&1 & echo \"{\\\"files\\\": $files, \\\"processes\\\": $others, \\\"asleep\\\": $asleep, \\\"variable\\\": \\\"$LEFT\\\"}\"; export LEFT=here"]
"#;

fn gateway(name: &str, warm: &str) -> Option<Mayfly> {
    Some(Setup::new().container(&Engine::docker()?, name, DOCKERFILE, &with(warm)).start())
}

fn with(warm: &str) -> String {
    format!("timeout: 20s\n  {warm}")
}

fn docker(args: &[&str]) -> String {
    Engine::docker().unwrap().run("docker", args, "")
}

/// The containers of a tool.
fn standing(name: &str) -> Vec<String> {
    let listed = docker(&["ps", "-aq", "--filter", &format!("label=mayfly.dev/tool={name}")]);
    listed.split_whitespace().map(str::to_owned).collect()
}

fn until(what: &str, holds: impl FnMut() -> bool) {
    mayfly_tests::harness::until(what, Duration::from_secs(30), holds);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_sandbox_is_as_fresh_as_a_cold_one_and_used_once() {
    if let Some(engine) = Engine::docker() {
        fresh_and_used_once(&engine, "warm_fresh", &with("warm: 2")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_pod_is_as_fresh_as_a_cold_one_and_used_once() {
    if let Some(engine) = Engine::kubernetes() {
        fresh_and_used_once(&engine, "warm_fresh_pod", &with("cpu: '0.2'\n  warm: 2")).await;
    }
}

async fn fresh_and_used_once(engine: &Engine, name: &str, executor: &str) {
    let mayfly = Setup::new().container(engine, name, DOCKERFILE, executor).start();
    let ann = mayfly.agent("ann");
    let full = || mayfly.until_pools_are_full(Duration::from_secs(60));
    full();
    for round in 0..3 {
        let answer = ann.call(name, json!({})).await;
        assert_eq!(answer.body["result"]["files"], 0, "{round}: {answer:?}");
        // Nobody of before, who would be asleep: the shell, the three that count, PID 1, and what an engine may add.
        assert_eq!(answer.body["result"]["asleep"], 0, "{round}: {answer:?}");
        assert!(answer.body["result"]["processes"].as_u64().unwrap() <= 7, "{round}: {answer:?}");
        assert_eq!(answer.body["result"]["variable"], "", "{round}: {answer:?}");
        let path = format!("/v1/calls/{}/trace", answer.body["id"].as_str().unwrap());
        let trace = ann.send(ann.request("GET", &path)).await.body.to_string();
        assert!(trace.contains("sandbox.claim") && !trace.contains("sandbox.start"), "{trace}");
        full();
    }
    let pool = mayfly.pools()[0].clone();
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
    let full = || mayfly.pools()[0]["idle"] == 2;
    until("the pool is full", full);
    let first = standing("warm_replaced");
    docker(&["kill", &first[0]]);
    until("it is noticed", || mayfly.pools()[0]["lost"] == 1);
    until("it is replaced", full);
    assert_eq!(ann.call("warm_replaced", json!({})).await.status, 200);

    let before = standing("warm_replaced");
    let file = mayfly.dir().join("tools/warm_replaced/tool.yaml");
    let newer = tools::container(Kind::Docker, "warm_replaced", &with("warm: 1\n  pids: 20"));
    let newer = newer.replace("version: 1.0.0", "version: 1.0.1");
    std::fs::write(&file, newer).unwrap();
    until("the old ones are gone", || before.iter().all(|id| !standing("warm_replaced").contains(id)));
    until("the new one is there", || mayfly.pools()[0]["idle"] == 1 && mayfly.pools()[0]["size"] == 1);
    let answer = ann.call("warm_replaced", json!({})).await;
    assert_eq!((answer.status, &answer.body["version"]), (200, &json!("1.0.1")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_go_with_a_killed_gateway_and_come_back_with_the_next() {
    let Some(mut mayfly) = gateway("warm_killed", "warm: {size: 3, when_empty: wait}") else { return };
    let ann = mayfly.agent("ann");
    for _ in 0..3 {
        until("the pool is full", || mayfly.pools()[0]["idle"] == 3);
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
    until("the pool is full", || mayfly.pools()[0]["idle"] == 3);
    assert_eq!(mayfly.stop(), Some(0));
    until("a gateway that stops leaves nothing", || standing("warm_killed").is_empty());
}
