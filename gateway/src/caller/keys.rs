//! Agent keys: `mf_<id>_<secret>`, where the id is 12 and the secret 64 lower-case hex digits (256 random bits).
//!
//! Hex has no `_`, so a key takes apart in one way only. The id is public and finds the agent; the secret is shown once and
//! kept nowhere: the store has an HMAC-SHA-256 of the whole key, under a key of the installation that is not in the database, so
//! that neither a stolen database nor a stolen file gives a key, and a row that is put in by hand opens nothing.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::AgentError;

/// Every key begins with this, so that scanners for leaked secrets can find them.
const PREFIX: &str = "mf_";

const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// Name of the file, in the data folder, that holds the installation's key.
const KEY_FILE: &str = "agent-key.hmac";

/// A new key. Its secret can be read from here and nowhere else.
#[derive(Debug)]
pub struct AgentKey {
    id: String,
    text: SecretString,
}

impl AgentKey {
    /// A key from the operating system's random source.
    ///
    /// # Errors
    /// [`AgentError::Random`] when it has no randomness to give.
    pub fn generate() -> Result<Self, AgentError> {
        let mut id = [0; ID_BYTES];
        let mut secret = SecretBox::new(Box::new([0; SECRET_BYTES]));
        getrandom::fill(&mut id).map_err(|e| AgentError::Random(e.to_string()))?;
        getrandom::fill(secret.expose_secret_mut()).map_err(|e| AgentError::Random(e.to_string()))?;
        let id = hex::encode(id);
        let secret = SecretString::from(hex::encode(secret.expose_secret()));
        let text = SecretString::from(format!("{PREFIX}{id}_{}", secret.expose_secret()));
        Ok(Self { id, text })
    }

    /// Its public part.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole key, to be shown once.
    pub const fn secret(&self) -> &SecretString {
        &self.text
    }
}

/// A key as a request carries it: well-formed, not yet checked.
pub(super) struct PresentedKey<'a> {
    text: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// Takes exactly the form [`AgentKey`] has; `None` for anything else.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_hex =
            |part: &str, bytes: usize| part.len() == 2 * bytes && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES)).then_some(Self { text })
    }

    /// Its public part.
    pub(super) fn id(&self) -> &'a str {
        self.text.get(PREFIX.len()..PREFIX.len() + 2 * ID_BYTES).unwrap_or_default()
    }
}

/// Turns keys into what the store may know of them.
pub struct KeyHasher(Hmac<Sha256>);

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher(..)")
    }
}

