//! The Docker backend: each sandbox is a hardened container whose PID 1 is the [executor](crate::pid1).
//!
//! The wire travels over the container's attached streams. What a container is made of is decided in `request`, without I/O;
//! `sandbox` starts and uses one; `image` builds images that can be one. Speaks to local sockets only: a Docker socket is root on
//! its host, and a Docker port is that for a network.
//!
//! # Guarantees
//! - Nothing of a call is in a container's configuration, environment or log: it comes over the wire, after the start.
//! - An engine without the limits that a sandbox rests on is refused, not used with fewer.
//!
//! # Assumptions
//! A container that was created and never started stays forever: whoever started one under an id destroys that id.

mod context;
mod engine;
mod image;
mod request;
mod sandbox;
mod source;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

pub use engine::{Engine, EngineError};
pub use image::{ImageBuild, ImageError, Layer};
pub use request::{container_name, container_request};
pub use source::{ExecutorImage, LABEL_EXECUTOR, LABEL_TOOL};

use crate::error::{BackendError, StartError};
use crate::labels::{LABEL_SANDBOX, found};
use crate::spec::SandboxSpec;
use crate::{Backend, BackendKind, Found, InstanceId, Sandbox, SandboxId};

/// How long a container that is being removed may take to be gone.
const REMOVAL: Duration = Duration::from_secs(10);

/// Where the engine is, and for whom it works.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// `unix:///path/to/docker.sock`. `None`: `DOCKER_HOST`, else Docker's default socket.
    pub host: Option<String>,
    /// Written on every container.
    pub instance: InstanceId,
}

/// Sandboxes from a Docker Engine.
#[derive(Debug)]
pub struct DockerBackend {
    engine: Engine,
    instance: InstanceId,
    sources: source::Sources,
}

impl DockerBackend {
    /// A backend on the engine of `config`. Nothing is asked of the engine before it is needed.
    pub fn connect(config: DockerConfig) -> Self {
        Self { engine: Engine::new(config.host), instance: config.instance, sources: source::Sources::default() }
    }

    /// The engine it works on.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }
}

#[async_trait]
impl Backend for DockerBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Docker
    }

    fn outlives_process(&self) -> bool {
        true
    }

    async fn probe(&self) -> Result<String, BackendError> {
        Ok(self.engine.describe().await?)
    }

    async fn prepare(&self, spec: &SandboxSpec) -> Result<(), StartError> {
        self.sources.check(&self.engine, spec).await.map(|_| ())
    }

    async fn start(&self, id: SandboxId, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        let image = self.sources.check(&self.engine, spec).await?;
        let body = container_request(spec, &image, id, self.instance, SystemTime::now() + spec.life)
            .map_err(|detail| StartError::Refused { backend: BackendKind::Docker, detail })?;
        let started = sandbox::start(&self.engine, id, spec, body).await;
        if let Err(StartError::SourceMissing { .. }) = &started {
            self.sources.forget(&image);
        }
        Ok(Box::new(started?))
    }

    async fn list(&self) -> Result<Vec<Found>, BackendError> {
        let filters = [("label", vec![LABEL_SANDBOX])].into();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.engine.docker().await?.list_containers(Some(options)).await.map_err(EngineError::from)?;
        Ok(listed
            .into_iter()
            .filter_map(|container| {
                let labels = container.labels.unwrap_or_default();
                let found = found(|name| labels.get(name))?;
                // Destroyed by its name: what carries another's labels under a name of its own is not what they say.
                let name = format!("/{}", container_name(found.id));
                container.names.is_some_and(|names| names.contains(&name)).then_some(found)
            })
            .collect())
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), BackendError> {
        let name = container_name(id);
        let docker = self.engine.docker().await?;
        // With it go the volumes that an image may have made without a name.
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match docker.remove_container(&name, Some(options)).await.map_err(EngineError::from) {
            Ok(()) | Err(EngineError::Answered { status: 404, .. }) => Ok(()),
            // Somebody else is removing it: that is a success once it is gone.
            Err(EngineError::Answered { status: 409, message }) => self.gone(&name, message).await,
            Err(error) => Err(error.into()),
        }
    }
}

impl DockerBackend {
    async fn gone(&self, name: &str, message: String) -> Result<(), BackendError> {
        let docker = self.engine.docker().await?;
        let until = tokio::time::Instant::now() + REMOVAL;
        while tokio::time::Instant::now() < until {
            match docker.inspect_container(name, None).await.map_err(EngineError::from) {
                Err(EngineError::Answered { status: 404, .. }) => return Ok(()),
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(BackendError { backend: BackendKind::Docker, detail: message })
    }
}
