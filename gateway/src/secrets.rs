//! The embedded vault: secrets of the operator's that calls may be given, sealed on the disk under a master key.
//!
//! # Flow
//! `mayfly secret set` -> [`envelope`] -> store ... a call -> [`Secrets::reveal`]
//!
//! # Guarantees
//! - A value is readable in this process alone: the store has it sealed, the administration never gives it back.
//! - No gateway starts with a master key that does not open what is stored. A rotation that was cut short is finished at the start.
//!
//! # Assumptions
//! Who can read the data folder and the master key has the secrets: keep the key elsewhere where that matters.

pub mod envelope;
mod error;
pub mod master;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::config::{KeySource, SecretsConfig};
use crate::store::{SecretRow, Store};
pub use error::SecretError;
use master::{MasterKey, MasterKeyError};

/// The master key's file where the configuration names none, in the data folder.
const OWN_KEY: &str = "master.key";
/// The shortest value: a shorter one could not be told from ordinary output, and so not be kept from it.
const SHORTEST: usize = 8;
/// The longest value.
const LONGEST: usize = 64 << 10;

/// The open vault; shared as `Arc`.
#[derive(Debug)]
pub struct Secrets {
    store: Arc<Store>,
    /// Where the master key lies, if it is a file: then it can be changed from here.
    file: Option<PathBuf>,
    state: RwLock<State>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    master: MasterKey,
    rows: BTreeMap<String, SecretRow>,
}

impl Secrets {
    /// Opens the vault. The first start makes a master key where none is configured.
    ///
    /// # Errors
    /// [`SecretError`]: the master key cannot be had, or is not the one that the secrets are sealed with.
    pub async fn open(config: &SecretsConfig, data_dir: &Path, store: Arc<Store>) -> Result<Arc<Self>, SecretError> {
        let mut rows: BTreeMap<_, _> = store.secrets().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
        let own = KeySource::File(data_dir.join(OWN_KEY));
        let source = config.master_key.as_ref().unwrap_or(&own);
        let master = match (MasterKey::load(source).await, &config.master_key) {
            (Err(MasterKeyError::Missing(path)), None) if rows.is_empty() => created(&path)?,
            (Err(MasterKeyError::Missing(path)), _) => return Err(lost(path, &rows)),
            (found, _) => found?,
        };
        let file = if let KeySource::File(path) = source { Some(path.canonicalize()?) } else { None };
        if let Some(path) = &file {
            finish_rotation(&store, &mut rows, path, &master).await?;
        }
        if let Some(previous) = &config.previous_master_key {
            rewrap(&store, &mut rows, &MasterKey::load(previous).await?, &master).await?;
        }
        if let Some(foreign) = rows.values().find(|row| row.sealed.key_id != master.id()) {
            let (sealed_with, given) = (foreign.sealed.key_id.clone(), master.id().to_owned());
            return Err(SecretError::WrongKey { name: foreign.name.clone(), sealed_with, given });
        }
        Ok(Arc::new(Self { store, file, state: RwLock::new(State { master, rows }), changing: tokio::sync::Mutex::default() }))
    }

    /// Stores a value under a name, as its next version. It can be given to calls from then on, and read by nobody.
    ///
    /// # Errors
    /// [`SecretError::Name`], [`SecretError::Length`], [`SecretError::Store`]: the value before stays.
    pub async fn set(&self, name: &str, value: &[u8]) -> Result<SecretRow, SecretError> {
        if !is_name(name) {
            return Err(SecretError::Name(name.to_owned()));
        }
        if !(SHORTEST..=LONGEST).contains(&value.len()) {
            return Err(SecretError::Length { least: SHORTEST, most: LONGEST });
        }
        let _alone = self.changing.lock().await;
        let row = {
            let State { master, rows } = &*self.state.read();
            let (now, before) = (OffsetDateTime::now_utc(), rows.get(name));
            let version = before.map_or(1, |row| row.version.saturating_add(1));
            let sealed = envelope::seal(master, name, version, value).map_err(|error| SecretError::Random(error.to_string()))?;
            let created_at = before.map_or(now, |row| row.created_at);
            SecretRow { name: name.to_owned(), version, sealed, created_at, updated_at: now }
        };
        self.store.put_secret(row.clone()).await?;
        self.state.write().rows.insert(row.name.clone(), row.clone());
        Ok(row)
    }

    /// Every secret, by name; none of their values.
    pub fn list(&self) -> Vec<SecretRow> {
        self.state.read().rows.values().cloned().collect()
    }

