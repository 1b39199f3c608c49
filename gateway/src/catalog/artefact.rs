//! What a tool runs, pinned to one content: a module by the digest of its file, an image by digest or by `tool.lock`.

use std::io::Read;
use std::path::{Path, PathBuf};

use mayfly_executor::spec::Source;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::check::is_digest;
use super::tool::Unavailable;
use crate::document::Document;

/// The file beside `tool.yaml` that says which image `mayfly tool build` made.
pub const LOCK_FILE: &str = "tool.lock";
/// The largest module that is read.
const MODULE_MOST: u64 = 256 << 20;

/// What `mayfly tool build` pins: the contents of `tool.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The local id of the image, `sha256:` and 64 hex digits.
    pub image: String,
    /// Digest of what it was built from, in the words of whoever built it.
    pub built_from: String,
    /// Where it was pushed to: `registry/name@sha256:...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<String>,
}

impl Lock {
    /// Reads `tool.lock` of a tool's folder; `None` if there is none.
    ///
    /// # Errors
    /// The file is there and is no lock.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        let file = folder.join(LOCK_FILE);
        if !file.exists() {
            return Ok(None);
        }
        let (document, problems) = Document::read(&file).map_err(|p| p.to_string())?;
        if let Some(problem) = problems.first() {
            return Err(problem.to_string());
        }
        let lock: Self = serde_json::from_value(document.value).map_err(|e| format!("{}: {e}", file.display()))?;
        if !(lock.image.starts_with("sha256:") && is_digest(&lock.image)) {
            return Err(format!("{}: `image` is not `sha256:` and 64 hex digits", file.display()));
        }
        if !lock.pushed.as_deref().is_none_or(|pushed| pushed.contains('@') && is_digest(pushed)) {
            return Err(format!("{}: `pushed` is not `name@sha256:` and 64 hex digits", file.display()));
        }
        Ok(Some(lock))
    }

    /// Writes `tool.lock`, whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        // A gateway often runs as another user than the one who builds.
        let readable = std::fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().prefix(".tool.lock-").permissions(readable).tempfile_in(folder)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.persist(folder.join(LOCK_FILE))?;
        Ok(())
    }
}

/// What a wasm file holds, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModuleKind {
    /// A core module (WASI preview 1): it cannot have a network.
    Core,
    /// A component (WASI preview 2).
    Component,
}

/// A module that is there.
#[derive(Debug)]
pub(super) struct Module {
    /// Pinned.
    pub(super) source: Source,
    /// What it is.
    pub(super) kind: ModuleKind,
}

/// Reads a module and pins it to its content.
pub(super) fn module(folder: &Path, relative: &Path) -> Result<Module, Unavailable> {
    let path = folder.join(relative);
    let build = || format!("run `mayfly tool build {}`", folder.display());
    let file =
        std::fs::File::open(&path).map_err(|e| Unavailable(format!("{} cannot be opened ({e}); {}", path.display(), build())))?;
    let mut bytes = Vec::new();
    file.take(MODULE_MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Unavailable(format!("{} cannot be read ({e}); {}", path.display(), build())))?;
    if bytes.len() as u64 > MODULE_MOST {
        return Err(Unavailable(format!("{} is longer than {} MiB", path.display(), MODULE_MOST >> 20)));
    }
    // https://webassembly.github.io/spec/core/binary/modules.html, and the component model's layer 1.
    let kind = match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => ModuleKind::Core,
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => ModuleKind::Component,
        _ => return Err(Unavailable(format!("{} is no wasm module or component; {}", path.display(), build()))),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    Ok(Module { source: Source::Module { path, sha256: hex::encode(Sha256::digest(&bytes)) }, kind })
}

/// Pins an image: by the digest in its name, or by the lock.
pub(super) fn image(folder: &Path, image: &str) -> Result<Source, Unavailable> {
    if is_digest(image) {
        return Ok(Source::Image(image.to_owned()));
    }
    let build = || format!("run `mayfly tool build {}`", folder.display());
    match Lock::read(folder) {
        Ok(Some(lock)) => Ok(Source::Image(lock.image)),
        Ok(None) => Err(Unavailable(format!("`{image}` is a tag and nothing pins it; {}", build()))),
        Err(wrong) => Err(Unavailable(format!("{wrong}; {}", build()))),
    }
}

