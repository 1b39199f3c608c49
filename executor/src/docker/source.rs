//! Which images can be a sandbox.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::ImageConfig;
use parking_lot::Mutex;

use super::engine::{Engine, EngineError};
use crate::BackendKind;
use crate::error::StartError;
use crate::pid1;
use crate::spec::{SandboxSpec, Source};
use crate::wire::PROTOCOL;

/// The label that says which [`PROTOCOL`] an image's executor speaks.
pub const LABEL_EXECUTOR: &str = "mayfly.dev/executor";
/// The label that names the tool in an image.
pub const LABEL_TOOL: &str = "mayfly.dev/tool";

/// An image that carries an executor this gateway can speak with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorImage {
    /// The pinned reference.
    pub reference: String,
    /// Its entrypoint: the executor and its options.
    pub entrypoint: Vec<String>,
    /// Its command: what the executor runs when an invocation names nothing.
    pub command: Vec<String>,
}

/// Images that were found good. A pinned reference means the same image for ever, so it is asked for once.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<HashMap<String, Arc<ExecutorImage>>>);

impl Sources {
    pub(super) async fn check(&self, engine: &Engine, spec: &SandboxSpec) -> Result<Arc<ExecutorImage>, StartError> {
        let Source::Image(reference) = &spec.source else {
            let detail = "the Docker backend runs images, not modules".into();
            return Err(StartError::Refused { backend: BackendKind::Docker, detail });
        };
        if let Some(known) = self.0.lock().get(reference) {
            return Ok(known.clone());
        }
        pinned(reference)?;
        let image = match engine.docker().await?.inspect_image(reference).await.map_err(EngineError::from) {
            Ok(image) => image,
            Err(EngineError::Answered { status: 404, .. }) => return Err(missing(reference)),
            Err(error) => return Err(error.into()),
        };
        let checked = Arc::new(examine(reference, &image.config.unwrap_or_default())?);
        self.0.lock().insert(reference.clone(), checked.clone());
        Ok(checked)
    }

    pub(super) fn forget(&self, image: &ExecutorImage) {
        self.0.lock().remove(&image.reference);
    }
}

/// No such image.
pub(super) fn missing(reference: &str) -> StartError {
    let detail = "the engine has no such image; build it with `mayfly tool build`".into();
    StartError::SourceMissing { source_name: reference.to_owned(), detail }
}

fn invalid(reference: &str, detail: impl Into<String>) -> StartError {
    StartError::SourceInvalid { source_name: reference.to_owned(), detail: detail.into() }
}

/// Only a reference that means one content for ever.
fn pinned(reference: &str) -> Result<(), StartError> {
    let digest = reference.rsplit_once('@').map_or(reference, |(_, digest)| digest).strip_prefix("sha256:");
    match digest {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => Ok(()),
        _ => Err(invalid(
            reference,
            "it is no image id (`sha256:...`) and has no digest (`name@sha256:...`): what a tag means can change",
        )),
    }
}

fn examine(reference: &str, config: &ImageConfig) -> Result<ExecutorImage, StartError> {
    let advice = "build it with `mayfly tool build`";
    match config.labels.as_ref().and_then(|labels| labels.get(LABEL_EXECUTOR)) {
        None => return Err(invalid(reference, format!("the image carries no executor; {advice}"))),
        Some(protocol) if *protocol == PROTOCOL.to_string() => {}
        Some(_) => return Err(invalid(reference, format!("its executor does not speak protocol {PROTOCOL}; {advice} again"))),
    }
    let entrypoint = config.entrypoint.clone().unwrap_or_default();
    if pid1::with_life(&entrypoint, std::time::Duration::from_secs(1)).is_none() {
        return Err(invalid(reference, format!("its entrypoint is not the executor; {advice}")));
    }
    if let Some(volume) = config.volumes.iter().flatten().next() {
        let detail =
            format!("it declares the volume {volume}, which would be writable and outside every limit; remove VOLUME from it");
        return Err(invalid(reference, detail));
    }
    Ok(ExecutorImage { reference: reference.to_owned(), entrypoint, command: config.cmd.clone().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ImageConfig {
        ImageConfig {
            labels: Some(HashMap::from([(LABEL_EXECUTOR.to_owned(), PROTOCOL.to_string())])),
            entrypoint: Some(pid1::entrypoint([])),
            cmd: Some(vec!["/tool".into()]),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn only_an_executor_image_passes() {
        let good = examine("sha256:0", &config()).unwrap();
        assert_eq!((good.entrypoint[0].as_str(), good.command), (pid1::EXECUTOR_PATH, vec!["/tool".to_owned()]));
        let other_protocol = HashMap::from([(LABEL_EXECUTOR.to_owned(), "99".to_owned())]);
        let cases = [
            ("no executor", ImageConfig { labels: None, ..config() }),
            ("protocol", ImageConfig { labels: Some(other_protocol), ..config() }),
            ("entrypoint", ImageConfig { entrypoint: Some(vec!["/bin/sh".into()]), ..config() }),
            ("entrypoint", ImageConfig { entrypoint: None, ..config() }),
            ("/data", ImageConfig { volumes: Some(vec!["/data".into()]), ..config() }),
        ];
        for (named, config) in cases {
            let error = examine("sha256:0", &config).unwrap_err();
            assert!(matches!(&error, StartError::SourceInvalid { detail, .. } if detail.contains(named)), "{named}: {error}");
        }
    }

    #[test]
    fn a_reference_that_can_change_its_meaning_is_refused() {
        let hex = "a".repeat(64);
        for good in [format!("sha256:{hex}"), format!("registry.example:5000/tool@sha256:{hex}")] {
            assert!(pinned(&good).is_ok(), "{good}");
        }
        for wrong in ["tool", "tool:1.0", "", "sha256:", "tool@sha256:abc", &hex, &format!("sha256:{}", "g".repeat(64))] {
            assert!(pinned(wrong).is_err(), "{wrong}");
        }
    }
}