    /// Removes a secret. Calls under way keep what they have.
    ///
    /// # Errors
    /// [`SecretError::Unknown`], [`SecretError::Store`].
    pub async fn remove(&self, name: &str) -> Result<(), SecretError> {
        let _alone = self.changing.lock().await;
        if !self.state.read().rows.contains_key(name) {
            return Err(SecretError::Unknown(name.to_owned()));
        }
        self.store.remove_secret(name).await?;
        self.state.write().rows.remove(name);
        Ok(())
    }

    /// Puts a fresh master key in the place of the one in the file, and seals every secret's own key with it; answers its id. Can
    /// be cut short anywhere: the old key stays beside it until a start has found everything sealed with the new one.
    ///
    /// # Errors
    /// [`SecretError::KeyElsewhere`] where the key is no file, [`SecretError::Rotated`] twice between two starts, [`SecretError`]
    /// otherwise: what is sealed stays readable.
    pub async fn rotate(&self) -> Result<String, SecretError> {
        let path = self.file.as_ref().ok_or(SecretError::KeyElsewhere)?;
        let _alone = self.changing.lock().await;
        let previous = previous_to(path);
        if previous.exists() {
            return Err(SecretError::Rotated(previous));
        }
        let (old, mut rows) = {
            let state = self.state.read();
            (state.master.clone(), state.rows.clone())
        };
        let next = MasterKey::generate().map_err(|error| SecretError::Random(error.to_string()))?;
        let waiting = path.with_added_extension("next");
        let _ = std::fs::remove_file(&waiting);
        next.write(&waiting)?;
        // The old one first has a second name; then the new one has its place, in one step, or nothing has changed: a file that is
        // mounted by itself cannot be replaced, and says so here.
        old.write(&previous)?;
        if let Err(error) = std::fs::rename(&waiting, path) {
            let _ = (std::fs::remove_file(&previous), std::fs::remove_file(&waiting));
            return Err(error.into());
        }
        rewrap(&self.store, &mut rows, &old, &next).await?;
        let id = next.id().to_owned();
        *self.state.write() = State { master: next, rows };
        Ok(id)
    }

    /// The value, for a call.
    ///
    /// # Errors
    /// [`SecretError::Unknown`], [`SecretError::Damaged`].
    pub fn reveal(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let State { master, rows } = &*self.state.read();
        let row = rows.get(name).ok_or_else(|| SecretError::Unknown(name.to_owned()))?;
        envelope::open(master, name, row.version, &row.sealed).map_err(|_| SecretError::Damaged(name.to_owned()))
    }
}

/// Where the key before this one is, as long as something may be sealed with it.
fn previous_to(path: &Path) -> PathBuf {
    path.with_added_extension("previous")
}

/// Seals what a rotation left sealed with the key before; once nothing is, that key goes. What is found sealed anew by a start is on
/// the disk, whatever the store's durability.
async fn finish_rotation(
    store: &Store,
    rows: &mut BTreeMap<String, SecretRow>,
    path: &Path,
    master: &MasterKey,
) -> Result<(), SecretError> {
    let before = match MasterKey::read(&previous_to(path)) {
        Ok(before) => before,
        Err(MasterKeyError::Missing(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if rows.values().any(|row| row.sealed.key_id == before.id()) {
        return rewrap(store, rows, &before, master).await;
    }
    Ok(std::fs::remove_file(previous_to(path))?)
}

fn created(path: &Path) -> Result<MasterKey, SecretError> {
    let key = MasterKey::generate().map_err(|error| SecretError::Random(error.to_string()))?;
    key.write(path)?;
    Ok(key)
}

fn lost(path: PathBuf, rows: &BTreeMap<String, SecretRow>) -> SecretError {
    match rows.values().next() {
        Some(row) => SecretError::Lost { path, secrets: rows.len(), sealed_with: row.sealed.key_id.clone() },
        None => MasterKeyError::Missing(path).into(),
    }
}

/// Seals with `new` what is sealed with `old`. What is sealed with another key stays as it is.
async fn rewrap(
    store: &Store,
    rows: &mut BTreeMap<String, SecretRow>,
    old: &MasterKey,
    new: &MasterKey,
) -> Result<(), SecretError> {
    for row in rows.values_mut().filter(|row| row.sealed.key_id == old.id() && old.id() != new.id()) {
        let moved = envelope::rewrap(old, new, &row.name, row.version, &row.sealed);
        row.sealed = moved.map_err(|_| SecretError::Damaged(row.name.clone()))?;
        store.put_secret(row.clone()).await?;
    }
    Ok(())
}

/// A lower-case letter or digit, then at most 62 of those and `.`, `_`, `-`.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 63 && bytes.first().is_some_and(|b| plain(*b)) && bytes.iter().all(|b| plain(*b) || b"._-".contains(b))
}

#[cfg(test)]
mod tests;
