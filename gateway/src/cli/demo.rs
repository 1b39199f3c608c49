//! `mayfly demo`: what Mayfly does, on one screen, on the embedded default.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde_json::{Value, json};

use super::client::{AgentsClient, ClientError};
use super::{Exit, Failure, tool_build, waterfall};
use crate::build::{BuildOptions, build};
use crate::call::CallView;
use crate::config::{Config, Enabled};
use crate::http::admin::Admin;
use crate::serve::Serving;
use crate::telemetry::Log;

/// The tools that the demo builds; the policy that ships lets the agent `demo` call both.
const TOOLS: [&str; 2] = ["images/http_probe", "images/json_query"];
/// The policy that refuses the second call.
const POLICY: &str = "policies/default/authz.rego";

/// See what Mayfly does: builds two tools, runs three calls through a real gateway, leaves nothing.
#[derive(Debug, clap::Args)]
pub struct DemoCommand {}

impl DemoCommand {
    /// Shows it.
    ///
    /// # Errors
    /// Where it is not run in a checkout, or something does not work that should.
    pub async fn run(self) -> Result<Exit, Failure> {
        let begun = Instant::now();
        if !TOOLS.iter().all(|tool| Path::new(tool).join("tool.yaml").is_file()) {
            return Err(Failure::new(Exit::Usage, "run the demo in a checkout of Mayfly: it builds the tools under images/"));
        }
        println!("Mayfly {}: every call authorized with its arguments, in a sandbox of its own.\n", env!("CARGO_PKG_VERSION"));
        build_tools().await?;
        let folder = tempfile::tempdir().map_err(broken)?;
        let log = Log::to(std::io::sink(), true).map_err(broken)?;
        let serving = Serving::start(config(folder.path())?, log).await.map_err(broken)?;
        step(&format!("gateway on {} (wasm, SQLite), policy {POLICY}", serving.agents));
        let shown = show(&serving).await;
        let counts = serving.operator.sandboxes();
        serving.stop().await;
        shown?;
        let (started, destroyed) = counts.iter().fold((0, 0), |(s, d), c| (s + c.started, d + c.destroyed));
        println!("sandboxes: {started} started, {destroyed} destroyed, {} left", started - destroyed);
        println!("\nThe line that refused call 2 is {}; change it, and the next call is decided by the new one.", denying_line());
        println!("Start it yourself:  cargo run -- serve --dev            ({:.1} s)", begun.elapsed().as_secs_f64());
        Ok(Exit::Ok)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn broken(error: impl ToString) -> Failure {
    Failure::new(Exit::Unreachable, error.to_string())
}

fn step(text: &str) {
    println!("  ok  {text}");
}

async fn build_tools() -> Result<(), Failure> {
    let live = std::io::stderr().is_terminal();
    for dir in TOOLS {
        let tool = tool_build::load(Path::new(dir))?;
        let name = tool.definition.name.clone();
        let progress = move |line: &str| {
            if live {
                let line: String = line.trim().chars().take(100).collect();
                eprint!("\r\x1b[2K  ..  building {name}: {line}");
                let _ = std::io::stderr().flush();
            } else {
                eprintln!("  ..  building {name}: {}", line.trim());
            }
        };
        let built = build(Path::new(dir), &tool.definition, &BuildOptions::default(), &progress).await.map_err(broken)?;
        if live {
            eprint!("\r\x1b[2K");
        }
        step(&format!("{} {} built and checked in {:.1} s", built.tool, tool.definition.version, built.took.as_secs_f64()));
    }
    Ok(())
}

/// The shipped tools and policy, on free ports, with a store that goes away.
fn config(folder: &Path) -> Result<Config, Failure> {
    let mut config = Config::load(None).map_err(broken)?;
    config.wasm.cache_dir = Some(config.wasm_cache());
    config.data_dir = folder.join("data");
    config.tools = vec![PathBuf::from("images")];
    config.docker.enabled = Enabled::Never;
    config.listen.set_port(0);
    config.observability_listen.set_port(0);
    Ok(config)
}

async fn show(serving: &Serving) -> Result<(), Failure> {
    let key = serving.gateway.callers.add("demo", Some("you")).await.map_err(broken)?;
    let key = SecretString::from(secrecy::ExposeSecret::expose_secret(key.secret()).to_owned());
    let client = AgentsClient::new(&format!("http://{}", serving.agents), key)?;
    let deployment = json!({"kind": "Deployment", "metadata": {"name": "api-server"}, "spec": {"replicas": 3}});
    let secret = json!({"kind": "Secret", "metadata": {"name": "db"}, "data": {"password": "aHVudGVyMg=="}});

    println!("\n1. The agent `demo` queries a Deployment:   json_query '.spec.replicas'");
    let first = call(&client, ".spec.replicas", deployment).await;
    println!("2. The same tool, another argument, a Secret:   json_query '.data.password'");
    call(&client, ".data.password", secret).await;
    println!("3. A query that never ends:   json_query 'last(repeat(1))'");
    call(&client, "last(repeat(1))", Value::Null).await;

    let Some(first) = first else { return Err(broken("the call that should have run did not")) };
    let spans = client.trace(&first.id.to_string()).await.map_err(|error| broken(told(&error)))?;
    println!("\nThe trace of call 1, {} (to Tempo, if OTEL_EXPORTER_OTLP_ENDPOINT says where it is):", first.trace_id);
    print!("{}", waterfall::render(&spans, waterfall::width_from_environment(), std::io::stdout().is_terminal()));
    Ok(())
}

/// One call, with its answer printed.
async fn call(client: &AgentsClient, query: &str, document: Value) -> Option<CallView> {
    let body = json!({"tool": "json_query", "arguments": {"query": query, "document": document}});
    let begun = Instant::now();
    let answer = client.call(&body, None).await;
    let took = begun.elapsed();
    match answer {
        Ok(view) => {
            let result = view.result.clone().unwrap_or_default();
            println!("   -> allowed, {} in {}: {result}", view.state.as_str(), milliseconds(took));
            Some(view)
        }
        Err(error) => {
            println!("   -> {} ({})", told(&error), milliseconds(took));
            None
        }
    }
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}

fn told(error: &ClientError) -> String {
    match error {
        ClientError::Refused(refusal) => refusal.text(),
        ClientError::Failed(failure) => failure.to_string(),
    }
}

/// File and line of the rule that refuses Secrets.
fn denying_line() -> String {
    let text = std::fs::read_to_string(POLICY).unwrap_or_default();
    let line = text.lines().position(|line| line.starts_with("deny") && line.contains("passed to tools"));
    line.map_or_else(|| POLICY.to_owned(), |line| format!("{POLICY}:{}", line + 1))
}
