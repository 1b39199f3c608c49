//! The standard library of a target: found, or fetched by rustup.

use std::path::{Path, PathBuf};

use super::{BuildError, Progress, process};

/// Makes sure that the tool chain that is in force in `dir` can build for `target`.
pub(super) async fn ensure_target(dir: &Path, target: &str, progress: Progress<'_>) -> Result<(), BuildError> {
    if installed(dir, target).await? {
        return Ok(());
    }
    progress(&format!("fetching Rust's standard library for {target}"));
    let missing = |advice: String| BuildError::TargetMissing { target: target.to_owned(), advice };
    process::run("rustup", &["target", "add", target], dir, progress).await.map_err(|error| match error {
        BuildError::NotStarted { .. } => {
            missing("there is no rustup to fetch it; install it with the package manager that Rust came from".into())
        }
        other => missing(format!("run `rustup target add {target}` in {} and look at what it says ({other})", dir.display())),
    })?;
    if installed(dir, target).await? {
        return Ok(());
    }
    Err(missing("rustup fetched it for another tool chain than the one whose `rustc` is first on PATH".into()))
}

async fn installed(dir: &Path, target: &str) -> Result<bool, BuildError> {
    let printed = process::run("rustc", &["--print", "target-libdir", "--target", target], dir, &|_| {}).await?;
    let folder = PathBuf::from(String::from_utf8_lossy(&printed).trim());
    Ok(tokio::fs::try_exists(&folder).await.unwrap_or(false))
}
