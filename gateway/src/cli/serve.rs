//! `mayfly serve`: a gateway until SIGTERM or Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure};
use crate::config::{Config, LogFormat as ConfiguredFormat};
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
        let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        let serving = Serving::start(config, log).await.map_err(|e| Failure::new(Exit::Unreachable, e.to_string()))?;
        announce(&serving);
        if self.dev {
            print_curl(&serving).await?;
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(event = "draining", calls = serving.gateway.live.len(), "asked to stop");
        tokio::select! {
            () = serving.stop() => {}
            // Asked twice: whoever is at the keyboard means now. What still ran is `interrupted` at the next start.
            _ = interrupt.recv() => return Err(Failure::new(Exit::Unreachable, "stopped at once; calls that ran are recorded as interrupted")),
        }
        drop(throw_away);
        Ok(Exit::Ok)
    }
}

fn on(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|e| Failure::new(Exit::Unreachable, format!("signals cannot be received: {e}")))
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

async fn print_curl(serving: &Serving) -> Result<(), Failure> {
    let key = serving.gateway.callers.add("demo", None).await.map_err(|e| Failure::new(Exit::Unreachable, e.to_string()))?;
    println!("\nA throw-away gateway, with an agent `demo`. Paste this:\n");
    println!("curl -s http://{}/v1/calls \\", serving.agents);
    println!("  -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \\", key.secret().expose_secret());
    println!(r#"  -d '{{"tool": "json_query", "arguments": {{"query": ".a", "document": {{"a": 1}}}}}}'"#);
    println!("\nOr: export MAYFLY_KEY={} MAYFLY_URL=http://{}", key.secret().expose_secret(), serving.agents);
    println!("    mayfly call json_query --arg query=.a --arg document:='{{\"a\": 1}}' --trace");
    println!("Administration: mayfly agent list --socket {}\n", serving.admin.display());
    let unavailable = crate::http::admin::Admin::tools(&*serving.operator).into_iter().filter(|tool| tool.unavailable.is_some());
    for tool in unavailable {
        println!("`{}` cannot run yet: {}", tool.name, tool.unavailable.unwrap_or_default());
    }
    Ok(())
}
