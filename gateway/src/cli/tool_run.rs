//! `mayfly tool run DIR`: tries a tool without a gateway.

use std::path::PathBuf;
use std::process::ExitCode;

use mayfly_executor::wire::Exit;
use mayfly_executor::{Event, InstanceId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::arguments::ArgumentFlags;
use super::backends;
use crate::trial::{self, Trial, TrialError};

/// Tries a tool in a real sandbox, without a gateway: policy is not asked, and nothing is recorded.
#[derive(Debug, Clone, clap::Args)]
pub struct ToolRun {
    /// Folder with a tool.yaml.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Its arguments.
    #[command(flatten)]
    pub arguments: ArgumentFlags,
    /// text: the result alone; json: the result, how the tool ended and what it used.
    #[arg(short, long, value_enum, default_value_t = TrialFormat::Text)]
    pub output: TrialFormat,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TrialFormat {
    /// The result alone.
    Text,
    /// One JSON object.
    Json,
}

/// Exit codes of the command line (section 7 of the design).
const TOOL_FAILED: u8 = 1;
const USAGE: u8 = 2;
const INVALID: u8 = 5;
const UNREACHABLE: u8 = 7;

impl ToolRun {
    /// Runs it. Exit code 1 when the tool fails, 2 for flags that cannot be read, 5 for a definition or arguments that do not
    /// fit, 7 when there is no sandbox to run it in.
    pub async fn run(self) -> ExitCode {
        match self.attempt().await {
            Ok(code) => ExitCode::from(code),
            Err((code, reason)) => {
                eprintln!("{reason}");
                ExitCode::from(code)
            }
        }
    }

    async fn attempt(&self) -> Result<u8, (u8, String)> {
        let tool = super::tool_build::load(&self.dir).map_err(|problems| (INVALID, problems))?;
        let given = self.arguments.read(&tool.definition.input_schema).map_err(|reason| (USAGE, reason))?;
        let arguments = tool.validate(given).map_err(|violations| {
            let lines = violations.iter().map(|violation| {
                format!("{}: {}", if violation.pointer.is_empty() { "/" } else { &violation.pointer }, violation.detail)
            });
            (INVALID, format!("the arguments do not fit:\n{}", lines.collect::<Vec<_>>().join("\n")))
        })?;
        let instance = InstanceId(Uuid::new_v4());
        let backend = backends::one(tool.definition.executor.backend, instance).map_err(|reason| (UNREACHABLE, reason))?;
        eprintln!("trying {} {} without a gateway: policy is not asked", tool.definition.name, tool.definition.version);
        let canceled = CancellationToken::new();
        let on_interrupt = canceled.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                on_interrupt.cancel();
            }
        });
        let tried = trial::run(&tool, &arguments, backend, instance, &show, canceled).await.map_err(|error| match error {
            TrialError::Argument(_) => (INVALID, error.to_string()),
            _ => (UNREACHABLE, error.to_string()),
        })?;
        Ok(self.print(&tried))
    }

    fn print(&self, tried: &Trial) -> u8 {
        let result = tried.result();
        match (self.output, &result) {
            (TrialFormat::Json, _) => println!("{:#}", summary(tried, &result)),
            (TrialFormat::Text, Value::String(text)) => println!("{text}"),
            (TrialFormat::Text, value) => println!("{value:#}"),
        }
        if let Some(mismatch) = &tried.output_mismatch {
            eprintln!("a gateway would withhold this output: {mismatch}");
            return TOOL_FAILED;
        }
        if tried.succeeded() {
            return 0;
        }
        eprintln!("the tool failed: {}", ending(tried));
        TOOL_FAILED
    }
}

/// Standard error and progress, live.
fn show(event: Event) {
    match event {
        Event::Log(line) => eprintln!("{line}"),
        Event::Progress(progress) => {
            let total = progress.total.map(|total| format!(" of {total}")).unwrap_or_default();
            eprintln!("{}{total} {}", progress.progress, progress.message.unwrap_or_default());
        }
        Event::Starting(_) | Event::Started | Event::Accepted | Event::Ended => {}
    }
}

fn summary(tried: &Trial, result: &Value) -> Value {
    json!({
        "is_error": !tried.succeeded() || tried.output_mismatch.is_some(),
        "result": result,
        "ended": ending(tried),
        "exhausted": tried.report.exhausted,
        "duration_ms": tried.took.as_secs_f64() * 1e3,
        "cpu_ms": tried.report.usage.cpu.as_secs_f64() * 1e3,
        "peak_memory_bytes": tried.report.usage.peak_memory,
    })
}

/// How the tool ended, in words.
fn ending(tried: &Trial) -> String {
    let words = match &tried.report.exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
        Exit::Deadline => "killed at its deadline (`executor.timeout`)".into(),
        Exit::Canceled => "canceled".into(),
        Exit::OutOfMemory => "killed at its memory ceiling (`executor.memory`)".into(),
        Exit::OutputLimit => "killed at its output limit (`executor.output_limit`)".into(),
        Exit::NotStarted => "its program could not be started".into(),
    };
    tried.report.detail.as_ref().map_or_else(|| words.clone(), |detail| format!("{words}: {detail}"))
}
