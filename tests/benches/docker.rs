//! A cold Docker call, from HTTP to the answer, beside `docker run --rm --network none` of the same program with the same limits.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use mayfly_tests::bench::{Aim, Figure, Quantiles, publish};
use mayfly_tests::harness::{Setup, cli, tools};
use serde_json::json;

const BASE: &str = "debian:bookworm-slim";
const ROUNDS: usize = 40;

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(compare());
}

async fn compare() {
    let yaml = tools::yaml("cat", "").replace("backend: wasm", "backend: docker").replace("module: tool.wasm", "image: mayfly-bench/cat:1");
    let setup = Setup::new().tool("cat", &yaml.replace("memory: 16Mi", "memory: 64Mi").replace("timeout: 2s", "timeout: 20s"), None);
    let folder = setup.dir.path().join("tools/cat");
    std::fs::write(folder.join("Dockerfile"), format!("FROM {BASE}\nENTRYPOINT [\"cat\"]\n")).unwrap();
    let (code, _, err) = cli(&["tool", "build", folder.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    let mayfly = setup.set("/docker/enabled", json!("always")).start();
    let ann = mayfly.agent("ann");
    // In turns, so that both meet the same machine.
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 3 {
        let begun = Instant::now();
        let answer = ann.call("cat", json!({"text": "hello"})).await;
        assert_eq!(answer.body["result"], json!({"text": "hello"}), "{answer:?}");
        let taken = begun.elapsed();
        let theirs = docker_run();
        if round >= 3 {
            ours.push(taken);
            bare.push(theirs);
        }
    }
    let steps = ann.call("cat", json!({"text": "hello"})).await;
    let path = format!("/v1/calls/{}/trace", steps.body["id"].as_str().unwrap());
    println!("One cold call, step by step (start and length in us):");
    for span in ann.send(ann.request("GET", &path)).await.body.as_array().unwrap() {
        println!("  {:>7} {:>7}  {}", span["start_us"], span["duration_us"], span["name"].as_str().unwrap());
    }
    let (ours, bare) = (Quantiles::micros(ours), Quantiles::micros(bare));
    publish(&[Figure::new("Docker call, cold, to the answer", "us", ours, ("docker run --rm --network none", bare), Aim::RatioAtMost(0.6))]);
}

fn docker_run() -> std::time::Duration {
    let begun = Instant::now();
    let mut docker = Command::new("docker")
        .args(["run", "--rm", "-i", "--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"])
        .args(["--user", "65532:65532", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "64", "--cpus", "1"])
        .args(["--tmpfs", "/tmp:size=16m", "--log-driver", "none", BASE, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    docker.stdin.take().unwrap().write_all(br#"{"text":"hello"}"#).unwrap();
    let output = docker.wait_with_output().unwrap();
    assert_eq!(output.stdout, br#"{"text":"hello"}"#);
    begun.elapsed()
}
