//! A Docker tool: a Dockerfile beside its `tool.yaml`, and the executor on top.

use std::path::Path;

use mayfly_executor::docker::{Engine, EngineError, ImageBuild, ImageError};
use sha2::{Digest, Sha256};

use super::{Artifact, BuildError, BuildOptions, Progress, executor};
use crate::catalog::definition::Definition;
use crate::catalog::{LOCK_FILE, Lock};

/// Builds the image, gives it the tag `executor.image`, pushes it where that is asked for, and pins it in `tool.lock`.
pub(super) async fn build(
    dir: &Path,
    definition: &Definition,
    options: &BuildOptions,
    progress: Progress<'_>,
) -> Result<Artifact, BuildError> {
    let no_source = |wanted, advice| BuildError::NoSource { dir: dir.to_owned(), wanted, advice };
    let tag = definition.executor.image.as_deref().ok_or_else(|| no_source("`executor.image`", "name the image to build"))?;
    if tag.contains('@') || tag.starts_with("sha256:") {
        return Err(BuildError::Pinned(tag.to_owned()));
    }
    if !dir.join("Dockerfile").is_file() {
        return Err(no_source("Dockerfile", "put one beside its tool.yaml, or name a finished image by its digest"));
    }
    let executor = executor::find_or_build(dir, options, progress).await?;
    let unreadable = |source| BuildError::File { path: executor.clone(), source };
    let executor_digest = hex::encode(Sha256::digest(tokio::fs::read(&executor).await.map_err(unreadable)?));
    let engine = Engine::new(options.docker_host.clone());
    let network = options.network.as_deref();
    let request = ImageBuild { context: dir, tag, tool: &definition.name, executor: &executor, network };
    let id = engine.build(&request, progress).await.map_err(|error| BuildError::Image(advice(&error, network)))?;
    let pushed = match &options.push {
        Some(registry) => Some(engine.push(tag, registry, progress).await.map_err(|error| BuildError::Image(error.to_string()))?),
        // What was pushed before stays true as long as the image is the same.
        None => Lock::read(dir).ok().flatten().filter(|lock| lock.image == id).and_then(|lock| lock.pushed),
    };
    let lock = Lock { image: id.clone(), built_from: format!("Dockerfile, executor sha256:{executor_digest}"), pushed };
    if Lock::read(dir).ok().flatten().as_ref() != Some(&lock) {
        lock.write(dir).map_err(|source| BuildError::File { path: dir.join(LOCK_FILE), source })?;
    }
    Ok(Artifact::Image { tag: tag.to_owned(), id, pushed: lock.pushed })
}

/// What the builder said, and what to do about it.
fn advice(error: &ImageError, network: Option<&str>) -> String {
    match error {
        ImageError::Engine(EngineError::Unreachable(_)) => format!("{error}; start Docker Engine and look at `mayfly doctor`"),
        ImageError::Step(_) if network.is_none() => {
            format!("{error}\nIf a step could not reach the network, try again with `--network host`")
        }
        _ => error.to_string(),
    }
}
