//! `mayfly serve`: a gateway until SIGTERM or Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::ExposeSecret;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, Failure};
use crate::config::{Config, LogFormat as ConfiguredFormat};
use crate::http::admin::{Admin, ToolStatus};
use crate::serve::Serving;
use crate::telemetry::{Log, LogFormat};

/// Run the gateway until SIGTERM or Ctrl-C; then running calls get `drain_grace` to finish.
#[derive(Debug, clap::Args)]
pub struct ServeCommand {
    /// The configuration; without one, the defaults hold
    #[arg(long, value_name = "FILE", env = "MAYFLY_CONFIG")]
    config: Option<PathBuf>,
    /// For trying: on loopback, with a throw-away store; prints a `curl` with its key that can be pasted
    #[arg(long)]
    dev: bool,
}

impl ServeCommand {
    /// Serves.
    ///
    /// # Errors
    /// What cannot be had as configured.
    pub async fn run(self) -> Result<Exit, Failure> {
        let mut config = Config::load(self.config.as_deref()).map_err(|e| Failure::new(Exit::Invalid, e.to_string()))?;
        let log = Log::init(format(config.log.format)).map_err(|e| Failure::new(Exit::Invalid, e.to_string()))?;
        // Dropped at the very end: it takes the throw-away store with it.
        let throw_away = if self.dev { Some(develop(&mut config)?) } else { None };
        let mut stop = StopSignals::listen()?;
        let serving = tokio::select! {
            started = Serving::start(config, log) => started.map_err(|e| Failure::new(Exit::Unreachable, e.to_string()))?,
            // No door was open yet, so there is nothing to drain.
            () = stop.asked() => return Ok(Exit::Ok),
        };
        announce(&serving);
        if self.dev {
            print_curl(&serving).await?;
        }
        stop.asked().await;
        tracing::info!(event = "draining", calls = serving.gateway.live.len(), "asked to stop");
        tokio::select! {
            () = serving.stop() => {}
            // Asked twice: whoever does that means now. What still ran is `interrupted` at the next start.
            () = stop.asked() => return Err(Failure::new(Exit::Unreachable, "stopped at once; calls that ran are recorded as interrupted")),
        }
        drop(throw_away);
        Ok(Exit::Ok)
    }
}

/// SIGTERM and Ctrl-C.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From here on neither ends the process by itself.
    fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::new(Exit::Unreachable, format!("signals cannot be received: {e}")));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Waits for the next one. May be given up and called again.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

const fn format(configured: ConfiguredFormat) -> LogFormat {
    match configured {
        ConfiguredFormat::Auto => LogFormat::Auto,
        ConfiguredFormat::Json => LogFormat::Json,
        ConfiguredFormat::Text => LogFormat::Text,
    }
}

/// Loopback, whatever is configured, and a store that goes away.
fn develop(config: &mut Config) -> Result<tempfile::TempDir, Failure> {
    let folder =
        tempfile::tempdir().map_err(|e| Failure::new(Exit::Unreachable, format!("no folder for a throw-away store: {e}")))?;
    let cache = config.wasm_cache();
    config.wasm.cache_dir = Some(cache);
    config.data_dir = folder.path().join("data");
    // A configured one would be the real gateway's.
    config.admin_socket = None;
    for listen in [&mut config.listen, &mut config.observability_listen] {
        *listen = SocketAddr::from(([127, 0, 0, 1], listen.port()));
    }
    Ok(folder)
}

fn announce(serving: &Serving) {
    tracing::info!(
        event = "listening",
        agents = %serving.agents,
        observability = %serving.observability,
        admin = %serving.admin.display(),
        "mayfly serves"
    );
}

/// The tool that the `curl` calls.
const TRIED: &str = "json_query";

async fn print_curl(serving: &Serving) -> Result<(), Failure> {
    let key = serving.gateway.callers.add("demo", None).await.map_err(|e| Failure::new(Exit::Unreachable, e.to_string()))?;
    println!("\nA throw-away gateway, with an agent `demo`.");
    let tools = Admin::tools(&*serving.operator);
    if let Some(advice) = not_ready(&tools) {
        println!("\n{advice}");
    }
    println!("\nPaste this:\n");
    println!("curl -s http://{}/v1/calls \\", serving.agents);
    println!("  -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \\", key.secret().expose_secret());
    println!(r#"  -d '{{"tool": "{TRIED}", "arguments": {{"query": ".a", "document": {{"a": 1}}}}}}'"#);
    println!("\nOr: export MAYFLY_KEY={} MAYFLY_URL=http://{}", key.secret().expose_secret(), serving.agents);
    println!("    mayfly call {TRIED} --arg query=.a --arg document:='{{\"a\": 1}}' --trace");
    println!("Administration: mayfly agent list --socket {}\n", serving.admin.display());
    for tool in tools.iter().filter(|tool| tool.name != TRIED) {
        if let Some(problem) = &tool.unavailable {
            println!("`{}` cannot run yet: {problem}", tool.name);
        }
    }
    Ok(())
}

/// What to do first when the tool that the `curl` calls cannot run.
fn not_ready(tools: &[ToolStatus]) -> Option<String> {
    let Some(tool) = tools.iter().find(|tool| tool.name == TRIED) else {
        return Some(format!("NOTE: `tools` of the configuration has no `{TRIED}`; name a tool of yours instead."));
    };
    let problem = tool.unavailable.as_ref()?;
    Some(format!(
        "FIRST, in another terminal, build the tool; until then calls of it are answered with 503:\n\n    \
         mayfly tool build images/{TRIED}\n\n(in a checkout: cargo run -- tool build images/{TRIED})\n`{TRIED}` says: {problem}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::definition::Tier;
    use mayfly_executor::BackendKind;

    #[test]
    fn a_throw_away_gateway_shares_nothing_with_the_configured_one() {
        let mut config = Config {
            listen: SocketAddr::from(([0, 0, 0, 0], 8420)),
            admin_socket: Some("/run/mayfly/admin.sock".into()),
            ..Config::default()
        };
        let folder = develop(&mut config).unwrap();
        assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 8420)));
        assert!(config.data_dir.starts_with(folder.path()) && config.admin_socket().starts_with(folder.path()));
    }

    #[test]
    fn what_has_to_be_built_is_said_first() {
        let tool = |unavailable: Option<&str>| ToolStatus {
            name: TRIED.into(),
            version: "1.0.0".into(),
            tier: Tier::Free,
            backend: BackendKind::Wasm,
            unavailable: unavailable.map(str::to_owned),
        };
        assert_eq!(not_ready(&[tool(None)]), None);
        let advice = not_ready(&[tool(Some("no module"))]).unwrap();
        assert!(advice.contains("mayfly tool build images/json_query") && advice.contains("no module"), "{advice}");
        assert!(not_ready(&[]).unwrap().contains("no `json_query`"));
    }
}
