//! One pod, from the creation of its Job to its report.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, ready};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{AttachParams, AttachedProcess, ListParams, PostParams};
use tokio::io::{AsyncReadExt, ReadHalf, SimplexStream, WriteHalf};
use tokio::time::{sleep, timeout};

use super::bulk::{Bulk, kept};
use super::cluster::{Cluster, ClusterError, answered};
use super::job::CONTAINER;
use super::job_name;
use super::stage::{Stage, stage, verdict};
use super::token;
use crate::backend::REPORT_GRACE;
use crate::error::{RunError, StartError};
use crate::session::{Session, Ungreeted};
use crate::spec::{API_SERVER, Destination, Reach, SandboxSpec, Source};
use crate::wire::{Invocation, Report, SecretFile, SecretText, Sockets};
use crate::{BackendKind, Host, Sandbox, SandboxId};

/// How long the kubelet may take to tell that a pod whose stream ended is dead.
const NOTICE: Duration = Duration::from_secs(5);
/// How long a pod that no node takes is waited for. What is being removed gives its room back within that.
const NO_NODE: Duration = Duration::from_secs(5);
/// How soon a container that does not run yet is asked for again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a Job may have no pod before it is asked why.
const NO_POD: Duration = Duration::from_millis(500);
/// How long a container that runs may take to say hello.
const GREETING: Duration = Duration::from_secs(10);
/// How long what a broken stream has carried is still read.
const READ_ON: Duration = Duration::from_millis(500);
/// How much of a stream is held for whoever reads more slowly. One frame may be longer.
const BUFFER: usize = 64 << 10;
/// How much of the executor's own last words is kept.
const LAST_WORDS: u64 = 1024;

/// A running pod whose executor has said hello.
pub(super) struct KubernetesSandbox {
    id: SandboxId,
    pod: Placed,
    service_account: Option<String>,
    /// What its names were made for.
    network: BTreeSet<Reach>,
    /// The stream for what its tool's connections carry.
    bulk: Option<Bulk>,
    /// What was minted for its call.
    files: Vec<SecretFile>,
    attached: Attached,
}

/// A pod that has a node.
struct Placed {
    cluster: Arc<Cluster>,
    /// The uid of its Job.
    job: String,
    name: String,
    uid: String,
}

/// A stream to an executor that has said hello.
struct Attached {
    session: Session<ReadHalf<SimplexStream>, WriteHalf<SimplexStream>>,
    /// Its drop ends the stream, and with it the executor.
    _stream: AttachedProcess,
    broken: Broken,
}

/// Resolves when nothing is carried between the stream and us any more. The ends that we hold would not say so.
type Broken = Shared<BoxFuture<'static, ()>>;

/// Why there is none.
enum NotAttached {
    /// The cluster did not let us.
    Refused(ClusterError),
    /// What answered did not say hello, and this on its standard error.
    NotGreeted { why: Ungreeted, words: String },
}

/// Creates a Job and attaches to its pod. What was created when this fails, or is dropped, is destroyed under its id.
pub(super) async fn start(
    cluster: Arc<Cluster>,
    id: SandboxId,
    spec: &SandboxSpec,
    body: Job,
) -> Result<KubernetesSandbox, StartError> {
    let Source::Pod(source) = &spec.source else { return Err(refused("it is not made for a pod".into())) };
    let made = answered(cluster.jobs().create(&PostParams::default(), &body)).await?;
    let job = made.metadata.uid.ok_or_else(|| refused("its Job has no uid".into()))?;
    let (name, uid) = placed(&cluster, id, &job).await?;
    let pod = Placed { cluster, job, name, uid };
    let attached = pod.attached().await?;
    let bulk = if spec.network.is_empty() { None } else { Some(Bulk::open(&pod.cluster, &pod.name).await?) };
    let (service_account, network) = (source.service_account.clone(), spec.network.clone());
    Ok(KubernetesSandbox { id, pod, service_account, network, bulk, files: Vec::new(), attached })
}

fn with(detail: String, words: &str) -> String {
    if words.is_empty() { detail } else { format!("{detail}: {words}") }
}

fn refused(detail: String) -> StartError {
    StartError::Refused { backend: BackendKind::Kubernetes, detail }
}

