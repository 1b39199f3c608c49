//! What every backend promises of every tool.

use std::time::Duration;

use super::Scenario;
use super::bench::{Bench, TRACEPARENT, call};
use crate::spec::ByteSize;
use crate::wire::{Exit, Progress, Resource};
use crate::{Event, SandboxId};

type Checked = Result<(), String>;

pub(super) async fn run(bench: &Bench<'_>, note: &mut impl FnMut(&'static str, Checked)) {
    note("a result comes back as it was written", result(bench).await);
    note("input that is not read does no harm", deaf(bench).await);
    note("lines and progress come in order, while it runs", lines(bench).await);
    note("an exit code is the tool's own", exit_code(bench).await);
    note("a spinning tool is ended at its deadline", deadline(bench, Scenario::Spin).await);
    note("a sleeping tool is ended at its deadline", deadline(bench, Scenario::Sleep).await);
    note("a canceled tool is ended", cancel(bench).await);
    note("memory is capped", memory(bench).await);
    note("output is capped", output_cap(bench).await);
    note("output may be longer than a frame", large(bench).await);
    note("there is no network", network(bench).await);
    note("there are no files and no environment but its own", look(bench).await);
    note("a standing sandbox is listed, and destroyed once or twice", destroy(bench).await);
    note("every sandbox is a new one", fresh(bench).await);
}

/// A check's condition, with what was found.
pub(super) fn ensure(kept: bool, found: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { Err(found()) }
}

async fn result(bench: &Bench<'_>) -> Checked {
    let long = "x".repeat(300_000);
    for input in ["{\"n\": 1, \"s\": \"\\u0000é\"}", "[]", &format!("\"{long}\"")] {
        let ran = bench.run(call(Scenario::Echo).stdin(input.to_owned())).await?.succeeded()?;
        ensure(ran.stdout() == format!("{{\"echo\": {input}}}"), || ran.describe())?;
        ensure(ran.report.usage.peak_memory.is_none_or(|bytes| bytes > 0), || "a peak of no memory".into())?;
    }
    Ok(())
}

async fn deaf(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Deaf).stdin(vec![b'x'; 2 << 20])).await?.succeeded()?;
    ensure(ran.stdout() == "{}", || ran.describe())
}

async fn lines(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Lines)).await?.succeeded()?;
    let progress = |n, message: Option<&str>| {
        Event::Progress(Progress { progress: n, total: Some(2.0), message: message.map(str::to_owned) })
    };
    let expected = [
        Event::Accepted,
        Event::Log("first".into()),
        progress(1.0, Some("half")),
        progress(2.0, None),
        Event::Log("last".into()),
    ];
    ensure(ran.events == expected, || format!("{:?}", ran.events))?;
    ensure(*ran.report.stdout == *b"\xff", || ran.describe())?;
    ensure(ran.report.stderr.ends_with(b"last\n") && !ran.report.stderr_truncated, || ran.describe())
}

async fn exit_code(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Exit)).await?;
    ensure(ran.report.exit == Exit::Code(7) && *ran.report.stderr == *b"because\n", || ran.describe())
}

async fn deadline(bench: &Bench<'_>, scenario: Scenario) -> Checked {
    let timeout = Duration::from_millis(1200);
    let ran = bench.run(call(scenario).timeout(timeout)).await?;
    ensure(ran.report.exit == Exit::Deadline && ran.took >= timeout && ran.took < timeout * 3, || ran.describe())
}

async fn cancel(bench: &Bench<'_>) -> Checked {
    for scenario in [Scenario::Spin, Scenario::Sleep] {
        let ran = bench.run(call(scenario).canceled()).await?;
        ensure(ran.report.exit == Exit::Canceled && ran.took < Duration::from_secs(4), || ran.describe())?;
    }
    Ok(())
}

async fn memory(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Memory)).await?;
    let exhausted = ran.report.exhausted.contains(&Resource::Memory);
    ensure(ran.report.exit == Exit::OutOfMemory && exhausted, || ran.describe())
}

async fn output_cap(bench: &Bench<'_>) -> Checked {
    let limit = ByteSize(100_000);
    let ran = bench.run(call(Scenario::Flood).output_limit(limit)).await?;
    let exhausted = ran.report.exhausted.contains(&Resource::Output);
    let cut = ran.report.stdout.len() as u64 <= limit.0;
    ensure(ran.report.exit == Exit::OutputLimit && exhausted && cut, || {
        format!("{:?} with {} bytes", ran.report, ran.stdout().len())
    })?;
    // The limit itself does not bite; one byte less does.
    let written = bench.run(call(Scenario::Echo).output_limit(ByteSize(12))).await?.succeeded()?.report.stdout.len();
    ensure(written == 12, || format!("{written} bytes"))?;
    let ran = bench.run(call(Scenario::Echo).output_limit(ByteSize(11))).await?;
    ensure(ran.report.exit == Exit::OutputLimit, || ran.describe())
}

async fn large(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Large).output_limit(ByteSize::mebibytes(32))).await?.succeeded()?;
    let whole = ran.report.stdout.len() == 20 << 20
        && ran.report.stdout.chunks(1 << 20).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| usize::from(*byte) == n));
    ensure(whole, || format!("{} bytes", ran.report.stdout.len()))
}

async fn network(bench: &Bench<'_>) -> Checked {
    let ran = bench.run(call(Scenario::Network)).await?.succeeded()?;
    ensure(ran.json()?["reached"] == serde_json::json!([]), || ran.describe())
}

async fn look(bench: &Bench<'_>) -> Checked {
    /// What a tool may find beside what its call gives it.
    const OURS: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "TRACEPARENT"];
    let ran = bench.run(call(Scenario::Look).variable("MODE", "test")).await?.succeeded()?;
    let seen = ran.json()?;
    let environment = seen["environment"].as_object().cloned().unwrap_or_default();
    ensure(environment.get("MODE").is_some_and(|mode| mode == "test"), || ran.describe())?;
    ensure(environment.get("TRACEPARENT").is_none_or(|parent| parent == TRACEPARENT), || ran.describe())?;
    let strange: Vec<_> = environment.keys().filter(|name| *name != "MODE" && !OURS.contains(&name.as_str())).collect();
    ensure(strange.is_empty(), || format!("it finds {strange:?}"))?;
    ensure(seen["read"] == serde_json::json!([]) && seen["wrote"] == serde_json::json!([]), || ran.describe())
}

async fn destroy(bench: &Bench<'_>) -> Checked {
    let id = SandboxId::generate();
    bench.destroy(id).await?;
    let standing = bench.start(id, Scenario::Echo).await;
    let listed = bench.lists(id).await;
    bench.destroy(id).await?;
    bench.destroy(id).await?;
    drop(standing?);
    ensure(listed?, || "it is not listed while it stands".into())?;
    ensure(!bench.lists(id).await?, || "it is listed after it was destroyed".into())?;
    // All at once, as a reaper and a dispatcher may.
    let id = SandboxId::generate();
    drop(bench.start(id, Scenario::Echo).await?);
    let (first, second, third) = tokio::join!(bench.destroy(id), bench.destroy(id), bench.destroy(id));
    first.and(second).and(third)?;
    ensure(!bench.lists(id).await?, || "it is listed after three destroyed it at once".into())
}

async fn fresh(bench: &Bench<'_>) -> Checked {
    // The tool notes its visit wherever it can write, and says what it found.
    for _ in 0..2 {
        let ran = bench.run(call(Scenario::Look).variable("MODE", "test")).await?.succeeded()?;
        ensure(ran.json()?["visited"] == false, || ran.describe())?;
    }
    Ok(())
}