/// The image of a pod: pinned by the digest in its name or by what the lock says was pushed; a tag where the operator allows it.
pub(super) fn pod_image(folder: &Path, image: &str, allow_tags: bool) -> Result<String, Unavailable> {
    if is_digest(image) {
        return Ok(image.to_owned());
    }
    let push = || format!("run `mayfly tool build --push REGISTRY {}`", folder.display());
    match Lock::read(folder) {
        Ok(Some(Lock { pushed: Some(pushed), .. })) => Ok(pushed),
        Ok(_) if allow_tags => Ok(image.to_owned()),
        Ok(_) => Err(Unavailable(format!("`{image}` is a tag and nothing pins it in a registry; {}", push()))),
        Err(wrong) => Err(Unavailable(format!("{wrong}; {}", push()))),
    }
}

/// The real folder behind a mount's source, if the operator allows it or one around it. What counts is where the path leads
/// once links are followed.
pub(super) fn mount_source(source: &Path, allowed: &[PathBuf]) -> Result<PathBuf, Unavailable> {
    let refused =
        || Unavailable(format!("{} is not among the operator's `allowed_mounts`; add it to the configuration", source.display()));
    if !allowed.iter().any(|allowed| source.starts_with(allowed)) {
        return Err(refused());
    }
    let real =
        source.canonicalize().map_err(|e| Unavailable(format!("the mount source {} is not there ({e})", source.display())))?;
    let inside = allowed.iter().filter_map(|allowed| allowed.canonicalize().ok()).any(|allowed| real.starts_with(allowed));
    if inside { Ok(real) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_operator_allows_is_mounted_links_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (open, shut) = (root.join("open"), root.join("shut"));
        std::fs::create_dir_all(open.join("inside")).unwrap();
        std::fs::create_dir(&shut).unwrap();
        std::os::unix::fs::symlink(&shut, open.join("link")).unwrap();
        let allowed = [open.clone()];
        assert_eq!(mount_source(&open.join("inside"), &allowed), Ok(open.join("inside")));
        for refused in [shut, open.join("link"), root] {
            assert!(mount_source(&refused, &allowed).unwrap_err().0.contains("allowed_mounts"), "{refused:?}");
        }
        assert!(mount_source(&open.join("missing"), &allowed).unwrap_err().0.contains("not there"));
    }

    #[test]
    fn a_lock_comes_back_as_written_and_a_wrong_one_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Lock::read(folder.path()), Ok(None));
        assert!(image(folder.path(), "hello:dev").unwrap_err().0.contains("mayfly tool build"));
        let lock = Lock { image: format!("sha256:{}", "a".repeat(64)), built_from: "x".to_owned(), pushed: None };
        lock.write(folder.path()).unwrap();
        assert_eq!(Lock::read(folder.path()), Ok(Some(lock.clone())));
        assert_eq!(image(folder.path(), "hello:dev"), Ok(Source::Image(lock.image)));
        for wrong in ["", "{}", "{image: 'sha256:1', built_from: x}", "image: latest\nbuilt_from: x\n", "["] {
            std::fs::write(folder.path().join(LOCK_FILE), wrong).unwrap();
            assert!(image(folder.path(), "hello:dev").is_err(), "{wrong}");
        }
        let pushed = Some(format!("registry/hello@sha256:{}", "c".repeat(64)));
        Lock { image: format!("sha256:{}", "a".repeat(64)), built_from: "x".to_owned(), pushed: pushed.clone() }
            .write(folder.path())
            .unwrap();
        assert_eq!(pod_image(folder.path(), "hello:dev", false).ok(), pushed);
        std::fs::remove_file(folder.path().join(LOCK_FILE)).unwrap();
        assert!(pod_image(folder.path(), "hello:dev", false).unwrap_err().0.contains("--push"));
        assert_eq!(pod_image(folder.path(), "hello:dev", true), Ok("hello:dev".to_owned()));
        let pinned = format!("registry/hello@sha256:{}", "b".repeat(64));
        assert_eq!(image(folder.path(), &pinned), Ok(Source::Image(pinned.clone())), "a digest needs no lock");
    }

    #[test]
    fn a_module_is_known_by_its_header_and_pinned_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let put = |bytes: &[u8]| std::fs::write(folder.path().join("m.wasm"), bytes).unwrap();
        let read = || module(folder.path(), Path::new("m.wasm"));
        assert!(read().unwrap_err().0.contains("mayfly tool build"));
        put(b"\0asm\x01\0\0\0");
        assert_eq!(read().unwrap().kind, ModuleKind::Core);
        put(b"\0asm\x0d\0\x01\0");
        assert_eq!(read().unwrap().kind, ModuleKind::Component);
        for wrong in [&b""[..], b"\0asm", b"#!/bin/sh\n"] {
            put(wrong);
            assert!(read().unwrap_err().0.contains("no wasm"), "{wrong:?}");
        }
    }
}
