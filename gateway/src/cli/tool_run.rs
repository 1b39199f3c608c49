//! `mayfly tool run DIR`: tries a tool without a gateway.

use std::path::PathBuf;

use mayfly_executor::wire::Exit as ToolExit;
use mayfly_executor::{Event, InstanceId};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::arguments::{Argument, merge};
use super::call::object;
use super::output::{Format, note, print};
use super::{Exit, Failure, backends, tool_build};
use crate::catalog::{Arguments, Tool};
use crate::trial::{self, Trial, TrialError};

/// Tries a tool in a real sandbox, under its own limits, without a gateway: policy is not asked, and nothing is recorded.
#[derive(Debug, Clone, clap::Args)]
pub struct ToolRun {
    /// Folder with a tool.yaml
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// An argument: `name=value` (the tool's schema says of which type), or `name:=JSON`
    #[arg(long = "arg", value_name = "K=V")]
    arguments: Vec<Argument>,
    /// All arguments as a JSON object: the text itself, @FILE, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    args_json: Option<String>,
    /// text: the result alone; json and yaml: with how the tool ended and what it used
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What a trial came to, for programs.
#[derive(Debug, Serialize)]
struct Outcome {
    tool: String,
    version: String,
    is_error: bool,
    result: Value,
    ended: String,
    duration_ms: f64,
    cpu_ms: f64,
    peak_memory_bytes: Option<u64>,
}

impl ToolRun {
    /// Runs it and prints its result; its standard error is shown as it comes. Ctrl-C ends it.
    ///
    /// # Errors
    /// [`Failure`] when there is no result to print: a definition or arguments that do not fit, or no sandbox to run it in.
    pub async fn run(self) -> Result<Exit, Failure> {
        let tool = tool_build::load(&self.dir)?;
        let arguments = self.arguments(&tool)?;
        let instance = InstanceId(Uuid::new_v4());
        let backend = backends::one(tool.definition.executor.backend, instance)?;
        note(&format!("trying {} {} without a gateway: policy is not asked", tool.definition.name, tool.definition.version));
        let canceled = CancellationToken::new();
        let running = trial::run(&tool, &arguments, backend, instance, &show, canceled.clone());
        tokio::pin!(running);
        let tried = tokio::select! {
            tried = &mut running => tried,
            _ = tokio::signal::ctrl_c() => {
                canceled.cancel();
                running.await
            }
        };
        self.report(&tool, &tried.map_err(|error| failure(&error))?)
    }

    fn arguments(&self, tool: &Tool) -> Result<Arguments, Failure> {
        let whole = self.args_json.as_deref().map_or_else(|| Ok(Map::new()), object)?;
        let given = merge(whole, self.arguments.clone(), &tool.definition.input_schema)?;
        tool.validate(given).map_err(|violations| {
            let lines = violations.iter().map(|violation| {
                let at = if violation.pointer.is_empty() { "the arguments" } else { &violation.pointer };
                format!("\n  {at}: {}", violation.detail)
            });
            Failure::new(Exit::Invalid, format!("the arguments do not fit the input schema:{}", lines.collect::<String>()))
        })
    }

    fn report(&self, tool: &Tool, tried: &Trial) -> Result<Exit, Failure> {
        let outcome = Outcome {
            tool: tool.definition.name.clone(),
            version: tool.definition.version.clone(),
            is_error: !tried.succeeded() || tried.output_mismatch.is_some(),
            result: tried.result(),
            ended: ending(tried),
            duration_ms: tried.took.as_secs_f64() * 1e3,
            cpu_ms: tried.report.usage.cpu.as_secs_f64() * 1e3,
            peak_memory_bytes: tried.report.usage.peak_memory,
        };
        print(&self.output.render(&outcome, |outcome| match &outcome.result {
            Value::String(text) => text.clone(),
            value => format!("{value:#}"),
        })?)?;
        if let Some(mismatch) = &tried.output_mismatch {
            note(&format!("a gateway would withhold this output: {mismatch}"));
        } else if outcome.is_error {
            note(&format!("the tool failed: {}", outcome.ended));
        }
        Ok(if outcome.is_error { Exit::ToolFailed } else { Exit::Ok })
    }
}

fn failure(error: &TrialError) -> Failure {
    let exit = match error {
        TrialError::Argument(_) => Exit::Invalid,
        _ => Exit::Unreachable,
    };
    Failure::new(exit, error.to_string())
}

/// Standard error and progress, live.
fn show(event: Event) {
    match event {
        Event::Log(line) => note(&line),
        Event::Progress(progress) => {
            let total = progress.total.map(|total| format!(" of {total}")).unwrap_or_default();
            note(&format!("{}{total} {}", progress.progress, progress.message.unwrap_or_default()));
        }
        Event::Claiming | Event::Claimed(_) | Event::Starting(_) | Event::Started | Event::Accepted | Event::Ended => {}
    }
}

/// How the tool ended, in words.
fn ending(tried: &Trial) -> String {
    let words = match &tried.report.exit {
        ToolExit::Code(code) => format!("exit code {code}"),
        ToolExit::Signal(signal) => format!("ended by signal {signal}"),
        ToolExit::Deadline => "killed at its deadline (`executor.timeout`)".into(),
        ToolExit::Canceled => "canceled".into(),
        ToolExit::OutOfMemory => "killed at its memory ceiling (`executor.memory`)".into(),
        ToolExit::OutputLimit => "killed at its output limit (`executor.output_limit`)".into(),
        ToolExit::NotStarted => "its program could not be started".into(),
    };
    tried.report.detail.as_ref().map_or_else(|| words.clone(), |detail| format!("{words}: {detail}"))
}
