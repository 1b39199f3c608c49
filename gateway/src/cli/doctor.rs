//! `mayfly doctor`: which backends work on this machine, and what to do about those that don't.

use std::path::PathBuf;
use std::process::Command;

use mayfly_executor::{Backend, InstanceId};
use uuid::Uuid;

use super::{Exit, Failure};
use crate::config::{Config, Enabled};
use crate::engines;

/// Say which backends work on this machine, and what to do about those that don't.
#[derive(Debug, clap::Args)]
pub struct DoctorCommand {
    /// The configuration to go by
    #[arg(long, value_name = "FILE", env = "MAYFLY_CONFIG")]
    config: Option<PathBuf>,
}

/// One thing looked at.
struct Finding {
    subject: &'static str,
    /// What is there, or what is missing.
    state: Result<String, String>,
    /// What to do about it.
    remedy: &'static str,
    /// Whether `mayfly serve` is of no use without it.
    vital: bool,
}

impl DoctorCommand {
    /// Looks. Exit code 7 when the gateway could not serve.
    ///
    /// # Errors
    /// A configuration that does not load.
    pub async fn run(self) -> Result<Exit, Failure> {
        let config = Config::load(self.config.as_deref()).map_err(|e| Failure::new(Exit::Invalid, e.to_string()))?;
        let findings =
            [wasm(&config).await, docker(&config).await, kubernetes(&config).await, data_dir(&config), targets(), executor()];
        let mut exit = Exit::Ok;
        for Finding { subject, state, remedy, vital } in findings {
            match state {
                Ok(there) => println!("ok    {subject}: {there}"),
                Err(missing) => {
                    println!("{}  {subject}: {missing}\n      {remedy}", if vital { "FAIL" } else { "none" });
                    if vital {
                        exit = Exit::Unreachable;
                    }
                }
            }
        }
        Ok(exit)
    }
}

async fn wasm(config: &Config) -> Finding {
    let state = match engines::wasm(config, nobody()) {
        Ok(backend) => backend.probe().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.detail),
    };
    let remedy = "the pool reserves address space: lower `wasm.max_instances`, or raise the limit of `ulimit -v`";
    Finding { subject: "wasm backend", state, remedy, vital: true }
}

async fn docker(config: &Config) -> Finding {
    let state = engines::docker(config, nobody()).probe().await.map_err(|error| error.to_string());
    let remedy = "start Docker Engine, or name its socket in `docker.host`; remember that its socket is root on this host. Tools on wasm need none";
    Finding { subject: "docker backend", state, remedy, vital: false }
}

async fn kubernetes(config: &Config) -> Finding {
    let state = match config.kubernetes.enabled {
        Enabled::Never => Err("not configured".to_owned()),
        Enabled::Auto | Enabled::Always => engines::kubernetes(config, nobody()).probe().await.map_err(|error| error.to_string()),
    };
    let remedy = "set `kubernetes.enabled`, and apply manifests/ to the cluster. Tools on wasm and Docker need none";
    Finding { subject: "kubernetes backend", state, remedy, vital: config.kubernetes.enabled == Enabled::Always }
}

fn data_dir(config: &Config) -> Finding {
    let dir = &config.data_dir;
    let probe = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir));
    let state = probe.map(|_| format!("{} can be written", dir.display())).map_err(|e| format!("{}: {e}", dir.display()));
    Finding { subject: "data_dir", state, remedy: "choose another with `data_dir` or MAYFLY_DATA_DIR", vital: true }
}

/// Only who builds tools needs these.
fn targets() -> Finding {
    let output = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let installed = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let missing: Vec<_> = ["wasm32-wasip1", "wasm32-wasip2"].into_iter().filter(|target| !installed.contains(target)).collect();
    let state =
        if missing.is_empty() { Ok("wasm tools can be built".into()) } else { Err(format!("{} missing", missing.join(", "))) };
    Finding {
        subject: "Rust targets",
        state,
        remedy: "`mayfly tool build` adds them with rustup when it needs them",
        vital: false,
    }
}

fn executor() -> Finding {
    let state = crate::build::executor_at_hand().map(|path| path.display().to_string()).ok_or_else(|| "none at hand".to_owned());
    let remedy = "`mayfly tool build` makes one in a checkout; elsewhere put it beside `mayfly`, or name it with MAYFLY_EXECUTOR";
    Finding { subject: "in-image executor", state, remedy, vital: false }
}

const fn nobody() -> InstanceId {
    InstanceId(Uuid::nil())
}
