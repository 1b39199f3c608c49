//! Building images that can be a sandbox: a Dockerfile that knows nothing of Mayfly, and the executor as the last layer on top.
//!
//! Uses the engine's own builder, which needs no session. A `.dockerignore` is honoured.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{BuildInfo, ImageConfig};
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder, PushImageOptionsBuilder, TagImageOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use thiserror::Error;

use super::context::{self, Generated};
use super::engine::{Engine, EngineError};
use super::source::{LABEL_EXECUTOR, LABEL_TOOL};
use crate::pid1;
use crate::wire::PROTOCOL;

/// How long a build may be silent before its first word: the engine reads the whole context first.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);
/// Where the executor lies in the context of its layer.
const EXECUTOR: &str = "executor";

/// Told what the builder says, a line at a time. Must not block.
type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// An image was not built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file of the context, or the executor, could not be read.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder holds more than a tool.
    #[error("{} holds more than {} MiB to build from; name what the image does not need in .dockerignore", .path.display(), .limit >> 20)]
    ContextTooLarge {
        /// The folder.
        path: PathBuf,
        /// The most bytes that are sent.
        limit: usize,
    },
    /// The executor is no program for Linux.
    #[error("{} is no Linux program; give the static `mayfly-executor`", .0.display())]
    NoExecutor(PathBuf),
    /// The image declares a volume.
    #[error(
        "the image declares the volume {0}, which would be writable and outside every limit; remove VOLUME from its Dockerfile"
    )]
    Volume(String),
    /// A step failed.
    #[error("{0}")]
    Step(String),
    /// The engine did not answer, or refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What to build.
#[derive(Debug, Clone, Copy)]
pub struct ImageBuild<'a> {
    /// The folder with the `Dockerfile`.
    pub context: &'a Path,
    /// The tag of the result.
    pub tag: &'a str,
    /// The tool's name, for the label.
    pub tool: &'a str,
    /// The static executor.
    pub executor: &'a Path,
    /// The network of `RUN` steps, as `docker build --network` takes it; `None`: the engine's default.
    pub network: Option<&'a str>,
}

/// What to put on an image that exists.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The image: an id, or any reference that the engine knows.
    pub image: &'a str,
    /// The tag of the result; `None`: it has only its id.
    pub tag: Option<&'a str>,
    /// The tool's name, for the label.
    pub tool: &'a str,
    /// The static executor.
    pub executor: &'a Path,
}

impl Engine {
    /// Builds the Dockerfile of a folder and puts the executor on top. Returns the id of the result, `sha256:...`.
    ///
    /// # Errors
    /// [`ImageError`]; the tag is then where it was.
    pub async fn build(&self, build: &ImageBuild<'_>, progress: Progress<'_>) -> Result<String, ImageError> {
        let root = build.context.to_owned();
        let joined = tokio::task::spawn_blocking(move || context::folder(&root)).await;
        let tar = joined.map_err(|error| ImageError::File { path: build.context.to_owned(), source: error.into() })??;
        let mut options = BuildImageOptionsBuilder::default().dockerfile("Dockerfile").rm(true).forcerm(true);
        if let Some(network) = build.network {
            options = options.networkmode(network);
        }
        let image = self.run_builder(options.build(), tar, progress).await?;
        let layer = Layer { image: &image, tag: Some(build.tag), tool: build.tool, executor: build.executor };
        self.layer_executor(&layer, progress).await
    }

    /// Puts the executor on an image, as its last layer and entrypoint. What the image ran before becomes what the executor runs,
    /// with the variables that the image sets. Returns the id of the result.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn layer_executor(&self, layer: &Layer<'_>, progress: Progress<'_>) -> Result<String, ImageError> {
        let executor = read_executor(layer.executor).await?;
        let base = self.docker().await?.inspect_image(layer.image).await.map_err(EngineError::from)?;
        let id = base.id.ok_or_else(|| ImageError::Step("the engine gave the image no id".into()))?;
        let dockerfile = dockerfile(&id, &base.config.unwrap_or_default())?;
        let files = [
            Generated { path: "Dockerfile", mode: 0o444, bytes: dockerfile.as_bytes() },
            Generated { path: EXECUTOR, mode: 0o555, bytes: &executor },
        ];
        let tar = context::archive(&files).map_err(|source| ImageError::File { path: layer.executor.to_owned(), source })?;
        let labels = HashMap::from([(LABEL_EXECUTOR, PROTOCOL.to_string()), (LABEL_TOOL, layer.tool.to_owned())]);
        let mut options = BuildImageOptionsBuilder::default().dockerfile("Dockerfile").rm(true).forcerm(true).labels(&labels);
        options = options.networkmode("none");
        if let Some(tag) = layer.tag {
            options = options.t(tag);
        }
        self.run_builder(options.build(), tar, progress).await
    }

    /// Pushes an image to a registry, under the registry's name and the tag's own. Returns what it is there for ever:
    /// `registry/name@sha256:...`.
    ///
    /// Speaks to the registry without credentials; one that wants some is for `docker push`, and its digest for `tool.yaml`.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn push(&self, tag: &str, registry: &str, progress: Progress<'_>) -> Result<String, ImageError> {
        let (name, version) = tag.rsplit_once(':').filter(|(_, version)| !version.contains('/')).unwrap_or((tag, "latest"));
        let target = format!("{}/{name}", registry.trim_end_matches('/'));
        let docker = self.docker().await?.clone().with_timeout(BUILD_TIMEOUT);
        let options = TagImageOptionsBuilder::default().repo(&target).tag(version).build();
        docker.tag_image(tag, Some(options)).await.map_err(EngineError::from)?;
        let options = PushImageOptionsBuilder::default().tag(version).build();
        let mut said = docker.push_image(&target, Some(options), None);
        while let Some(line) = said.next().await {
            let line = line.map_err(EngineError::from)?;
            if let Some(error) = line.error_detail.and_then(|error| error.message) {
                return Err(ImageError::Step(format!("{target} was not pushed: {error}")));
            }
            if let Some(status) = line.status {
                progress(&status);
            }
        }
        let image = docker.inspect_image(&format!("{target}:{version}")).await.map_err(EngineError::from)?;
        let digests = image.repo_digests.unwrap_or_default();
        let pushed = digests.into_iter().find(|digest| digest.starts_with(&format!("{target}@sha256:")));
        pushed.ok_or_else(|| ImageError::Step(format!("{target} was pushed, and the engine does not know its digest")))
    }

    /// Runs the builder and returns the full id of what it built.
    async fn run_builder(&self, options: BuildImageOptions, tar: Vec<u8>, progress: Progress<'_>) -> Result<String, ImageError> {
        let docker = self.docker().await?.clone().with_timeout(BUILD_TIMEOUT);
        let mut said = docker.build_image(options, None, Some(bollard::body_full(Bytes::from(tar))));
        let mut built = None;
        while let Some(info) = said.next().await {
            let BuildInfo { stream, status, aux, .. } = info.map_err(step)?;
            for line in stream.iter().chain(&status).flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty()) {
                progress(line.trim_end());
            }
            built = aux.and_then(|aux| aux.id).or(built);
        }
        built.ok_or_else(|| ImageError::Step("the builder ended without an image".into()))
    }
}

