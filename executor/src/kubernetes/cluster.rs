//! The connection to a cluster: made when it is first needed, and what its errors mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Event, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use thiserror::Error;
use tokio::sync::Mutex;

use super::client::{ClientFace, client};
use super::pods::Pods;
use super::{Jobs, PodsApi};
use crate::error::{BackendError, StartError};
use crate::{BackendKind, InstanceId};

/// How long one answer may take. Watches and streams are not answers.
const ANSWER: Duration = Duration::from_secs(30);

/// A cluster that may not be there yet.
#[derive(Debug)]
pub(super) struct Connection {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    namespace: String,
    instance: InstanceId,
    cluster: Mutex<Option<Arc<Cluster>>>,
}

/// A cluster that was connected to.
#[derive(Debug)]
pub(super) struct Cluster {
    client: ClientFace,
    namespace: String,
    pods: Pods,
    /// Where its API server is, for us.
    server: (String, u16),
}

/// The API server did not do what was asked.
#[derive(Debug, Error)]
pub(super) enum ClusterError {
    /// It answered with a refusal.
    #[error("{message} ({reason})")]
    Refused {
        /// HTTP status.
        code: u16,
        /// The word for it.
        reason: String,
        /// Its sentence.
        message: String,
    },
    /// It did not answer, or nobody knows where it is.
    #[error("{0}")]
    Unreachable(String),
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Self::Refused { code: status.code, reason: status.reason.clone(), message: status.message.clone() }
            }
            error => Self::Unreachable(chain(&error)),
        }
    }
}

/// An error with what caused it: a client says little more than that it is one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl From<ClusterError> for StartError {
    fn from(error: ClusterError) -> Self {
        let backend = BackendKind::Kubernetes;
        let detail = error.to_string();
        match error {
            ClusterError::Unreachable(_) | ClusterError::Refused { code: 429 | 500.., .. } => {
                Self::EngineUnavailable { backend, detail }
            }
            ClusterError::Refused { code: 403, ref message, .. } if message.contains("exceeded quota") => {
                Self::NoRoom { backend, detail }
            }
            ClusterError::Refused { .. } => Self::Refused { backend, detail },
        }
    }
}

impl From<ClusterError> for BackendError {
    fn from(error: ClusterError) -> Self {
        Self { backend: BackendKind::Kubernetes, detail: error.to_string() }
    }
}

impl Connection {
    pub(super) fn new(kubeconfig: Option<PathBuf>, context: Option<String>, namespace: String, instance: InstanceId) -> Self {
        Self { kubeconfig, context, namespace, instance, cluster: Mutex::new(None) }
    }

    /// The cluster. A configuration that cannot be read now may be there later.
    pub(super) async fn cluster(&self) -> Result<Arc<Cluster>, ClusterError> {
        let mut cluster = self.cluster.lock().await;
        if let Some(cluster) = &*cluster {
            return Ok(cluster.clone());
        }
        let config = self.config().await?;
        let url = &config.cluster_url;
        let default = if url.scheme_str() == Some("http") { 80 } else { 443 };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let server = (host, url.port_u16().unwrap_or(default));
        let client = self.client().await?;
        let api = Api::namespaced(client.clone(), &self.namespace);
        let pods = Pods::follow(api, self.instance);
        let made = Arc::new(Cluster { client: ClientFace(client), namespace: self.namespace.clone(), pods, server });
        *cluster = Some(made.clone());
        Ok(made)
    }

    /// A client of the cluster, and nothing that goes on behind it.
    pub(super) async fn client(&self) -> Result<Client, ClusterError> {
        Ok(client(&self.config().await?)?)
    }

    async fn config(&self) -> Result<Config, ClusterError> {
        let unreadable = |error: &dyn std::error::Error| ClusterError::Unreachable(chain(error));
        let read = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file).map_err(|error| unreadable(&error))?,
            None => match Config::incluster() {
                Ok(config) => return Ok(config),
                Err(outside) => Kubeconfig::read().map_err(|error| {
                    let (none, outside) = (chain(&error), chain(&outside));
                    ClusterError::Unreachable(format!("no kubeconfig ({none}), and not in a cluster ({outside})"))
                })?,
            },
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        if proxy(&read, self.context.as_ref()).is_some() {
            // Going past it is not what whoever set it wants. A proxy in the environment is for other things.
            let why =
                "the kubeconfig has a `proxy-url`, and Mayfly speaks to no proxy; give it a way of its own to the API server";
            return Err(ClusterError::Unreachable(why.to_owned()));
        }
        Config::from_custom_kubeconfig(read, &options).await.map_err(|error| unreadable(&error))
    }
}

/// What the cluster of a context, or of the current one, is to be reached by.
fn proxy<'a>(kubeconfig: &'a Kubeconfig, context: Option<&String>) -> Option<&'a String> {
    let name = context.or(kubeconfig.current_context.as_ref())?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *name)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?;
    cluster.cluster.as_ref()?.proxy_url.as_ref().filter(|url| !url.is_empty())
}

impl Cluster {
    pub(super) fn client(&self) -> &Client {
        &self.client.0
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) const fn server(&self) -> &(String, u16) {
        &self.server
    }

    pub(super) const fn seen(&self) -> &Pods {
        &self.pods
    }

    pub(super) fn jobs(&self) -> Jobs {
        Api::namespaced(self.client.0.clone(), &self.namespace)
    }

    pub(super) fn pods(&self) -> PodsApi {
        Api::namespaced(self.client.0.clone(), &self.namespace)
    }

    pub(super) fn events(&self) -> Api<Event> {
        Api::namespaced(self.client.0.clone(), &self.namespace)
    }

    pub(super) fn service_accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.client.0.clone(), &self.namespace)
    }

    pub(super) fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.0.clone(), &self.namespace)
    }
}

/// Gives an answer up that takes too long: an API server that is stopped keeps its connections open.
pub(super) async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ClusterError::Unreachable(format!("the API server did not answer within {} s", ANSWER.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proxy_is_not_gone_past() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let kubeconfig = "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}], \
                          users: [{name: a}], clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1', proxy-url: 'http://127.0.0.1:2'}}]}";
        std::fs::write(file.path(), kubeconfig).unwrap();
        let of = |path: &std::path::Path| Connection::new(Some(path.to_owned()), None, "a".into(), InstanceId(uuid::Uuid::nil()));
        let refused = of(file.path()).client().await.map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("proxy-url"), "{refused}");
        std::fs::write(file.path(), kubeconfig.replace("proxy-url", "extra")).unwrap();
        assert!(of(file.path()).client().await.is_ok());
    }
}
