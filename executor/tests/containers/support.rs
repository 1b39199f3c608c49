//! A backend on the engine of this machine, and ways to look behind it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::Docker;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use mayfly_executor::docker::{DockerBackend, DockerConfig, container_name};
use mayfly_executor::egress::Wall;
use mayfly_executor::error::LedgerError;
use mayfly_executor::spec::{ByteSize, SandboxSpec, Source};
use mayfly_executor::wire::{Invocation, WireKey};
use mayfly_executor::{Backend, Event, Host, InstanceId, SandboxId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::images;

/// What a test works with.
pub(crate) struct Rig {
    pub(crate) backend: DockerBackend,
    /// The engine, past the backend.
    pub(crate) docker: Docker,
    /// An executor image with the conformance tool as `/tool`.
    pub(crate) image: String,
}

/// The engine of this machine. `None` only where its absence is explicitly known.
pub(crate) async fn rig() -> Option<Rig> {
    let backend = DockerBackend::connect(DockerConfig { host: None, instance: instance() });
    if let Err(error) = backend.probe().await {
        if std::env::var("MAYFLY_TEST_SKIP_DOCKER").is_ok_and(|skip| skip == "1") {
            eprintln!("SKIPPED, NOTHING OF DOCKER IS TESTED: MAYFLY_TEST_SKIP_DOCKER=1 and {error}");
            return None;
        }
        panic!("these tests need a Docker Engine (or MAYFLY_TEST_SKIP_DOCKER=1 to go without, untested): {error}");
    }
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let docker = Docker::connect_with_host(&host).unwrap().negotiate_version().await.unwrap();
    let image = images::conformance().await;
    Some(Rig { backend, docker, image })
}

/// This run of the tests.
pub(crate) fn instance() -> InstanceId {
    static INSTANCE: OnceLock<InstanceId> = OnceLock::new();
    *INSTANCE.get_or_init(|| InstanceId(uuid::Uuid::now_v7()))
}

/// The static executor: `MAYFLY_EXECUTOR`, else where cargo puts it.
pub(crate) fn executor() -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/", "x86_64-unknown-linux-musl/executor/mayfly-executor");
    let built = built.replace("x86_64", std::env::consts::ARCH);
    let path = PathBuf::from(std::env::var("MAYFLY_EXECUTOR").unwrap_or(built));
    assert!(
        path.exists(),
        "{} is not there; run: cargo build -p mayfly-executor --no-default-features --target {}-unknown-linux-musl --profile executor",
        path.display(),
        std::env::consts::ARCH
    );
    path
}

/// Limits that bite soon enough for a test.
pub(crate) fn spec(image: &str) -> SandboxSpec {
    SandboxSpec {
        source: Source::Image(image.to_owned()),
        memory: ByteSize::mebibytes(64),
        cpu_millis: 1000,
        pids: 32,
        scratch: ByteSize::mebibytes(8),
        mounts: vec![],
        network: std::collections::BTreeSet::new(),
        life: Duration::from_secs(120),
    }
}

pub(crate) fn invocation(command: &[&str]) -> Invocation {
    Invocation {
        call_id: "test".into(),
        key: WireKey::generate().unwrap(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stdin: b"{}".to_vec().into(),
        environment: BTreeMap::new(),
        files: Vec::new(),
        sockets: mayfly_executor::wire::Sockets::Unix,
        timeout: Duration::from_secs(30),
        output_limit: ByteSize::mebibytes(1),
        faces: None,
        traceparent: String::new(),
    }
}

/// A host that waits for the tool's start.
#[derive(Default)]
pub(crate) struct Listener {
    accepted: Notify,
    pub(crate) cancel: CancellationToken,
    pub(crate) wall: Option<Arc<Wall>>,
}

impl Listener {
    pub(crate) fn behind(wall: Arc<Wall>) -> Self {
        Self { wall: Some(wall), ..Self::default() }
    }

    pub(crate) async fn accepted(&self) {
        self.accepted.notified().await;
    }
}

#[async_trait]
impl Host for Listener {
    fn wall(&self) -> Option<Arc<Wall>> {
        self.wall.clone()
    }
    fn observe(&self, event: Event) {
        if event == Event::Accepted {
            self.accepted.notify_one();
        }
    }
    fn canceled(&self) -> &CancellationToken {
        &self.cancel
    }
    async fn delivering(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// What the tool sees of `paths` from inside.
pub(crate) async fn show(backend: &dyn Backend, spec: &SandboxSpec, paths: &[&str]) -> String {
    let id = SandboxId::generate();
    let sandbox = backend.start(id, spec).await.unwrap();
    let report = sandbox.invoke(invocation(&[&["/tool", "show"], paths].concat()), &Listener::default()).await;
    backend.destroy(id).await.unwrap();
    String::from_utf8(report.unwrap().stdout.to_vec()).unwrap()
}

/// Whether the container runs and its exit code; `None` if there is none.
pub(crate) async fn inspect(docker: &Docker, id: SandboxId) -> Option<(bool, i64)> {
    let state = docker.inspect_container(&container_name(id), None).await.ok()?.state?;
    Some((state.running?, state.exit_code?))
}

/// The exit code of a container that ends by itself in time.
pub(crate) async fn until_dead(docker: &Docker, id: SandboxId, patience: Duration) -> Option<i64> {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if let Some((false, code)) = inspect(docker, id).await {
            return Some(code);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// What `docker logs` shows.
pub(crate) async fn logs(docker: &Docker, name: &str) -> Result<String, String> {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
    let mut log = docker.logs(name, Some(options));
    let mut text = String::new();
    while let Some(line) = log.next().await {
        text.push_str(&line.map_err(|error| error.to_string())?.to_string());
    }
    Ok(text)
}
