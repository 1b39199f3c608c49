//! A wasm tool: a cargo crate beside its `tool.yaml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Artifact, BuildError, BuildOptions, Progress, checkout, file, process, toolchain};
use crate::catalog::definition::Definition;

/// Core modules and components.
pub(super) const TARGETS: [&str; 2] = ["wasm32-wasip1", "wasm32-wasip2"];

/// Builds the crate and puts its program where `executor.module` says.
pub(super) async fn build(
    dir: &Path,
    definition: &Definition,
    options: &BuildOptions,
    progress: Progress<'_>,
) -> Result<Artifact, BuildError> {
    let no_source = |wanted, advice| BuildError::NoSource { dir: dir.to_owned(), wanted, advice };
    let module = definition
        .executor
        .module
        .as_ref()
        .ok_or_else(|| no_source("`executor.module`", "name the file to build, such as TOOL.wasm"))?;
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(no_source(
            "Cargo.toml",
            "put the crate beside its tool.yaml, or the finished module where `executor.module` says",
        ));
    }
    let target = target(dir, &manifest, definition).await?;
    toolchain::ensure_target(dir, target, progress).await?;
    let made = compile(dir, &manifest, target, options, progress).await?;
    let bytes = tokio::fs::read(&made).await.map_err(|source| BuildError::File { path: made.clone(), source })?;
    let path = dir.join(module);
    let changed = file::put(&path, &bytes)?;
    Ok(Artifact::Module { path, bytes: bytes.len() as u64, changed })
}

/// What cargo says about a crate, as far as we ask.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    metadata: Option<PackageMetadata>,
}

#[derive(Deserialize)]
struct PackageMetadata {
    mayfly: Option<MayflyMetadata>,
}

#[derive(Deserialize)]
struct MayflyMetadata {
    target: Option<String>,
}

/// `package.metadata.mayfly.target` of the crate; without it, a component where there is a network to use, as only
/// components have HTTP, and a core module otherwise.
async fn target(dir: &Path, manifest: &Path, definition: &Definition) -> Result<&'static str, BuildError> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--manifest-path", &manifest.display().to_string()];
    let printed = process::run("cargo", &arguments, dir, &|_| {}).await?;
    let said = serde_json::from_slice::<Metadata>(&printed).ok().and_then(|metadata| {
        let package = metadata.packages.into_iter().find(|package| package.manifest_path == manifest)?;
        package.metadata?.mayfly?.target
    });
    match said {
        None if definition.executor.network.is_empty() => Ok(TARGETS[0]),
        None => Ok(TARGETS[1]),
        Some(found) => TARGETS
            .into_iter()
            .find(|target| *target == found)
            .ok_or_else(|| BuildError::WrongTarget { manifest: manifest.to_owned(), found }),
    }
}

/// Runs cargo and returns the one program that came of it.
async fn compile(
    dir: &Path,
    manifest: &Path,
    target: &'static str,
    options: &BuildOptions,
    progress: Progress<'_>,
) -> Result<PathBuf, BuildError> {
    let target_dir = checkout::tools_target_dir(dir, options).display().to_string();
    let manifest_text = manifest.display().to_string();
    let mut arguments =
        vec!["build", "--release", "--target", target, "--target-dir", &target_dir, "--manifest-path", &manifest_text];
    arguments.push("--message-format=json-render-diagnostics");
    if dir.join("Cargo.lock").is_file() {
        arguments.push("--locked");
    }
    let printed = process::run("cargo", &arguments, dir, progress).await?;
    let mut made = programs(&printed, manifest);
    match (made.pop(), made.len()) {
        (Some(program), 0) => Ok(program),
        (last, others) => Err(BuildError::NotOneProgram {
            manifest: manifest.to_owned(),
            target: target.to_owned(),
            found: others + usize::from(last.is_some()),
        }),
    }
}

/// One line of cargo's answer (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The wasm files that the crate itself came to, dependencies aside.
fn programs(printed: &[u8], manifest: &Path) -> Vec<PathBuf> {
    let messages = printed.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    let ours = messages.filter(|message| message.reason == "compiler-artifact" && message.manifest_path == manifest);
    ours.flat_map(|message| message.filenames)
        .filter(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_crates_own_wasm_files_count() {
        let printed = br#"{"reason":"compiler-artifact","manifest_path":"/r/dep/Cargo.toml","filenames":["/t/dep.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/w/Cargo.toml","filenames":["/t/tool.wasm","/t/tool.d"]}
not json
{"reason":"build-finished","success":true}
"#;
        assert_eq!(programs(printed, Path::new("/w/Cargo.toml")), [PathBuf::from("/t/tool.wasm")]);
        assert!(programs(b"", Path::new("/w/Cargo.toml")).is_empty());
    }
}
