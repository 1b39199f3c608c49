//! What a backend promises of tools that are programs, and mean harm.

use std::time::Duration;

use super::Scenario;
use super::bench::{Bench, call};
use super::checks::ensure;
use crate::Event;
use crate::wire::{Exit, Resource};

type Checked = Result<(), String>;

pub(super) async fn run(bench: &Bench<'_>, note: &mut impl FnMut(&'static str, Checked)) {
    note("a daemon left behind holds nothing up", daemon(bench).await);
    note("a forged frame is output", forge(bench).await);
    note("the executor cannot be ended or looked into", parent(bench).await);
    note("a full disk is told", disk(bench).await);
    note("a fork bomb hits the process limit", forks(bench).await);
    note("a program that is not there is told", missing(bench).await);
    note("a fork bomb is ended at its deadline", forks_until_the_deadline(bench).await);
}

async fn daemon(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Daemon)).await?.succeeded()?;
    ensure(ran.stdout() == "{\"left\": 3}" && ran.took < Duration::from_secs(5), || ran.describe())
}

async fn forge(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Forge)).await?;
    // What it wrote is what it wrote: its own exit code, its bytes as output, and no event of its making.
    ensure(ran.report.exit == Exit::Code(3) && ran.report.stdout.len() > 16, || ran.describe())?;
    ensure(ran.events == [Event::Accepted], || format!("{:?}", ran.events))
}

async fn parent(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Parent)).await?.succeeded()?;
    ensure(ran.json()?["opened"] == serde_json::json!([]), || ran.describe())
}

async fn disk(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Disk)).await?.succeeded()?;
    ensure(ran.json()?["full"] == true && ran.report.exhausted.contains(&Resource::Disk), || ran.describe())
}

async fn forks(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Forks)).await?.succeeded()?;
    let started = ran.json()?["started"].as_u64().unwrap_or(u64::MAX);
    ensure((1..64).contains(&started), || ran.describe())?;
    ensure(!bench.tells_processes() || ran.report.exhausted.contains(&Resource::Processes), || ran.describe())
}

async fn forks_until_the_deadline(bench: &Bench<'_>) -> Checked {
    let timeout = Duration::from_secs(1);
    let ran = bench.run(call(Scenario::Forks).variable("FOR_EVER", "1").timeout(timeout)).await?;
    ensure(ran.report.exit == Exit::Deadline && ran.took < timeout * 5, || ran.describe())
}

async fn missing(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Missing)).await?;
    ensure(ran.report.exit == Exit::NotStarted && ran.report.detail.is_some(), || ran.describe())
}