/// Waits until the pod has a node; answers its name and uid.
async fn placed(cluster: &Cluster, id: SandboxId, job: &str) -> Result<(String, String), StartError> {
    let watching = cluster.seen().until(job, |pod| match stage(pod?) {
        Stage::Placed | Stage::Running => {
            let metadata = &pod?.metadata;
            Some(Ok((metadata.name.clone().unwrap_or_default(), metadata.uid.clone().unwrap_or_default())))
        }
        Stage::Failed(error) => Some(Err(error)),
        Stage::Waiting | Stage::Unschedulable(_) => None,
    });
    tokio::select! {
        found = watching => found,
        error = no_pod(cluster, id, job) => Err(error),
        error = no_node(cluster, job) => Err(error),
    }
}

/// Answers when no node takes the pod for a while.
async fn no_node(cluster: &Cluster, job: &str) -> StartError {
    loop {
        let unschedulable = |pod: Option<&_>| match stage(pod?) {
            Stage::Unschedulable(_) => Some(()),
            _ => None,
        };
        cluster.seen().until(job, unschedulable).await;
        sleep(NO_NODE).await;
        if let Some(Stage::Unschedulable(detail)) = cluster.seen().of(job).as_deref().map(stage) {
            return StartError::NoRoom { backend: BackendKind::Kubernetes, detail };
        }
    }
}

/// Answers when the Job's controller is not allowed to make the pod: a quota, Pod Security, an admission policy. Only an event
/// says so.
async fn no_pod(cluster: &Cluster, id: SandboxId, job: &str) -> StartError {
    let fields = format!("involvedObject.kind=Job,involvedObject.name={},reason=FailedCreate", job_name(id));
    loop {
        sleep(NO_POD).await;
        if cluster.seen().of(job).is_some() {
            return std::future::pending().await;
        }
        let events = cluster.events();
        let Ok(events) = answered(events.list(&ListParams::default().fields(&fields))).await else { continue };
        if let Some(detail) = events.items.into_iter().find_map(|event| event.message) {
            let backend = BackendKind::Kubernetes;
            return if detail.contains("exceeded quota") { StartError::NoRoom { backend, detail } } else { refused(detail) };
        }
    }
}

/// What tells a Kubernetes client in the pod where the API server is.
fn in_cluster() -> [(String, SecretText); 2] {
    [("KUBERNETES_SERVICE_HOST", API_SERVER), ("KUBERNETES_SERVICE_PORT", "443")]
        .map(|(name, value)| (name.to_owned(), SecretText::new(value)))
}

/// What the executor wrote to its standard error.
async fn last_words(stream: &mut AttachedProcess) -> String {
    let Some(stderr) = stream.stderr() else { return String::new() };
    let mut words = Vec::new();
    let _ = timeout(Duration::from_millis(200), stderr.take(LAST_WORDS).read_to_end(&mut words)).await;
    String::from_utf8_lossy(&words).trim().to_owned()
}

#[async_trait]
impl Sandbox for KubernetesSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn idle(&mut self) -> String {
        let Self { attached, pod, bulk, .. } = self;
        let ended = pod.cluster.seen().until(&pod.job, |seen| verdict("its pod ended", seen));
        tokio::select! {
            why = attached.session.idle() => why,
            error = ended => error.to_string(),
            () = attached.broken.clone() => "its stream broke".into(),
            () = kept(bulk) => "its stream for bulk broke".into(),
        }
    }

    async fn mint(&mut self, invocation: &Invocation) -> Result<(), StartError> {
        let Some(account) = &self.service_account else { return Ok(()) };
        let life = invocation.timeout + REPORT_GRACE;
        self.files = token::mint(&self.pod.cluster, account, (&self.pod.name, &self.pod.uid), life).await?.into();
        Ok(())
    }

    async fn invoke(self: Box<Self>, mut invocation: Invocation, host: &dyn Host) -> Result<Report, RunError> {
        let Self { pod, service_account, network, bulk, files, attached: Attached { session, _stream, broken }, .. } = *self;
        let wall = host.wall();
        if let (Some(wall), Some(_)) = (&wall, &service_account) {
            let (host, port) = pod.cluster.server();
            wall.know(Destination::api_server(), host.clone(), *port);
            invocation.environment.extend(in_cluster());
        }
        invocation.faces = wall.and_then(|wall| wall.faces(&network));
        // Its pod has a network. What it may reach, it reaches through the wall.
        invocation.sockets = if invocation.faces.is_some() { Sockets::Loopback } else { Sockets::Unix };
        invocation.files.extend(files);
        if broken.clone().now_or_never().is_some() {
            return Err(RunError::NotDelivered("its stream broke".into()));
        }
        // What came before the break is still to be read.
        let broken = async {
            broken.await;
            sleep(READ_ON).await;
        };
        let result = tokio::select! {
            result = session.run_beside(bulk.map(Bulk::stream), invocation, host) => result,
            () = broken => Err(RunError::Lost("its stream broke".into())),
        };
        match result {
            Err(RunError::Lost(why)) => Err(pod.lost(&why).await),
            result => result,
        }
    }
}

