//! The engine itself: reaching it, and what it says when it does not do as asked.

use std::error::Error as _;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::SystemInfo;
use thiserror::Error as ThisError;
use tokio::sync::OnceCell;

use crate::BackendKind;
use crate::error::{BackendError, StartError};

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// What came of asking the engine.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum EngineError {
    /// It does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// It answered, and not with what was asked for.
    #[error("{message} (status {status})")]
    Answered {
        /// HTTP status.
        status: u16,
        /// Its message.
        message: String,
    },
    /// It cannot hold a sandbox.
    #[error("{0}")]
    Unfit(String),
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => Self::Answered { status: status_code, message },
            other => Self::Unreachable(chain(&other)),
        }
    }
}

impl From<EngineError> for BackendError {
    fn from(error: EngineError) -> Self {
        Self { backend: BackendKind::Docker, detail: error.to_string() }
    }
}

impl From<EngineError> for StartError {
    fn from(error: EngineError) -> Self {
        let backend = BackendKind::Docker;
        match error {
            EngineError::Answered { .. } => Self::Refused { backend, detail: error.to_string() },
            EngineError::Unreachable(detail) | EngineError::Unfit(detail) => Self::EngineUnavailable { backend, detail },
        }
    }
}

/// An error with its causes: the client's own sentence rarely says which.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// A Docker Engine on a local socket, connected to when it is first needed.
#[derive(Debug)]
pub struct Engine {
    host: String,
    docker: OnceCell<Docker>,
}

impl Engine {
    /// The engine at `host` (`unix:///path`), else at `DOCKER_HOST`, else at Docker's default socket.
    pub fn new(host: Option<String>) -> Self {
        let host = host.or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()));
        Self { host: host.unwrap_or_else(|| DEFAULT_HOST.to_owned()), docker: OnceCell::new() }
    }

    /// A client that speaks the engine's version. An engine that was not fit or not there is asked again the next time.
    pub(super) async fn docker(&self) -> Result<&Docker, EngineError> {
        self.docker.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Docker, EngineError> {
        if !self.host.starts_with("unix://") {
            return Err(EngineError::Unreachable(format!("`{}` is no local socket; name one as unix:///path", self.host)));
        }
        let unreachable =
            |error| EngineError::Unreachable(format!("no Docker Engine answers at {}: {}", self.host, chain(&error)));
        let docker = Docker::connect_with_host(&self.host).map_err(unreachable)?;
        let docker = docker.negotiate_version().await.map_err(unreachable)?;
        let info = docker.info().await.map_err(unreachable)?;
        match missing(&info) {
            missing if missing.is_empty() => Ok(docker),
            missing => Err(EngineError::Unfit(format!("the engine at {} cannot hold a sandbox: it lacks {missing}", self.host))),
        }
    }

    /// A sentence for the operator: which engine this is, and what to know about it.
    pub(super) async fn describe(&self) -> Result<String, EngineError> {
        let docker = self.docker().await?;
        let info = docker.info().await?;
        let api = docker.client_version();
        let swap =
            if info.swap_limit == Some(true) { "" } else { "; it does not limit swap, so a sandbox may swap beyond its memory" };
        Ok(format!(
            "Docker Engine {} (API {}.{}) at {}{swap}",
            info.server_version.as_deref().unwrap_or("of unknown version"),
            api.major_version,
            api.minor_version,
            self.host,
        ))
    }
}

/// What the isolation floor needs and `info` does not have, in words.
fn missing(info: &SystemInfo) -> String {
    let seccomp = info.security_options.iter().flatten().any(|option| option.contains("name=seccomp"));
    let needs = [
        ("Linux containers", info.os_type.as_deref() == Some("linux")),
        ("memory limits", info.memory_limit == Some(true)),
        ("process limits", info.pids_limit == Some(true)),
        ("CPU limits", info.cpu_cfs_quota == Some(true)),
        ("seccomp", seccomp),
    ];
    needs.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_lacks_a_limit_is_not_fit() {
        let fit = SystemInfo {
            os_type: Some("linux".into()),
            memory_limit: Some(true),
            pids_limit: Some(true),
            cpu_cfs_quota: Some(true),
            security_options: Some(vec!["name=apparmor".into(), "name=seccomp,profile=default".into()]),
            ..SystemInfo::default()
        };
        assert_eq!(missing(&fit), "");
        assert_eq!(missing(&SystemInfo { pids_limit: Some(false), ..fit.clone() }), "process limits");
        assert_eq!(missing(&SystemInfo { security_options: None, memory_limit: None, ..fit }), "memory limits, seccomp");
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unavailable_and_says_where_it_was_sought() {
        for host in ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"] {
            let error = Engine::new(Some(host.into())).docker().await.map(|_| ()).unwrap_err();
            assert!(matches!(&error, EngineError::Unreachable(why) if why.contains(host)), "{error}");
            assert!(matches!(StartError::from(error), StartError::EngineUnavailable { .. }));
        }
    }
}
