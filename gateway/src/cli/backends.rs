//! The one backend that a trial needs.

use std::path::PathBuf;
use std::sync::Arc;

use mayfly_executor::docker::{DockerBackend, DockerConfig};
use mayfly_executor::wasm::{WasmBackend, WasmConfig};
use mayfly_executor::{Backend, BackendKind, InstanceId};

use super::{Exit, Failure};

/// A backend of this kind with its default settings.
///
/// # Errors
/// What is missing and what to do.
pub fn one(kind: BackendKind, instance: InstanceId) -> Result<Arc<dyn Backend>, Failure> {
    let unreachable = |message: String| Failure::new(Exit::Unreachable, message);
    match kind {
        BackendKind::Wasm => {
            // One call is all there will be.
            let config = WasmConfig { max_instances: 1, ..WasmConfig::new(compiled_modules().map_err(unreachable)?, instance) };
            Ok(WasmBackend::new(config).map_err(|error| unreachable(error.to_string()))?)
        }
        BackendKind::Docker => Ok(Arc::new(DockerBackend::connect(DockerConfig { host: None, instance }))),
        other => Err(unreachable(format!("this build of mayfly has no {other} backend"))),
    }
}

/// Where compiled modules are kept between trials: `mayfly/modules` in the user's cache.
fn compiled_modules() -> Result<PathBuf, String> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("XDG_CACHE_HOME")
        .or_else(|| Some(named("HOME")?.join(".cache")))
        .map(|cache| cache.join("mayfly/modules"))
        .ok_or_else(|| "neither HOME nor XDG_CACHE_HOME is set; set one, so that the compiled module has a place".to_owned())
}
