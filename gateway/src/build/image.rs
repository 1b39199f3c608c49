//! temp
use super::{Artifact, BuildError, BuildOptions, Progress, executor};
use crate::catalog::definition::Definition;
use std::path::Path;
pub(super) async fn build(
    dir: &Path,
    definition: &Definition,
    options: &BuildOptions,
    progress: Progress<'_>,
) -> Result<Artifact, BuildError> {
    let p = executor::find_or_build(dir, options, progress).await?;
    Err(BuildError::Image(format!("{} {}", p.display(), definition.name)))
}
