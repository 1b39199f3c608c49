//! The one backend that a single trial needs.

use std::path::PathBuf;
use std::sync::Arc;

use mayfly_executor::docker::{DockerBackend, DockerConfig};
use mayfly_executor::wasm::{WasmBackend, WasmConfig};
use mayfly_executor::{Backend, BackendKind, InstanceId};

use super::{Exit, Failure};
use crate::config::Config;
use crate::engines;

/// A backend of this kind with its default settings.
///
/// # Errors
/// A sentence that says what is missing and what to do.
pub(super) fn one(kind: BackendKind, instance: InstanceId) -> Result<Arc<dyn Backend>, Failure> {
    match kind {
        BackendKind::Wasm => {
            // One call is all there will be.
            let config = WasmConfig { max_instances: 1, ..WasmConfig::new(compiled_modules()?, instance) };
            Ok(WasmBackend::new(config).map_err(|error| Failure::new(Exit::Unreachable, error.to_string()))?)
        }
        BackendKind::Docker => Ok(Arc::new(DockerBackend::connect(DockerConfig { host: None, instance }))),
        BackendKind::Kubernetes => {
            // Which cluster, and which namespace of it, is too much to guess.
            let config = Config::load(None).map_err(|error| Failure::new(Exit::Invalid, error.to_string()))?;
            Ok(Arc::new(engines::kubernetes(&config, instance)))
        }
        other => Err(Failure::new(Exit::Unreachable, format!("this build of mayfly has no {other} backend"))),
    }
}

/// Where compiled modules are kept between trials: `mayfly/modules` in the user's cache.
fn compiled_modules() -> Result<PathBuf, Failure> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    cache.map(|cache| cache.join("mayfly/modules")).ok_or_else(|| {
        let advice = "neither HOME nor XDG_CACHE_HOME is set; set one, so that the compiled module has a place";
        Failure::new(Exit::Unreachable, advice)
    })
}