impl KeyHasher {
    /// Reads the installation's key from the data folder. `Ok(None)`: there is none yet.
    ///
    /// # Errors
    /// [`AgentError::KeyFile`] when it cannot be read, has the wrong length, or others may read it.
    pub fn load(dir: &Path) -> Result<Option<Self>, AgentError> {
        let path = dir.join(KEY_FILE);
        let failed = |problem: String| AgentError::KeyFile { path: path.clone(), problem };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(format!("cannot be opened: {error}"))),
        };
        let mode = file.metadata().map_err(|e| failed(format!("cannot be read: {e}")))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(failed(format!("others may use it (mode {:o}); `chmod 600` it", mode & 0o777)));
        }
        let mut key = SecretBox::new(Box::new(Vec::with_capacity(SECRET_BYTES + 1)));
        file.take(SECRET_BYTES as u64 + 1)
            .read_to_end(key.expose_secret_mut())
            .map_err(|e| failed(format!("cannot be read: {e}")))?;
        if key.expose_secret().len() != SECRET_BYTES {
            return Err(failed(format!(
                "is not {SECRET_BYTES} bytes long; restore it from a backup, or remove it and every agent"
            )));
        }
        Self::new(key.expose_secret()).map(Some)
    }

    /// Creates the installation's key in the data folder, all of it or nothing, with mode 0600.
    ///
    /// # Errors
    /// [`AgentError::KeyFile`] when there is one already or it cannot be written.
    pub fn create(dir: &Path) -> Result<Self, AgentError> {
        let path = dir.join(KEY_FILE);
        let failed =
            |error: std::io::Error| AgentError::KeyFile { path: path.clone(), problem: format!("cannot be created: {error}") };
        let mut key = SecretBox::new(Box::new([0; SECRET_BYTES]));
        getrandom::fill(key.expose_secret_mut()).map_err(|e| AgentError::Random(e.to_string()))?;
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
        file.write_all(key.expose_secret()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist_noclobber(&path).map_err(|e| failed(e.error))?;
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Self::new(key.expose_secret())
    }

    fn new(key: &[u8]) -> Result<Self, AgentError> {
        Hmac::new_from_slice(key).map(Self).map_err(|e| AgentError::Random(e.to_string()))
    }

    /// The MAC of a new key, for the store.
    pub fn mac(&self, key: &AgentKey) -> [u8; 32] {
        self.digest(key.text.expose_secret())
    }

    /// Whether the presented key is the one whose MAC is given. Takes the same time whatever is wrong.
    pub(super) fn verify(&self, key: &PresentedKey<'_>, mac: &[u8; 32]) -> bool {
        self.digest(key.text).ct_eq(mac).into()
    }

    fn digest(&self, text: &str) -> [u8; 32] {
        self.0.clone().chain_update(text).finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use proptest::prelude::*;

    use super::*;

    fn hasher() -> KeyHasher {
        KeyHasher::new(&[7; SECRET_BYTES]).unwrap()
    }

    #[test]
    fn a_key_is_its_own_and_no_other() {
        let (key, other) = (AgentKey::generate().unwrap(), AgentKey::generate().unwrap());
        let text = key.secret().expose_secret().to_owned();
        let presented = PresentedKey::parse(&text).unwrap();
        assert_eq!(presented.id(), key.id());
        assert!(hasher().verify(&presented, &hasher().mac(&key)));
        assert!(!hasher().verify(&presented, &hasher().mac(&other)));
        assert!(!KeyHasher::new(&[8; SECRET_BYTES]).unwrap().verify(&presented, &hasher().mac(&key)));
    }

    #[test]
    fn a_secret_is_bound_to_its_id() {
        let (key, other) = (AgentKey::generate().unwrap(), AgentKey::generate().unwrap());
        let text = key.secret().expose_secret().replace(key.id(), other.id());
        assert!(!hasher().verify(&PresentedKey::parse(&text).unwrap(), &hasher().mac(&key)));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let key = AgentKey::generate().unwrap();
        let shown = format!("{key:?} {:?}", hasher());
        let secret = key.secret().expose_secret().rsplit('_').next().unwrap();
        assert!(!shown.contains(secret), "{shown}");
    }

    #[test]
    fn the_installations_key_is_created_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        assert!(KeyHasher::load(dir.path()).unwrap().is_none());
        let created = KeyHasher::create(dir.path()).unwrap();
        let key = AgentKey::generate().unwrap();
        assert_eq!(KeyHasher::load(dir.path()).unwrap().unwrap().mac(&key), created.mac(&key));
        assert!(matches!(KeyHasher::create(dir.path()), Err(AgentError::KeyFile { .. })));
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_installations_key_that_is_wrong_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        for length in [0, 31, 33, 4096] {
            std::fs::write(&path, vec![1; length]).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(KeyHasher::load(dir.path()).unwrap_err().to_string().contains("32 bytes"), "{length}");
        }
        std::fs::write(&path, [1; SECRET_BYTES]).unwrap();
        for mode in [0o640, 0o604, 0o644] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(KeyHasher::load(dir.path()).unwrap_err().to_string().contains("chmod 600"), "{mode:o}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text in ".*") {
            prop_assert!(PresentedKey::parse(&text).is_none());
        }

        #[test]
        fn only_the_exact_form_is_a_key(id in "[0-9a-f]{11,13}", gap in "_{0,2}", secret in "[0-9a-f]{63,65}") {
            let text = format!("mf_{id}{gap}{secret}");
            let right = id.len() == 12 && gap.len() == 1 && secret.len() == 64;
            prop_assert_eq!(PresentedKey::parse(&text).map(|k| k.id().to_owned()), right.then_some(id));
        }

        #[test]
        fn one_wrong_character_is_no_key(at in 0usize..80, with in "[^0-9a-f_]") {
            let mut text: Vec<String> = AgentKey::generate().unwrap().secret().expose_secret().chars().map(String::from).collect();
            prop_assume!(text[at] != with);
            text[at] = with;
            prop_assert!(PresentedKey::parse(&text.concat()).is_none());
        }
    }
}
