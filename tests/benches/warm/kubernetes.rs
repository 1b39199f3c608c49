//! Kubernetes: cold and warm calls one at a time, and a burst on a full pool.

use std::time::{Duration, Instant};

use mayfly_tests::bench::{Aim, Figure, Quantiles, publish};
use mayfly_tests::harness::{Engine, Setup};

use crate::docker::{GIVEN, SECRET, call, secret};
use crate::jobs::Jobs;
use crate::{ECHO, room, steps};

const ROUNDS: usize = 20;
const BURST: usize = 20;
/// How often all of them at once.
const BURSTS: usize = 3;
const MINUTE: Duration = Duration::from_secs(60);
const JOB: &str = "Job, create to Complete";

pub(crate) async fn compare(engine: &Engine, docker: &Engine, docker_warm: Quantiles) {
    // So many requests have to fit the node.
    let pool = "timeout: 20s\n  cpu: '0.25'\n  warm: 4\n  kubernetes: {cpu_request: '0.1'}";
    let mayfly = Setup::new()
        .container(engine, "bench_cold", ECHO, "timeout: 20s\n  cpu: '0.25'")
        .container(engine, "bench_warm", ECHO, pool)
        .container(engine, "bench_given", ECHO, &format!("{pool}\n{GIVEN}"))
        .set("/credentials", secret())
        .start();
    mayfly.set_secret(SECRET, "a secret of the benchmark");
    let ann = mayfly.agent("ann");
    let jobs = Jobs::new(engine, docker).await;
    let (mut cold, mut warm, mut given, mut bare, mut traces) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 2 {
        mayfly.until_pools_are_full(MINUTE);
        let (warm_took, id) = call(&ann, "bench_warm").await;
        mayfly.until_pools_are_full(MINUTE);
        let (given_took, _) = call(&ann, "bench_given").await;
        mayfly.until_pools_are_full(MINUTE);
        let (cold_took, _) = call(&ann, "bench_cold").await;
        mayfly.until_pools_are_full(MINUTE);
        let theirs = jobs.one(["0.25"; 2]).await;
        if round >= 2 {
            cold.push(cold_took);
            warm.push(warm_took);
            given.push(given_took);
            bare.push(theirs);
            traces.push(id);
        }
    }
    steps::print("Kubernetes, warm", &ann, &traces).await;
    let (cold, bare) = (Quantiles::micros(cold), Quantiles::micros(bare));
    let (warm, given) = (Quantiles::micros(warm), Quantiles::micros(given));
    drop(mayfly);
    publish(&[
        Figure::new("Kubernetes call, cold", "us", cold, (JOB, bare), Aim::RatioAtMost(0.4)),
        Figure::new("Kubernetes call, warm", "us", warm, (JOB, bare), Aim::RatioAtMost(1.0 / 300.0)),
        Figure::new("Kubernetes call, warm", "us", warm, ("Docker call, warm", docker_warm), Aim::RatioAtMost(1.5)),
        Figure::new("Kubernetes call, warm, with a secret", "us", given, ("Kubernetes call, warm", warm), Aim::RatioAtMost(1.2)),
    ]);
    publish(&[burst(engine, &jobs).await]);
    publish(&room::per_warm_sandbox(engine).await);
}

/// As many calls at once as sandboxes wait, beside as many Jobs at once.
async fn burst(engine: &Engine, jobs: &Jobs) -> Figure {
    // The pods of one burst may still be going when those for the next come: so many requests have to fit the node.
    const CPU: [&str; 2] = ["0.045", "0.5"];
    let mut theirs = Vec::new();
    for _ in 0..BURSTS {
        jobs.gone().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        theirs.push(jobs.at_once(BURST, CPU).await);
    }
    jobs.gone().await;
    let [request, limit] = CPU;
    let warm = format!("timeout: 20s\n  cpu: '{limit}'\n  warm: {BURST}\n  kubernetes: {{cpu_request: '{request}'}}");
    let mayfly = Setup::new().container(engine, "bench_burst", ECHO, &warm).start();
    let ann = mayfly.agent("ann");
    let mut ours = Vec::new();
    for _ in 0..BURSTS {
        mayfly.until_pools_are_full(5 * MINUTE);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        futures_util::future::join_all((0..BURST).map(|_| call(&ann, "bench_burst"))).await;
        ours.push(begun.elapsed());
    }
    let name = format!("{BURST} Kubernetes calls at once, warm");
    let baseline = format!("{BURST} Jobs at once");
    Figure::new(&name, "us", Quantiles::micros(ours), (&baseline, Quantiles::micros(theirs)), Aim::RatioAtMost(0.05))
}
