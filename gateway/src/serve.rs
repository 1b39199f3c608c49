//! A gateway, put together and taken apart again: listeners, backends, reaper, reloads, drain.
//!
//! # Flow
//! store -> recover -> telemetry -> backends -> reap -> generation -> doors open ... SIGTERM -> drain -> doors close
//!
//! # Guarantees
//! - No door opens before every call of the last run has an outcome and what it left was reaped.
//! - Whatever cannot be had as configured ends the start with a message that says what to do.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::serve::Listener;
use mayfly_executor::{Dispatcher, reaper};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caller::{AgentError, Authenticator};
use crate::config::{Config, Durability, LimitsConfig};
use crate::credentials::Credentials;
use crate::custodian::Custodian;
use crate::engines::{self, EngineError};
use crate::gateway::Gateway;
use crate::generation::{Generation, GenerationError};
use crate::http::serve::{ConnectionLimits, bind, serve};
use crate::http::{BodyLimits, admin, agents, observability, socket};
use crate::limits::{LimitSettings, Limits, Rate};
use crate::live::LiveCalls;
use crate::operator::Operator;
use crate::runner::Runner;
use crate::secrets::{SecretError, Secrets};
use crate::store::{self, Store, StoreError};
use crate::telemetry::{Log, Telemetry, TelemetryError};
use crate::watch;

/// Why a gateway does not start. `Display` is for the operator.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Telemetry.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The agents' keys.
    #[error(transparent)]
    Agents(#[from] AgentError),
    /// The vault.
    #[error(transparent)]
    Secrets(#[from] SecretError),
    /// Tools or policy.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// An address.
    #[error("{address} cannot be listened on: {source}; choose another in the configuration")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The administration socket.
    #[error(transparent)]
    Socket(#[from] socket::BindError),
    /// A backend cannot start, or was asked for and does not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What calls may do outside.
    #[error("{0}")]
    Egress(String),
    /// The folder watch.
    #[error("tools and policy cannot be watched for changes: {0}")]
    Watch(String),
}

/// How long engines have, at the end, to let go of what is left.
const LAST_ROUND: Duration = Duration::from_secs(5);

/// A gateway that serves.
pub struct Serving {
    /// The pipeline.
    pub gateway: Arc<Gateway>,
    /// The operator's face.
    pub operator: Arc<Operator>,
    /// Where the agents' door is.
    pub agents: SocketAddr,
    /// Where observability is.
    pub observability: SocketAddr,
    /// Where administration is.
    pub admin: PathBuf,
    dispatcher: Arc<Dispatcher>,
    grace: Duration,
    /// Ends watching and reaping; then, once calls have ended, the doors.
    background: CancellationToken,
    doors: CancellationToken,
    tasks: TaskTracker,
}

impl Serving {
    /// Starts everything that `config` asks for.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is left running.
    pub async fn start(config: Config, log: Log) -> Result<Self, ServeError> {
        keep_memory_private();
        let agents_listener = listen(config.listen).await?;
        let observability_listener = listen(config.observability_listen).await?;
        let store = Store::open(&config.data_dir, durability(config.durability)).await?;
        let interrupted = store.recover().await?;
        if !interrupted.is_empty() {
            tracing::warn!(calls = interrupted.len(), "calls of the last run were interrupted; each has that outcome now");
        }
        let telemetry = Arc::new(Telemetry::from_env(log)?);
        let secrets = Secrets::open(&config.secrets, &config.data_dir, store.clone()).await?;
        let credentials = Credentials::new(&config, &secrets, store.clone(), telemetry.clone());
        let terms = config.egress.terms().map_err(ServeError::Egress)?;
        let dispatcher = engines::dispatcher(&config, &store).await?;
        // Before the sources are read: what is saved while the gateway starts is a change.
        let changes = watch::watch(Generation::sources(&config)).map_err(|error| ServeError::Watch(error.to_string()))?;
        let generation = Generation::load(&config)?;
        generation.warn();
        let gateway = Arc::new(Gateway {
            callers: Authenticator::open(&config.data_dir, store.clone()).await?,
            generation: ArcSwap::from_pointee(generation),
            limits: Limits::new(limits(&config.limits)),
            credentials,
            runner: Runner::new(dispatcher.clone(), store.clone(), telemetry.clone(), terms),
            store,
            telemetry,
            live: LiveCalls::default(),
            tasks: TaskTracker::new(),
        });
        let operator = Operator::new(gateway.clone(), dispatcher.clone());
        let custodian = Custodian::new(secrets, gateway.credentials.revoker().clone());
        operator.prepare().await;
        let admin_path = config.admin_socket();
        let admin_socket = socket::bind(&admin_path)?;
        let serving = Self {
            agents: agents_listener.local_addr().map_err(|source| ServeError::Listen { address: config.listen, source })?,
            observability: observability_listener
                .local_addr()
                .map_err(|source| ServeError::Listen { address: config.observability_listen, source })?,
            admin: admin_path,
            gateway,
            operator,
            dispatcher: dispatcher.clone(),
            grace: config.drain_grace,
            background: CancellationToken::new(),
            doors: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        serving.watch(changes, config.clone());
        serving.tasks.spawn(reaper::run(dispatcher, serving.background.clone()));
        serving.tasks.spawn(serving.gateway.credentials.revoker().clone().run(serving.background.clone()));
        serving.open(agents_listener, observability_listener, (admin_socket, custodian), &config);
        Ok(serving)
    }

    fn open(
        &self,
        agents_listener: impl Listener,
        observability_listener: impl Listener,
        (admin_socket, custodian): (socket::OperatorSocket, Arc<Custodian>),
        config: &Config,
    ) {
        let bodies = BodyLimits {
            bytes: usize::try_from(config.limits.body.0).unwrap_or(usize::MAX),
            json_depth: config.limits.json_depth as usize,
            wait: config.limits.wait,
            ..BodyLimits::default()
        };
        let agents_door = agents::layers(agents::routes(self.gateway.clone(), bodies), self.gateway.clone());
        let limits = ConnectionLimits {
            connections: config.limits.connections as usize,
            headers: config.limits.header_timeout,
            drain: Duration::from_secs(5),
            ..ConnectionLimits::default()
        };
        self.tasks.spawn(serve(agents_listener, agents_door, self.doors.clone(), limits));
        let vitals = observability::router(self.operator.clone());
        self.tasks.spawn(serve(observability_listener, vitals, self.doors.clone(), limits));
        self.tasks.spawn(serve(admin_socket, admin::router(self.operator.clone(), custodian), self.doors.clone(), limits));
    }

    /// Loads a new generation whenever a source changes.
    fn watch(&self, mut changes: watch::Watch, config: Config) {
        let (gateway, operator, stop) = (self.gateway.clone(), self.operator.clone(), self.background.clone());
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = changes.changed() => if !changed { return },
                }
                reload(&gateway, &operator, &config).await;
            }
        });
    }

    /// Drains and closes: running calls get the grace time, then end as canceled; every call has its outcome before this returns.
    pub async fn stop(self) {
        self.background.cancel();
        self.gateway.drain(self.grace).await;
        // What was canceled in the middle of its start may have come up since. What an engine does not let go of now, the next
        // gateway ends.
        let _ = tokio::time::timeout(LAST_ROUND, reaper::reap(&self.dispatcher)).await;
        self.doors.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let telemetry = self.gateway.telemetry.clone();
        self.gateway.store.close().await;
        // Blocks for a bounded time, so on a thread that may.
        let _ = tokio::task::spawn_blocking(move || telemetry.shutdown(Duration::from_secs(5))).await;
    }
}

