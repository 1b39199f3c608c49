//! A wasm call through HTTP, with authentication, policy, ledger and audit line, beside a bare axum JSON echo in a process of its own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mayfly_tests::bench::{Aim, Figure, Quantiles, publish};
use mayfly_tests::harness::{Agent, Mayfly, Setup, tools};
use mayfly_tests::load::{self, Load};
use serde_json::{Value, json};

const TIME: Duration = Duration::from_secs(8);

fn main() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    if std::env::args().any(|arg| arg == "echo") {
        return runtime().block_on(echo());
    }
    runtime().block_on(compare());
}

/// The baseline: parses JSON, answers with it.
async fn echo() {
    let app =
        axum::Router::new().route("/v1/calls", axum::routing::post(async |axum::Json(body): axum::Json<Value>| axum::Json(body)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}

fn gateway(durability: &str) -> (Mayfly, Agent) {
    let mayfly = Setup::new()
        .policy("package agent.authz\nimport rego.v1\nallow if data.grants[input.agent_id][input.tool]\n")
        .data(&json!({"grants": {"ann": {"echo": true}}}))
        .tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO))
        .set("/durability", json!(durability))
        .set("/limits", json!({"requests_per_second": 1_000_000, "burst": 1_000_000}))
        .start();
    let ann = mayfly.agent("ann");
    (mayfly, ann)
}

async fn loads(address: &str, request: &[u8]) -> (Load, Load) {
    load::run(address, request, 32, Duration::from_secs(2)).await;
    (load::run(address, request, 1, TIME).await, load::run(address, request, 32, TIME).await)
}

/// What a durable commit costs here: an append of a page and its fdatasync.
fn durable_commit() -> Quantiles {
    let mut file = tempfile::tempfile_in(mayfly_tests::harness::target()).unwrap();
    let taken = (0..500).map(|_| {
        let begun = Instant::now();
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        begun.elapsed()
    });
    Quantiles::micros(taken.collect())
}

async fn compare() {
    let mut echo = Command::new(std::env::current_exe().unwrap()).arg("echo").stdout(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(echo.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let body = json!({"tool": "echo", "arguments": {"text": "hello"}}).to_string();
    let (bare_1, bare_32) = loads(address.trim(), &load::post("/v1/calls", "none", &body)).await;
    echo.kill().unwrap();
    echo.wait().unwrap();
    let fsync = durable_commit();

    let mut figures = vec![Figure::new("durable commit (4 KiB append + fdatasync)", "us", fsync, ("itself", fsync), Aim::None)];
    for durability in ["full", "relaxed"] {
        let (mayfly, ann) = gateway(durability);
        let address = mayfly.url.trim_start_matches("http://").to_owned();
        let (ours_1, ours_32) = loads(&address, &load::post("/v1/calls", &ann.key, &body)).await;
        let full = durability == "full";
        let throughput = if full { Aim::RatioAtLeast(0.15) } else { Aim::None };
        let latency = if full { Aim::AtMost(bare_1.latency.p50 + 2.0 * fsync.p50 + 350.0) } else { Aim::None };
        figures.push(Figure::new(
            &format!("wasm call over HTTP, 32 connections, {durability}"),
            "calls/s",
            Quantiles::single(ours_32.per_second),
            ("bare axum echo", Quantiles::single(bare_32.per_second)),
            throughput,
        ));
        let name = format!("wasm call over HTTP, 1 connection, {durability}");
        figures.push(Figure::new(&name, "us", ours_1.latency, ("bare axum echo", bare_1.latency), latency));
        let name = format!("wasm call over HTTP, 32 connections, {durability}");
        figures.push(Figure::new(&name, "us", ours_32.latency, ("bare axum echo", bare_32.latency), Aim::None));
        if full {
            steps(&ann).await;
        }
    }
    publish(&figures);
}

/// Where the time of one call goes.
async fn steps(ann: &Agent) {
    let answer = ann.call("echo", json!({"text": "hello"})).await;
    let path = format!("/v1/calls/{}/trace", answer.body["id"].as_str().expect("an id"));
    let trace = ann.send(ann.request("GET", &path)).await.body;
    println!("One call, step by step (start and length in us):");
    for span in trace["spans"].as_array().or(trace.as_array()).expect("spans") {
        println!("  {:>7} {:>7}  {}", span["start_us"], span["duration_us"], span["name"].as_str().expect("a name"));
    }
}
