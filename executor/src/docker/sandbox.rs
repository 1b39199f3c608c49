//! One container, from its creation to its report.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::models::{ContainerCreateBody, ContainerState};
use bollard::query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, sleep};
use tokio_util::io::StreamReader;

use super::container_name;
use super::engine::{Engine, EngineError};
use super::source::missing;
use crate::error::{RunError, StartError};
use crate::pid1;
use crate::session::Session;
use crate::spec::{Reach, SandboxSpec};
use crate::wire::{Invocation, Report, Sockets};
use crate::{BackendKind, Host, Sandbox, SandboxId};

/// How long the engine may take to notice that a container whose stream ended is dead.
const NOTICE: Duration = Duration::from_secs(2);
/// How much of the executor's own last words is kept.
const LAST_WORDS: usize = 1024;

type Read = StreamReader<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>, Bytes>;
type Write = Pin<Box<dyn AsyncWrite + Send>>;

/// A running container whose executor has said hello.
pub(super) struct DockerSandbox {
    id: SandboxId,
    container: Container,
    session: Session<Read, Write>,
    /// What its names were made for.
    network: BTreeSet<Reach>,
}

/// What is left to ask when a stream ended without the word that was waited for.
struct Container {
    docker: Docker,
    name: String,
    last_words: Arc<Mutex<Vec<u8>>>,
}

/// Creates, attaches and starts a container, in this order: nothing that it says is missed. What was created when this fails, or
/// is dropped, is destroyed under its id.
pub(super) async fn start(
    engine: &Engine,
    id: SandboxId,
    spec: &SandboxSpec,
    body: ContainerCreateBody,
) -> Result<DockerSandbox, StartError> {
    let docker = engine.docker().await?;
    let name = container_name(id);
    let reference = body.image.clone().unwrap_or_default();
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    match docker.create_container(Some(options), body).await.map_err(EngineError::from) {
        Ok(_) => {}
        Err(EngineError::Answered { status: 404, .. }) => return Err(missing(&reference)),
        Err(error) => return Err(error.into()),
    }
    let options = AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
    let AttachContainerResults { output, input } =
        docker.attach_container(&name, Some(options)).await.map_err(EngineError::from)?;
    docker.start_container(&name, None).await.map_err(EngineError::from)?;
    let last_words = Arc::new(Mutex::new(Vec::new()));
    let container = Container { docker: docker.clone(), name, last_words: last_words.clone() };
    match Session::greet(standard_output(output, last_words), input).await {
        Ok(session) => Ok(DockerSandbox { id, container, session, network: spec.network.clone() }),
        Err(why) => {
            let detail = format!("{why}{}", container.end().await.words);
            Err(StartError::Refused { backend: BackendKind::Docker, detail })
        }
    }
}

/// The container's standard output as a stream of bytes. Its standard error is the executor's alone, and kept for the operator.
fn standard_output<S>(output: S, last_words: Arc<Mutex<Vec<u8>>>) -> Read
where
    S: Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send + 'static,
{
    let bytes = output.filter_map(move |piece| {
        let piece = match piece {
            Ok(LogOutput::StdOut { message }) => Some(Ok(message)),
            Ok(LogOutput::StdErr { message }) => {
                let mut words = last_words.lock();
                let room = LAST_WORDS.saturating_sub(words.len());
                words.extend_from_slice(&message[..message.len().min(room)]);
                None
            }
            Ok(LogOutput::StdIn { .. } | LogOutput::Console { .. }) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        };
        std::future::ready(piece)
    });
    StreamReader::new(Box::pin(bytes))
}

#[async_trait]
impl Sandbox for DockerSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn idle(&mut self) -> String {
        let why = self.session.idle().await;
        format!("{why}{}", self.container.end().await.words)
    }

    async fn invoke(self: Box<Self>, mut invocation: Invocation, host: &dyn Host) -> Result<Report, RunError> {
        let Self { container, session, network, .. } = *self;
        // Its network namespace has nothing but a loopback.
        invocation.sockets = Sockets::Internet;
        invocation.faces = host.wall().and_then(|wall| wall.faces(&network));
        match session.run(invocation, host).await {
            Err(RunError::Lost(why)) => Err(container.lost(why).await),
            result => result,
        }
    }
}

/// How a container ended, as far as the engine knows.
#[derive(Debug, Default)]
struct End {
    /// Set once it is dead.
    exit_code: Option<i64>,
    oom_killed: bool,
    /// All of it, in words, to be put behind a sentence.
    words: String,
}

impl Container {
    /// Why a session was lost, now that the stream is gone and before the container is.
    async fn lost(&self, why: String) -> RunError {
        verdict(why, &self.end().await)
    }

    async fn end(&self) -> End {
        let until = Instant::now() + NOTICE;
        loop {
            let state = match self.docker.inspect_container(&self.name, None).await {
                Ok(container) => container.state.unwrap_or_default(),
                Err(error) => return End { words: format!("; {}", EngineError::from(error)), ..End::default() },
            };
            if state.running == Some(true) && Instant::now() < until {
                sleep(Duration::from_millis(20)).await;
                continue;
            }
            return end(&state, &self.last_words.lock());
        }
    }
}

fn end(state: &ContainerState, last_words: &[u8]) -> End {
    let exit_code = state.exit_code.filter(|_| state.running != Some(true));
    let mut words = match exit_code {
        Some(code) => format!("; the container exited with {code}"),
        None => "; the container still runs".into(),
    };
    if !last_words.is_empty() {
        words = format!("{words}: {}", String::from_utf8_lossy(last_words).trim());
    }
    End { exit_code, oom_killed: state.oom_killed == Some(true), words }
}

/// `SIGKILL` ends PID 1 from outside only: the kernel's, for memory, if it says so.
fn verdict(why: String, end: &End) -> RunError {
    match end.exit_code {
        Some(137) if end.oom_killed => RunError::OutOfMemory,
        Some(code) if code == i64::from(pid1::EXIT_NOT_ACCEPTED) => RunError::NotDelivered(format!("{why}{}", end.words)),
        _ => RunError::Lost(format!("{why}{}", end.words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(running: bool, exit_code: i64, oom_killed: bool) -> ContainerState {
        ContainerState {
            running: Some(running),
            exit_code: Some(exit_code),
            oom_killed: Some(oom_killed),
            ..ContainerState::default()
        }
    }

    #[test]
    fn a_lost_sandbox_is_told_by_how_its_container_ended() {
        let verdict = |running, code, oom| verdict("gone".into(), &end(&state(running, code, oom), b"mayfly-executor: why\n"));
        assert!(matches!(verdict(false, 137, true), RunError::OutOfMemory));
        assert!(matches!(verdict(false, 137, false), RunError::Lost(_)));
        assert!(matches!(verdict(false, 65, true), RunError::Lost(why) if why.contains("exited with 65: mayfly-executor: why")));
        assert!(matches!(verdict(false, 64, false), RunError::NotDelivered(_)));
        // Its exit code is no proof while it runs.
        assert!(matches!(verdict(true, 64, false), RunError::Lost(_)));
    }
}
