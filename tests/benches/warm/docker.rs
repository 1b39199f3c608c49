//! Docker: one warm call at a time, a steady load at half of what can be replenished, and saturation.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mayfly_tests::bench::{Aim, Figure, Quantiles};
use mayfly_tests::harness::{Agent, Engine, Setup};
use serde_json::{Value, json};

use crate::{BASE, ECHO, room, steps};

const ROUNDS: usize = 40;
const POOL: u32 = 8;
const MINUTE: Duration = Duration::from_secs(60);
const RUN: &str = "docker run --rm --network none";

/// A secret of the vault.
pub(crate) const SECRET: &str = "bench";
/// A tool that is given it, as a variable.
pub(crate) const GIVEN: &str = "credentials: [{source: bench, deliver: env, variable: TOKEN}]";

/// The source that gives it.
pub(crate) fn secret() -> Value {
    json!({"bench": {"kind": "static", "secret": SECRET}})
}

/// The figures, and the warm calls' latency.
pub(crate) async fn compare(engine: &Engine) -> (Vec<Figure>, Quantiles) {
    let pool = format!("timeout: 20s\n  warm: {POOL}");
    let mayfly = Setup::new()
        .container(engine, "bench_warm", ECHO, &pool)
        .container(engine, "bench_given", ECHO, &format!("{pool}\n{GIVEN}"))
        .set("/credentials", secret())
        .start();
    mayfly.set_secret(SECRET, "a secret of the benchmark");
    let ann = mayfly.agent("ann");
    // In turns, so that all meet the same machine.
    let (mut warm, mut with_secret, mut bare, mut traces) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 3 {
        mayfly.until_pools_are_full(MINUTE);
        let (taken, id) = call(&ann, "bench_warm").await;
        mayfly.until_pools_are_full(MINUTE);
        let (given, _) = call(&ann, "bench_given").await;
        let theirs = docker_run();
        if round >= 3 {
            warm.push(taken);
            with_secret.push(given);
            bare.push(theirs);
            traces.push(id);
        }
    }
    steps::print("Docker, warm", &ann, &traces).await;
    let (warm, with_secret, bare) = (Quantiles::micros(warm), Quantiles::micros(with_secret), Quantiles::micros(bare));
    let mut figures = vec![
        Figure::new("Docker call, warm", "us", warm, (RUN, bare), Aim::RatioAtMost(1.0 / 80.0)),
        Figure::new("Docker call, warm, with a secret", "us", with_secret, ("Docker call, warm", warm), Aim::RatioAtMost(1.2)),
    ];
    drop(mayfly);
    figures.extend(under_load(engine, bare).await);
    figures.extend(room::per_warm_sandbox(engine).await);
    (figures, warm)
}

async fn under_load(engine: &Engine, bare: Quantiles) -> Vec<Figure> {
    let warm = format!("timeout: 20s\n  warm: {{size: {POOL}, when_empty: wait}}");
    let mayfly = Setup::new().container(engine, "bench_load", ECHO, &warm).start();
    let ann = mayfly.agent("ann");
    mayfly.until_pools_are_full(MINUTE);
    let (per_second, saturated) = saturate(&ann, Duration::from_secs(20)).await;
    mayfly.until_pools_are_full(MINUTE);
    let half = paced(&ann, Duration::from_secs_f64(2.0 / per_second), 200).await;
    println!("Docker: {per_second:.1} sandboxes a second can be replenished; p50 at half of that {:.0} us", half.p50);
    vec![
        Figure::new(
            "Docker call, warm, p99 at half the rate of replenishment",
            "us",
            Quantiles::single(half.p99),
            (RUN, bare),
            Aim::RatioAtMost(1.0 / 25.0),
        ),
        Figure::new("Docker call at saturation, 16 at once", "us", saturated, (RUN, bare), Aim::None),
    ]
}

/// Calls without a pause from more callers than there are sandboxes: what comes through, and how long each waits.
async fn saturate(ann: &Agent, time: Duration) -> (f64, Quantiles) {
    let begun = Instant::now();
    let callers: Vec<_> = (0..2 * POOL)
        .map(|_| {
            let ann = ann.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while begun.elapsed() < time {
                    taken.push(call(&ann, "bench_load").await.0);
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for caller in callers {
        taken.extend(caller.await.unwrap());
    }
    // What was full at the beginning was not replenished.
    let replenished = taken.len() - POOL as usize;
    (replenished as f64 / begun.elapsed().as_secs_f64(), Quantiles::micros(taken))
}

/// One call every `pause`, whether or not the one before is over.
async fn paced(ann: &Agent, pause: Duration, count: u32) -> Quantiles {
    let mut ticks = tokio::time::interval(pause);
    let mut calls = Vec::new();
    for _ in 0..count {
        ticks.tick().await;
        let ann = ann.clone();
        calls.push(tokio::spawn(async move { call(&ann, "bench_load").await.0 }));
    }
    let mut taken = Vec::new();
    for call in calls {
        taken.push(call.await.unwrap());
    }
    Quantiles::micros(taken)
}

/// One call from HTTP to the answer: how long, and its id.
pub(crate) async fn call(ann: &Agent, tool: &str) -> (Duration, String) {
    let begun = Instant::now();
    let answer = ann.call(tool, json!({"text": "hello"})).await;
    let taken = begun.elapsed();
    assert_eq!(answer.body["result"], json!({"text": "hello"}), "{answer:?}");
    (taken, answer.body["id"].as_str().unwrap().to_owned())
}

fn docker_run() -> Duration {
    let begun = Instant::now();
    let mut docker = Command::new("docker")
        .args(["run", "--rm", "-i", "--network", "none", "--read-only", "--cap-drop", "ALL", "--user", "65532:65532"])
        .args(["--security-opt", "no-new-privileges", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "64"])
        .args(["--cpus", "1", "--tmpfs", "/tmp:size=16m", "--log-driver", "none", BASE, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    docker.stdin.take().unwrap().write_all(br#"{"text":"hello"}"#).unwrap();
    let output = docker.wait_with_output().unwrap();
    assert_eq!(output.stdout, br#"{"text":"hello"}"#);
    begun.elapsed()
}