impl Placed {
    /// Attaches as soon as the container runs. The kubelet knows that up to a second before it tells the cluster, so it is asked again
    /// and again: until it agrees, or has told that the container runs and still does not.
    async fn attached(&self) -> Result<Attached, StartError> {
        let seen = self.cluster.seen();
        let mut words = String::new();
        loop {
            let told = match seen.of(&self.job).as_deref().map(stage) {
                None => return Err(refused("its pod was deleted before it was ready".into())),
                Some(Stage::Failed(StartError::Refused { detail, .. })) => return Err(refused(with(detail, &words))),
                Some(Stage::Failed(error)) => return Err(error),
                Some(Stage::Running) => true,
                _ => false,
            };
            match self.attach().await {
                Ok(attached) => return Ok(attached),
                Err(failed) if told => return Err(self.explained(failed).await),
                Err(NotAttached::NotGreeted { why: Ungreeted::Foreign(why), words }) => return Err(refused(with(why, &words))),
                Err(NotAttached::NotGreeted { words: said, .. }) => words = said,
                Err(NotAttached::Refused(_)) => {}
            }
            let news = |pod: Option<&_>| match pod.map(stage) {
                None | Some(Stage::Running | Stage::Failed(_)) => Some(()),
                Some(_) => None,
            };
            let _ = timeout(AGAIN, seen.until(&self.job, news)).await;
        }
    }

    async fn attach(&self) -> Result<Attached, NotAttached> {
        let params = AttachParams {
            container: Some(CONTAINER.into()),
            stdin: true,
            stdout: true,
            stderr: true,
            max_stdin_buf_size: Some(BUFFER),
            max_stdout_buf_size: Some(BUFFER),
            // Read only when there is no hello; until then it must not hold up the rest.
            max_stderr_buf_size: Some(BUFFER),
            ..AttachParams::default()
        };
        let mut stream = answered(self.cluster.pods().attach(&self.name, &params)).await.map_err(NotAttached::Refused)?;
        let broken: Broken = match stream.take_status() {
            Some(status) => status.map(|_| ()).boxed().shared(),
            None => ready(()).boxed().shared(),
        };
        let silent = |why: &str| Ungreeted::Silent(why.to_owned());
        let greeted = match (stream.stdout(), stream.stdin()) {
            (Some(read), Some(write)) => {
                let ended = self.cluster.seen().until(&self.job, |pod| verdict("it ended before it was ready", pod));
                let lost = async {
                    broken.clone().await;
                    sleep(READ_ON).await;
                };
                tokio::select! {
                    greeted = timeout(GREETING, Session::greet(read, write)) => {
                        greeted.unwrap_or_else(|_| Err(silent("nothing in it said hello; was it built by `mayfly tool build`?")))
                    }
                    error = ended => Err(Ungreeted::Silent(error.to_string())),
                    () = lost => Err(silent("its stream broke before it was ready")),
                }
            }
            _ => Err(silent("its streams are missing")),
        };
        match greeted {
            Ok(session) => Ok(Attached { session, _stream: stream, broken }),
            Err(why) => Err(NotAttached::NotGreeted { why, words: last_words(&mut stream).await }),
        }
    }

    /// Why a container that runs could not be attached to.
    async fn explained(&self, failed: NotAttached) -> StartError {
        match failed {
            NotAttached::Refused(error) => error.into(),
            NotAttached::NotGreeted { why: Ungreeted::Foreign(why), words } => refused(with(why, &words)),
            NotAttached::NotGreeted { why, words } => refused(with(self.lost(&why.to_string()).await.to_string(), &words)),
        }
    }

    /// Why a session was lost, now that the stream is gone.
    async fn lost(&self, why: &str) -> RunError {
        let known = self.cluster.seen().until(&self.job, |pod| verdict(why, pod));
        match timeout(NOTICE, known).await {
            Ok(error) => error,
            Err(_) => RunError::Lost(format!("{why}; its pod still seems to run")),
        }
    }
}