async fn reload(gateway: &Gateway, operator: &Arc<Operator>, config: &Config) {
    let wanted = config.clone();
    let loaded = tokio::task::spawn_blocking(move || Generation::load(&wanted)).await;
    let loaded = loaded.map_err(|panic| panic.to_string()).and_then(|result| result.map_err(|error| error.to_string()));
    match loaded {
        // Taken back before it was served: what was refused is of the past.
        Ok(generation) if generation.digest == gateway.generation.load().digest => operator.reloaded(None),
        Ok(generation) => {
            tracing::info!(generation = %generation.digest, tools = generation.catalog.iter().count(), "a new generation serves");
            generation.warn();
            gateway.generation.store(Arc::new(generation));
            operator.reloaded(None);
            // An engine that hangs must not hold up the next reload.
            let operator = operator.clone();
            tokio::spawn(async move { operator.prepare().await });
        }
        Err(error) => {
            tracing::error!(%error, "the changed tools or policy were refused; the generation before stays");
            gateway.telemetry.metrics().reload_failed();
            operator.reloaded(Some(error));
        }
    }
}

/// No core dump, and no reading of this process by others of its user: it holds keys and credentials. Best effort: a system that does
/// not know how goes without.
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // 1, not 0: a kernel that pipes core dumps to a program leaves those alone only (`core(5)`).
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

async fn listen(address: SocketAddr) -> Result<impl Listener<Addr = SocketAddr>, ServeError> {
    bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

const fn durability(configured: Durability) -> store::Durability {
    match configured {
        Durability::Full => store::Durability::Full,
        Durability::Relaxed => store::Durability::Relaxed,
    }
}

fn limits(config: &LimitsConfig) -> LimitSettings {
    let positive = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    LimitSettings {
        agent: Rate { per_second: positive(config.requests_per_second), burst: positive(config.burst) },
        running: positive(config.running),
        ..LimitSettings::default()
    }
}
