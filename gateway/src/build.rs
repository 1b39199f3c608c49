//! Building a tool's module or image from its folder: what `mayfly tool build` does, and the demo before it starts.
//!
//! A wasm tool is a cargo crate beside its `tool.yaml`; a Docker tool is a Dockerfile, on which the executor is put as the last
//! layer. Whether anything has to be done is cargo's and Docker's to know: nothing here compares dates. What is written appears
//! whole or not at all, so that a gateway that watches the folder never loads half a module.
//!
//! This room runs `cargo`, `rustc` and `rustup`, and asks the Docker engine. It does not check definitions, and runs no tool.

mod checkout;
mod executor;
mod file;
mod image;
mod module;
mod process;
mod toolchain;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mayfly_executor::BackendKind;
use thiserror::Error;

use crate::catalog::definition::Definition;

pub use executor::at_hand as executor_at_hand;

/// What a build may be told. The default is right inside a checkout.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The static `mayfly-executor` for images. `None`: the one beside this program, else built from the checkout.
    pub executor: Option<PathBuf>,
    /// Where the Docker Engine listens, as `unix:///path`. `None`: `DOCKER_HOST`, else Docker's default socket.
    pub docker_host: Option<String>,
    /// The network of a Dockerfile's `RUN` steps, as `docker build --network` takes it. `None`: the engine's default.
    pub network: Option<String>,
    /// The registry to push images to, as `host:port/path`; a tool's tag follows. `None`: they stay in the engine.
    pub push: Option<String>,
    /// Where cargo works. `None`: `target/tools` of the checkout around the tool's folder, else `target` in that folder.
    pub target_dir: Option<PathBuf>,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artifact {
    /// A module or component.
    Module {
        /// Where it lies now.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
        /// Whether it differs from what lay there before.
        changed: bool,
    },
    /// An image, pinned in `tool.lock`.
    Image {
        /// Its tag, from `tool.yaml`.
        tag: String,
        /// Its id, `sha256:...`.
        id: String,
        /// Where it was pushed to, `registry/name@sha256:...`.
        pushed: Option<String>,
    },
}

/// A tool that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The tool's name.
    pub tool: String,
    /// What it runs.
    pub artifact: Artifact,
    /// How long that took.
    pub took: Duration,
}

/// Why a tool was not built, and what to do. What was there before is untouched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The folder holds no source for what its definition runs.
    #[error("{} has no {wanted}: {advice}", .dir.display())]
    NoSource {
        /// The tool's folder.
        dir: PathBuf,
        /// What is missing.
        wanted: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// There is nothing to build for an image that is named by its digest.
    #[error(
        "`executor.image` is pinned by digest (`{0}`), so there is nothing to build; write a tag, such as name:1.0.0, to build it from the Dockerfile"
    )]
    Pinned(String),
    /// A program that the build needs is not there.
    #[error("`{program}` could not be started ({source}): {advice}")]
    NotStarted {
        /// The program.
        program: String,
        /// What the operating system said.
        source: std::io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A program that the build needs failed.
    #[error("`{command}` failed{}", if .output.is_empty() { String::new() } else { format!(":\n{}", .output) })]
    Failed {
        /// What was run.
        command: String,
        /// The last lines it printed.
        output: String,
    },
    /// The standard library of the target is not there, and rustup cannot fetch it.
    #[error("Rust's standard library for {target} is missing: {advice}")]
    TargetMissing {
        /// The target triple.
        target: String,
        /// What to do.
        advice: String,
    },
    /// The crate builds no program, or several.
    #[error("{} must build exactly one program for {target}, and builds {found}", .manifest.display())]
    NotOneProgram {
        /// The crate.
        manifest: PathBuf,
        /// The target triple.
        target: String,
        /// How many it builds.
        found: usize,
    },
    /// `[package.metadata.mayfly]` names a target that no backend runs.
    #[error("{}: `package.metadata.mayfly.target` is `{found}`; it may be {}", .manifest.display(), module::TARGETS.join(" or "))]
    WrongTarget {
        /// The crate.
        manifest: PathBuf,
        /// What it says.
        found: String,
    },
    /// No executor to put on the image.
    #[error("there is no static `mayfly-executor` to put on the image: {0}")]
    NoExecutor(String),
    /// The engine did not build the image.
    #[error("the image was not built: {0}")]
    Image(String),
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Told what goes on, a line at a time. Must not block.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Builds the tool in `dir`, whose `tool.yaml` says `definition`.
///
/// Dropping the future ends what it runs.
///
/// # Errors
/// [`BuildError`]; what lay there before is then untouched.
pub async fn build(
    dir: &Path,
    definition: &Definition,
    options: &BuildOptions,
    progress: Progress<'_>,
) -> Result<Built, BuildError> {
    let begun = Instant::now();
    let dir = dir.canonicalize().map_err(|source| BuildError::File { path: dir.to_owned(), source })?;
    let artifact = match definition.executor.backend {
        BackendKind::Docker | BackendKind::Kubernetes => image::build(&dir, definition, options, progress).await?,
        _ => module::build(&dir, definition, options, progress).await?,
    };
    Ok(Built { tool: definition.name.clone(), artifact, took: begun.elapsed() })
}
