//! Compiled modules on disk, so that a restart does not compile again.
//!
//! # Guarantees
//! What is loaded from here is machine code that runs in our process, so nothing is loaded that anyone but us could have
//! written: the folder and each file must belong to this user and be closed to everyone else's writing, and a file must
//! carry its own digest, made over its key too. Whatever does not is treated as absent, and compiled again.

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::SetupError;

const OTHERS_MAY_WRITE: u32 = 0o022;
const DIGEST_LENGTH: usize = 32;
/// A half-written file of a process that died is removed after this long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What a source turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A core module (WASI preview 1).
    Module,
    /// A component (WASI preview 2).
    Component,
}

/// A compiled source.
pub(super) enum Compiled {
    Module(Module),
    Component(Component),
}

/// The folder.
pub(super) struct Artefacts {
    folder: PathBuf,
    /// Tells apart what engines of other versions, settings and processors compiled.
    compatibility: u64,
}

impl Artefacts {
    /// Opens `folder`, making it when it is not there.
    pub(super) fn open(folder: &Path, engine: &Engine) -> Result<Self, SetupError> {
        let refuse = |detail: String| SetupError::Folder { path: folder.to_owned(), detail };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| refuse(e.to_string()))?;
        let found = fs::symlink_metadata(folder).map_err(|e| refuse(e.to_string()))?;
        if !found.is_dir() {
            return Err(refuse("it is not a folder; name a folder, not a link to one".into()));
        }
        if let Err(detail) = only_ours(&found) {
            return Err(refuse(format!("{detail}; compiled code is run from it, so run `chmod 700` on a folder of your own")));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let this = Self { folder: folder.to_owned(), compatibility: hasher.finish() };
        this.remove_abandoned();
        Ok(this)
    }

    /// The compiled form of the source with this digest, when it is here and whole.
    pub(super) fn load(&self, engine: &Engine, kind: Kind, sha256: &str) -> Option<Compiled> {
        let path = self.path(sha256);
        let code = match self.read(&path, sha256) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a cached module is not usable and will be compiled again");
                return None;
            }
        };
        deserialize(engine, kind, &code)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a cached module does not load; compiling again"))
            .ok()
    }

    /// Keeps `code`, whole or not at all.
    pub(super) fn store(&self, sha256: &str, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
        file.write_all(&checksum(sha256, code))?;
        file.write_all(code)?;
        file.as_file().sync_data()?;
        file.persist(self.path(sha256))?;
        Ok(())
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{sha256}-{:016x}.cwasm", self.compatibility))
    }

    fn read(&self, path: &Path, sha256: &str) -> io::Result<Vec<u8>> {
        let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(nofollow).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        only_ours(&found).map_err(io::Error::other)?;
        let mut expected = [0; DIGEST_LENGTH];
        file.read_exact(&mut expected)?;
        let mut code = Vec::new();
        file.read_to_end(&mut code)?;
        if expected == checksum(sha256, &code) { Ok(code) } else { Err(io::Error::other("its digest is another")) }
    }

    fn remove_abandoned(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten().filter(|e| e.file_name().as_encoded_bytes().starts_with(b".new-")) {
            let modified = entry.metadata().and_then(|m| m.modified());
            if modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > ABANDONED)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether only this process's user could have written what this describes; otherwise why not.
fn only_ours(found: &fs::Metadata) -> Result<(), String> {
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return Err(format!("it belongs to user {}, and this process runs as {us}", found.uid()));
    }
    if found.mode() & OTHERS_MAY_WRITE != 0 {
        return Err(format!("its mode {:o} lets others write to it", found.mode() & 0o7777));
    }
    Ok(())
}

fn checksum(sha256: &str, code: &[u8]) -> [u8; DIGEST_LENGTH] {
    Sha256::new().chain_update(sha256).chain_update(code).finalize().into()
}

#[expect(unsafe_code, reason = "loading compiled code is unsafe by nature; the guarantees of this file are what makes it sound")]
fn deserialize(engine: &Engine, kind: Kind, code: &[u8]) -> wasmtime::Result<Compiled> {
    // SAFETY: wasmtime asks that the bytes are what an engine serialized, unmodified. They come from a file of our own user's
    // in a folder nobody else can write to, which only `store` fills, and only with what `serialize` gave; the digest over
    // them was checked just now, and wasmtime itself refuses those of another version or setting.
    unsafe {
        Ok(match kind {
            Kind::Module => Compiled::Module(Module::deserialize(engine, code)?),
            Kind::Component => Compiled::Component(Component::deserialize(engine, code)?),
        })
    }
}