fn step(error: bollard::errors::Error) -> ImageError {
    match error {
        bollard::errors::Error::DockerStreamError { error } => ImageError::Step(error),
        // A Dockerfile that does not parse is the caller's mistake, not the engine's.
        bollard::errors::Error::DockerResponseServerError { status_code: 400 | 500, message } => ImageError::Step(message),
        other => EngineError::from(other).into(),
    }
}

async fn read_executor(path: &Path) -> Result<Vec<u8>, ImageError> {
    let bytes = tokio::fs::read(path).await.map_err(|source| ImageError::File { path: path.to_owned(), source })?;
    if bytes.starts_with(b"\x7fELF") { Ok(bytes) } else { Err(ImageError::NoExecutor(path.to_owned())) }
}

/// The last layer. Pure.
fn dockerfile(base: &str, config: &ImageConfig) -> Result<String, ImageError> {
    if let Some(volume) = config.volumes.iter().flatten().next() {
        return Err(ImageError::Volume(volume.clone()));
    }
    let entrypoint = config.entrypoint.iter().flatten().cloned();
    let mut command: Vec<_> = entrypoint.chain(config.cmd.iter().flatten().cloned()).collect();
    let mut keep: Vec<_> =
        config.env.iter().flatten().filter_map(|variable| Some(variable.split_once('=')?.0.to_owned())).collect();
    keep.sort_unstable();
    // An image that has an executor already gets a new one, not a second one inside the first.
    if command.first().is_some_and(|program| program == pid1::EXECUTOR_PATH) {
        command = command.into_iter().skip_while(|word| word != "--").skip(1).collect();
    }
    let json = |words: &[String]| serde_json::to_string(words).map_err(|error| ImageError::Step(error.to_string()));
    let entrypoint = json(&pid1::entrypoint(keep.iter().map(String::as_str)))?;
    let (command, path) = (json(&command)?, pid1::EXECUTOR_PATH);
    Ok(format!(
        "FROM {base}\nCOPY {EXECUTOR} {path}\nHEALTHCHECK NONE\nUSER 65532:65532\nENTRYPOINT {entrypoint}\nCMD {command}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        Some(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn what_an_image_ran_becomes_what_its_executor_runs() {
        let config = ImageConfig {
            entrypoint: words("/usr/bin/python3 -I"),
            cmd: words("main.py"),
            env: words("PYTHONPATH=/app PATH=/bin"),
            ..ImageConfig::default()
        };
        let text = dockerfile("sha256:1", &config).unwrap();
        assert_eq!(
            text,
            "FROM sha256:1\nCOPY executor /.mayfly/executor\nHEALTHCHECK NONE\nUSER 65532:65532\n\
             ENTRYPOINT [\"/.mayfly/executor\",\"run\",\"--keep-env\",\"PATH\",\"--keep-env\",\"PYTHONPATH\",\"--\"]\n\
             CMD [\"/usr/bin/python3\",\"-I\",\"main.py\"]\n"
        );
    }

    #[test]
    fn an_executor_is_replaced_not_nested() {
        let config =
            ImageConfig { entrypoint: Some(pid1::entrypoint(["A"])), cmd: words("/tool -- x"), ..ImageConfig::default() };
        assert!(dockerfile("sha256:1", &config).unwrap().ends_with("CMD [\"/tool\",\"--\",\"x\"]\n"));
    }

    #[test]
    fn an_image_with_a_volume_is_refused_and_one_without_a_command_is_not() {
        let config = ImageConfig { volumes: words("/data"), ..ImageConfig::default() };
        assert!(matches!(dockerfile("sha256:1", &config), Err(ImageError::Volume(path)) if path == "/data"));
        assert!(dockerfile("sha256:1", &ImageConfig::default()).unwrap().ends_with("CMD []\n"));
    }

    #[tokio::test]
    async fn an_executor_that_is_none_is_refused() {
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh").unwrap();
        assert!(matches!(read_executor(script.path()).await, Err(ImageError::NoExecutor(_))));
        assert!(matches!(read_executor(Path::new("/nowhere")).await, Err(ImageError::File { .. })));
    }
}
