//! Where the time of a call goes, from the spans of its trace.

use mayfly_tests::bench::Quantiles;
use mayfly_tests::harness::Agent;
use std::time::Duration;

/// Prints the median and the tail of each step over these calls.
pub(crate) async fn print(what: &str, ann: &Agent, ids: &[String]) {
    let mut steps: [(&str, Vec<Duration>); 4] =
        [("claim", vec![]), ("deliver (the record of it included)", vec![]), ("run", vec![]), ("collect", vec![])];
    for id in ids {
        let trace = ann.send(ann.request("GET", &format!("/v1/calls/{id}/trace"))).await.body;
        let at = |name: &str| {
            let span = trace.as_array().unwrap().iter().find(|span| span["name"] == name);
            let span = span.unwrap_or_else(|| panic!("no {name} in {trace}"));
            let number = |key: &str| span[key].as_f64().unwrap();
            (number("start_us"), number("start_us") + number("duration_us"))
        };
        let (claim, run, started, reaped) = (at("sandbox.claim"), at("tool.run"), at("process.start"), at("process.reap"));
        let taken = [claim.1 - claim.0, started.0 - run.0, reaped.1 - started.0, run.1 - reaped.1];
        for (step, taken) in steps.iter_mut().zip(taken) {
            step.1.push(Duration::from_secs_f64(taken.max(0.0) / 1e6));
        }
    }
    println!("{what}, step by step (p50 and p99 in us, {} calls):", ids.len());
    for (step, taken) in steps {
        let Quantiles { p50, p99 } = Quantiles::micros(taken);
        println!("  {p50:>8.0} {p99:>8.0}  {step}");
    }
    if let Some(last) = ids.last() {
        let trace = ann.send(ann.request("GET", &format!("/v1/calls/{last}/trace"))).await.body;
        for span in trace.as_array().into_iter().flatten() {
            println!("    {:>8} {:>8}  {}", span["start_us"], span["duration_us"], span["name"].as_str().unwrap_or_default());
        }
    }
}
