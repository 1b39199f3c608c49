//! The Kubernetes backend: each sandbox is a Job with one hardened pod whose PID 1 is the [executor](crate::pid1).
//!
//! The wire travels over the pod's attach stream. What a Job is made of is decided in `job`, without I/O; what a pod's status means
//! in `stage`, likewise; `pods` follows the cluster, `sandbox` starts and uses one pod.
//!
//! # Guarantees
//! - Nothing of a call is in a Job, a pod, an event or a log: it comes over the wire, after the start. What a container writes to
//!   its standard output is logged on its node, and sealed.
//! - The report comes from the stream. Job status is never waited for.
//! - Nothing is deleted by force: what the API server has forgotten, the kubelet has ended.
//!
//! # Assumptions
//! The namespace is for sandboxes alone: whatever carries our labels there is ours to list and delete.

mod bulk;
mod client;
mod cluster;
mod forward;
mod issuer;
mod job;
mod pods;
mod sandbox;
mod stage;
mod token;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PropagationPolicy};

pub use issuer::{Issue, TokenIssuer};
pub use job::{job, job_name};
pub use token::SHORTEST_LIFE;

use crate::error::{BackendError, StartError};
use crate::labels::{LABEL_SANDBOX, found};
use crate::spec::{SandboxSpec, Source};
use crate::{Backend, BackendKind, Found, InstanceId, Sandbox, SandboxId};
use cluster::{ClusterError, Connection, answered};

/// How long a pod that is being removed may take to be gone: its grace, and the kubelet's own time.
const REMOVAL: Duration = Duration::from_secs(30);
/// What a container has between its SIGTERM and its SIGKILL. The executor is gone before that: its stream has ended.
const GRACE_SECONDS: u32 = 1;

/// Which cluster, and for whom.
#[derive(Debug, Clone)]
pub struct KubernetesConfig {
    /// A kubeconfig. `None`: the pod's own service account when the gateway runs in a cluster, else `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
    /// Where sandboxes run.
    pub namespace: String,
    /// Whether an image may be named by a tag.
    pub allow_tags: bool,
    /// Written on every Job.
    pub instance: InstanceId,
}

/// Sandboxes from a Kubernetes cluster.
#[derive(Debug)]
pub struct KubernetesBackend {
    connection: Connection,
    allow_tags: bool,
    instance: InstanceId,
}

impl KubernetesBackend {
    /// A backend on the cluster of `config`. Nothing is asked of it before it is needed.
    pub fn connect(config: KubernetesConfig) -> Self {
        let KubernetesConfig { kubeconfig, context, namespace, allow_tags, instance } = config;
        Self { connection: Connection::new(kubeconfig, context, namespace, instance), allow_tags, instance }
    }

    fn check(&self, spec: &SandboxSpec) -> Result<(), StartError> {
        let refused = |detail: &str| StartError::Refused { backend: BackendKind::Kubernetes, detail: detail.to_owned() };
        let Source::Pod(pod) = &spec.source else { return Err(refused("the Kubernetes backend runs images in pods")) };
        if !self.allow_tags && !pod.image.contains("@sha256:") {
            let detail = "it has no digest (`name@sha256:...`), and what a tag means can change; build it with \
                          `mayfly tool build --push`, or set `kubernetes.allow_tags`";
            return Err(StartError::SourceInvalid { source_name: pod.image.clone(), detail: detail.into() });
        }
        if !spec.mounts.is_empty() {
            return Err(refused("a pod has no folders of a host; remove `mounts`"));
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for KubernetesBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Kubernetes
    }

    fn outlives_process(&self) -> bool {
        true
    }

    async fn probe(&self) -> Result<String, BackendError> {
        let cluster = self.connection.cluster().await?;
        let version = answered(cluster.client().apiserver_version()).await?;
        // What every call needs. Whether Jobs may be created is found out by creating one.
        answered(cluster.jobs().list(&ListParams::default().limit(1))).await?;
        Ok(format!("Kubernetes {}, namespace {}", version.git_version, cluster.namespace()))
    }

    async fn prepare(&self, spec: &SandboxSpec) -> Result<(), StartError> {
        self.check(spec)?;
        let cluster = self.connection.cluster().await?;
        answered(cluster.jobs().list(&ListParams::default().limit(1))).await?;
        Ok(())
    }

    async fn start(&self, id: SandboxId, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        self.check(spec)?;
        let body = job(spec, id, self.instance, SystemTime::now() + spec.life)
            .map_err(|detail| StartError::Refused { backend: BackendKind::Kubernetes, detail })?;
        let cluster = self.connection.cluster().await?;
        Ok(Box::new(sandbox::start(cluster, id, spec, body).await?))
    }

    async fn list(&self) -> Result<Vec<Found>, BackendError> {
        let cluster = self.connection.cluster().await?;
        let ours = ListParams::default().labels(LABEL_SANDBOX);
        let (jobs, pods) = (cluster.jobs(), cluster.pods());
        // Pods too: one whose Job is gone still runs.
        let (jobs, pods) = tokio::try_join!(answered(jobs.list_metadata(&ours)), answered(pods.list_metadata(&ours)))?;
        let metadata = jobs.items.into_iter().map(|job| job.metadata).chain(pods.items.into_iter().map(|pod| pod.metadata));
        let mut all: Vec<Found> = metadata
            .filter_map(|metadata| {
                let labels = metadata.labels.unwrap_or_default();
                let found = found(|name| labels.get(name))?;
                // A Job has this name, and its pod's begins with it.
                metadata.name.is_some_and(|name| name.starts_with(&job_name(found.id))).then_some(found)
            })
            .collect();
        all.sort_by_key(|found| found.id);
        all.dedup_by_key(|found| found.id);
        Ok(all)
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), BackendError> {
        let cluster = self.connection.cluster().await?;
        let job = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..deletion() };
        gone(answered(cluster.jobs().delete(&job_name(id), &job)).await)?;
        // The collector deletes the pod in its own time; a pod without a Job has only us.
        let until = tokio::time::Instant::now() + REMOVAL;
        let of_this = ListParams::default().labels(&format!("{LABEL_SANDBOX}={id}"));
        let pods = cluster.pods();
        loop {
            let left = answered(pods.list_metadata(&of_this)).await?.items;
            if left.is_empty() {
                return Ok(());
            }
            for pod in left.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
                gone(answered(pods.delete(pod.metadata.name.as_deref().unwrap_or_default(), &deletion())).await)?;
            }
            if tokio::time::Instant::now() >= until {
                let detail = format!("the pod of {} is still being deleted", job_name(id));
                return Err(BackendError { backend: BackendKind::Kubernetes, detail });
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

fn deletion() -> DeleteParams {
    DeleteParams { grace_period_seconds: Some(GRACE_SECONDS), ..DeleteParams::default() }
}

/// What was gone already was deleted.
fn gone<T>(result: Result<T, ClusterError>) -> Result<(), ClusterError> {
    match result {
        Ok(_) | Err(ClusterError::Refused { code: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

type Jobs = Api<Job>;
type PodsApi = Api<Pod>;
