//! How a secret lies on the disk: encrypted under a key of its own, which is encrypted under the master key.
//!
//! Both are AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce in front of the ciphertext. The additional data is the
//! secret's name and version, so that a row does not open as another secret, or as another version of the same one. Changing the
//! master key encrypts the small keys again and leaves the values alone.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use thiserror::Error;
use zeroize::Zeroizing;

use super::master::MasterKey;
use crate::store::Envelope;

const NONCE: usize = 12;
/// In front of the additional data: what is a value is no key.
const KEY: &[u8] = b"mayfly key\0";
const VALUE: &[u8] = b"mayfly value\0";

/// It does not open: another master key, another secret's row, or a row that was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it is not what was stored under this name and master key")]
pub struct NotOurs;

/// Seals `value` under a fresh key.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn seal(master: &MasterKey, name: &str, version: u32, value: &[u8]) -> Result<Envelope, getrandom::Error> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key)?;
    let ciphertext = encrypt(&key, &bound(VALUE, name, version), value)?;
    let wrapped_key = encrypt(master.bytes(), &bound(KEY, name, version), &*key)?;
    Ok(Envelope { key_id: master.id().to_owned(), wrapped_key, ciphertext })
}

/// Opens it.
///
/// # Errors
/// [`NotOurs`].
pub fn open(master: &MasterKey, name: &str, version: u32, sealed: &Envelope) -> Result<Zeroizing<Vec<u8>>, NotOurs> {
    let key = unwrap_key(master, name, version, sealed)?;
    decrypt(&key, &bound(VALUE, name, version), &sealed.ciphertext)
}

/// The same secret under another master key.
///
/// # Errors
/// [`NotOurs`], also when there is no randomness for a nonce.
pub fn rewrap(old: &MasterKey, new: &MasterKey, name: &str, version: u32, sealed: &Envelope) -> Result<Envelope, NotOurs> {
    let key = unwrap_key(old, name, version, sealed)?;
    let wrapped_key = encrypt(new.bytes(), &bound(KEY, name, version), &*key).map_err(|_| NotOurs)?;
    Ok(Envelope { key_id: new.id().to_owned(), wrapped_key, ciphertext: sealed.ciphertext.clone() })
}

fn unwrap_key(master: &MasterKey, name: &str, version: u32, sealed: &Envelope) -> Result<Zeroizing<[u8; 32]>, NotOurs> {
    let key = decrypt(master.bytes(), &bound(KEY, name, version), &sealed.wrapped_key)?;
    <[u8; 32]>::try_from(&key[..]).map(Zeroizing::new).map_err(|_| NotOurs)
}

/// The additional data. A name has no NUL, so that it takes apart in one way only.
fn bound(what: &[u8], name: &str, version: u32) -> Vec<u8> {
    [what, name.as_bytes(), &[0], &version.to_be_bytes()].concat()
}

fn encrypt(key: &[u8; 32], aad: &[u8], msg: &[u8]) -> Result<Vec<u8>, getrandom::Error> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce)?;
    // It fails for messages beyond 64 GiB only.
    let body = Aes256Gcm::new(key.into()).encrypt(&Nonce::from(nonce), Payload { msg, aad }).unwrap_or_default();
    Ok([&nonce[..], &body].concat())
}

fn decrypt(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOurs> {
    let (nonce, msg) = sealed.split_first_chunk::<NONCE>().ok_or(NotOurs)?;
    Aes256Gcm::new(key.into()).decrypt(&Nonce::from(*nonce), Payload { msg, aad }).map(Zeroizing::new).map_err(|_| NotOurs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MasterKey {
        MasterKey::generate().unwrap()
    }

    #[test]
    fn a_secret_opens_under_its_own_key_name_and_version_only() {
        let (master, other) = (key(), key());
        let sealed = seal(&master, "github", 3, b"hunter22").unwrap();
        assert_eq!(open(&master, "github", 3, &sealed).unwrap()[..], b"hunter22"[..]);
        for (master, name, version) in [(&other, "github", 3), (&master, "gitlab", 3), (&master, "github", 2)] {
            assert_eq!(open(master, name, version, &sealed), Err(NotOurs));
        }
        let shown = format!("{sealed:?}");
        assert!(!shown.contains("hunter22"));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let master = key();
        let sealed = seal(&master, "a", 1, b"value").unwrap();
        for at in 0..sealed.ciphertext.len() {
            let mut bent = sealed.clone();
            bent.ciphertext[at] ^= 1;
            assert_eq!(open(&master, "a", 1, &bent), Err(NotOurs));
        }
        for at in 0..sealed.wrapped_key.len() {
            let mut bent = sealed.clone();
            bent.wrapped_key[at] ^= 1;
            assert_eq!(open(&master, "a", 1, &bent), Err(NotOurs));
        }
        let short = Envelope { wrapped_key: vec![1; 5], ..sealed };
        assert_eq!(open(&master, "a", 1, &short), Err(NotOurs));
    }

    #[test]
    fn another_master_key_takes_over_without_touching_the_value() {
        let (old, new) = (key(), key());
        let sealed = seal(&old, "a", 1, b"value").unwrap();
        let moved = rewrap(&old, &new, "a", 1, &sealed).unwrap();
        assert_eq!(moved.ciphertext, sealed.ciphertext);
        assert_eq!(open(&new, "a", 1, &moved).unwrap()[..], b"value"[..]);
        assert_eq!(open(&old, "a", 1, &moved), Err(NotOurs));
        assert_eq!(rewrap(&new, &old, "a", 1, &sealed), Err(NotOurs));
    }

    #[test]
    fn the_same_value_never_looks_the_same() {
        let master = key();
        assert_ne!(seal(&master, "a", 1, b"value").unwrap(), seal(&master, "a", 1, b"value").unwrap());
    }
}
