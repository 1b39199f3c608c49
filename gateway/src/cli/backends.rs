//! The one backend that a single trial needs.

use std::path::PathBuf;
use std::sync::Arc;

use mayfly_executor::wasm::{WasmBackend, WasmConfig};
use mayfly_executor::{Backend, BackendKind, InstanceId};

/// A backend of this kind with its default settings.
///
/// # Errors
/// A sentence that says what is missing and what to do.
pub(super) fn one(kind: BackendKind, instance: InstanceId) -> Result<Arc<dyn Backend>, String> {
    match kind {
        BackendKind::Wasm => {
            let mut config = WasmConfig::new(compiled_modules()?, instance);
            // One call is all there will be.
            config.max_instances = 1;
            Ok(WasmBackend::new(config).map_err(|error| error.to_string())?)
        }
        other => Err(format!("this build of mayfly has no {other} backend")),
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
