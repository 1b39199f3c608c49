//! The master key: the one secret that everything in the vault rests on, and that the vault does not hold.
//!
//! It is 32 bytes, written in base64 (RFC 4648, section 4) as `openssl rand -base64 32` writes them, in a file, in a variable of the
//! environment, or as what a program prints (a KMS client that decrypts it).

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::KeySource;
use crate::program;

const BYTES: usize = 32;
/// More than any way of writing 32 bytes.
const MOST_TEXT: u64 = 1024;
/// How long the program has that prints it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A master key. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; BYTES]>,
    id: String,
}

/// Why there is no master key. Never shows what was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MasterKeyError {
    /// The file is not there.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// It cannot be used; says why and what to do.
    #[error("{origin} {problem}")]
    Unusable {
        /// Where it was looked for.
        origin: String,
        /// What is wrong there.
        problem: String,
    },
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MasterKey {
    /// One from the operating system's random source.
    ///
    /// # Errors
    /// When it has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self::of(bytes))
    }

    fn of(bytes: Zeroizing<[u8; BYTES]>) -> Self {
        // Any length of key will do for HMAC.
        let mac = Hmac::<Sha256>::new_from_slice(&*bytes).map(|mac| mac.chain_update("mayfly master key id").finalize());
        let id = mac.map(|mac| hex::encode(&mac.into_bytes()[..8])).unwrap_or_default();
        Self { bytes, id }
    }

    /// Which key it is, without a word of what it is: 16 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn bytes(&self) -> &[u8; BYTES] {
        &self.bytes
    }

    /// Gets it from where the configuration says.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub async fn load(source: &KeySource) -> Result<Self, MasterKeyError> {
        match source {
            KeySource::File(path) => Self::read(path),
            KeySource::Environment(name) => {
                let origin = format!("the variable {name}");
                let text = std::env::var(name).map(Zeroizing::new);
                Self::parse(&origin, text.map_err(|_| unusable(&origin, "is not set"))?.as_bytes())
            }
            KeySource::Command(argv) => {
                let origin = format!("`{}`", argv.first().map_or("", String::as_str));
                let printed =
                    program::run(argv, &[], PATIENCE, &[]).await.map_err(|error| unusable(&origin, error.to_string()))?;
                Self::parse(&origin, &printed)
            }
        }
    }

    /// Reads it from a file that nobody else may read.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub fn read(path: &Path) -> Result<Self, MasterKeyError> {
        let origin = path.display().to_string();
        let failed = |error: std::io::Error| unusable(&origin, format!("cannot be read: {error}"));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(MasterKeyError::Missing(path.to_owned())),
            Err(error) => return Err(failed(error)),
        };
        // A group may: that is how Kubernetes shows a Secret to a pod.
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(unusable(&origin, format!("is open to everybody (mode {:o}); `chmod 600` it", mode & 0o777)));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(64));
        file.take(MOST_TEXT).read_to_end(&mut text).map_err(failed)?;
        Self::parse(&origin, &text)
    }

    /// Writes it to a file that is not there yet, all of it or nothing, with mode 0600.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let text = Zeroizing::new(BASE64_STANDARD.encode(&self.bytes[..]) + "\n");
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all())?;
        file.persist_noclobber(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }

    fn parse(origin: &str, text: &[u8]) -> Result<Self, MasterKeyError> {
        let decoded = BASE64_STANDARD.decode(text.trim_ascii()).map(Zeroizing::new);
        let bytes = decoded.ok().and_then(|decoded| <[u8; BYTES]>::try_from(&decoded[..]).ok());
        let wrong = "does not hold 32 bytes in base64; `openssl rand -base64 32` makes such a key";
        bytes.map(|bytes| Self::of(Zeroizing::new(bytes))).ok_or_else(|| unusable(origin, wrong))
    }
}

fn unusable(origin: &str, problem: impl Into<String>) -> MasterKeyError {
    MasterKeyError::Unusable { origin: origin.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_comes_from_a_file_the_environment_or_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let key = MasterKey::generate().unwrap();
        key.write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(key.write(&path).is_err(), "what is there is not overwritten");
        let load = async |source: KeySource| MasterKey::load(&source).await.map(|found| found.id);
        assert_eq!(load(KeySource::File(path.clone())).await.as_deref(), Ok(key.id()));
        let command = ["cat", path.to_str().unwrap()].map(str::to_owned);
        assert_eq!(load(KeySource::Command(command.into())).await.as_deref(), Ok(key.id()));
        let unset = load(KeySource::Environment("MAYFLY_TEST_NO_SUCH_VARIABLE".into())).await.unwrap_err();
        assert!(unset.to_string().contains("is not set"), "{unset}");
    }

    #[tokio::test]
    async fn what_is_no_key_is_refused_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let short = "c2hvcnQ=";
        std::fs::write(&path, short).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let open = MasterKey::read(&path).unwrap_err().to_string();
        assert!(open.contains("chmod 600"), "{open}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let wrong = MasterKey::read(&path).unwrap_err().to_string();
        assert!(wrong.contains("openssl rand -base64 32") && !wrong.contains(short), "{wrong}");
        let failing = KeySource::Command(["false".to_owned()].into());
        let failed = MasterKey::load(&failing).await.unwrap_err().to_string();
        assert!(failed.contains("`false`"), "{failed}");
        assert!(matches!(MasterKey::read(&dir.path().join("none")), Err(MasterKeyError::Missing(_))));
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let key = MasterKey::generate().unwrap();
        assert!(!format!("{key:?}").contains(&BASE64_STANDARD.encode(&key.bytes[..])));
        assert_eq!(key.id().len(), 16);
    }
}
