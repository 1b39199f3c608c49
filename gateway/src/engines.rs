//! The engines that the configuration asks for, and the dispatcher over them.

use std::sync::Arc;

use mayfly_executor::docker::{DockerBackend, DockerConfig};
use mayfly_executor::kubernetes::{KubernetesBackend, KubernetesConfig, TokenIssuer};
use mayfly_executor::wasm::{WasmBackend, WasmConfig};
use mayfly_executor::{Backend, BackendKind, Dispatcher, InstanceId, SandboxLedger};
use thiserror::Error;

use crate::config::{Config, Enabled, KubernetesSettings};
use crate::store::Store;

/// A backend cannot start, or was asked for and does not answer.
#[derive(Debug, Error)]
#[error("the {backend} backend cannot be used: {detail}; `mayfly doctor` says more")]
pub struct EngineError {
    /// Which.
    pub backend: BackendKind,
    /// What it said.
    pub detail: String,
}

/// The wasm backend of a configuration.
///
/// # Errors
/// What is missing on this machine.
pub fn wasm(config: &Config, instance: InstanceId) -> Result<Arc<WasmBackend>, EngineError> {
    let (max_instances, max_memory) = (config.wasm.max_instances, config.wasm.max_memory);
    let settings = WasmConfig { max_instances, max_memory, ..WasmConfig::new(config.wasm_cache(), instance) };
    WasmBackend::new(settings).map_err(|error| EngineError { backend: BackendKind::Wasm, detail: error.to_string() })
}

/// The Docker backend of a configuration; nothing is asked of the engine yet.
pub fn docker(config: &Config, instance: InstanceId) -> DockerBackend {
    DockerBackend::connect(DockerConfig { host: config.docker.host.clone(), instance })
}

/// The Kubernetes backend of a configuration; nothing is asked of the cluster yet.
pub fn kubernetes(config: &Config, instance: InstanceId) -> KubernetesBackend {
    KubernetesBackend::connect(cluster(config, config.kubernetes.namespace.clone(), instance))
}

/// Tokens of service accounts in a namespace of the same cluster.
pub fn token_issuer(config: &Config, namespace: String, instance: InstanceId) -> TokenIssuer {
    TokenIssuer::connect(cluster(config, namespace, instance))
}

fn cluster(config: &Config, namespace: String, instance: InstanceId) -> KubernetesConfig {
    let KubernetesSettings { kubeconfig, context, allow_tags, .. } = config.kubernetes.clone();
    KubernetesConfig { kubeconfig, context, namespace, allow_tags, instance }
}

/// The dispatcher over every engine that is configured and, where that is enough, answers.
///
/// # Errors
/// A backend that must be there is not.
pub async fn dispatcher(config: &Config, store: &Arc<Store>) -> Result<Arc<Dispatcher>, EngineError> {
    let instance = store.instance();
    let mut backends: Vec<Arc<dyn Backend>> = vec![wasm(config, instance)?];
    let outside: [(Enabled, Arc<dyn Backend>); 2] = [
        (config.docker.enabled, Arc::new(docker(config, instance))),
        (config.kubernetes.enabled, Arc::new(kubernetes(config, instance))),
    ];
    for (enabled, backend) in outside {
        if enabled != Enabled::Never && wanted(enabled, &*backend, store).await? {
            backends.push(backend);
        }
    }
    let ledger: Arc<dyn SandboxLedger> = store.clone();
    Ok(Dispatcher::new(backends, ledger, instance, config.start_timeout))
}

async fn wanted(enabled: Enabled, backend: &dyn Backend, store: &Store) -> Result<bool, EngineError> {
    let kind = backend.kind();
    let Err(error) = backend.probe().await else { return Ok(true) };
    if enabled == Enabled::Always {
        return Err(EngineError { backend: kind, detail: error.detail });
    }
    // What the last run left on an engine that is away is reaped when it is back.
    let left = store.open_rows().await.is_ok_and(|rows| rows.iter().any(|row| row.backend == kind));
    if !left {
        tracing::info!(%error, "no {kind} engine answers; its tools are answered with 503 until a restart with one");
    }
    Ok(left)
}
