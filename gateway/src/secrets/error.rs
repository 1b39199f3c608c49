//! Why the vault does not open or take a secret. `Display` is for the operator, and never shows a value.

use std::path::PathBuf;

use thiserror::Error;

use super::master::MasterKeyError;
use crate::store::StoreError;

/// See the module.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The master key cannot be had.
    #[error("the master key cannot be had: {0}")]
    Master(#[from] MasterKeyError),
    /// The master key's file is gone.
    #[error(
        "the master key {} is gone, and {secrets} secrets are sealed with it (key {sealed_with}): restore it from a backup, or say \
         under `secrets.master_key` where it is now; if it is lost, so are they, and `mayfly secret forget --all` removes them",
        .path.display()
    )]
    Lost {
        /// Where it was.
        path: PathBuf,
        /// How many need it.
        secrets: usize,
        /// Its id.
        sealed_with: String,
    },
    /// The master key is another one.
    #[error(
        "the master key is another one (key {given}) than secret `{name}` is sealed with (key {sealed_with}): configure that one, or \
         name it under `secrets.previous_master_key` so that this one takes over; if it is lost, `mayfly secret forget --all` removes \
         all secrets"
    )]
    WrongKey {
        /// A secret that it does not open.
        name: String,
        /// The id of the key that does.
        sealed_with: String,
        /// The id of the key that was given.
        given: String,
    },
    /// The master key is not in a file of ours.
    #[error(
        "the master key is not in a file: put a new one where it comes from and the old one under `secrets.previous_master_key`, and \
         start the gateway again"
    )]
    KeyElsewhere,
    /// The key before this one is still needed.
    #[error("the master key was changed since the gateway started, and {} is kept until it has started again; restart it first", .0.display())]
    Rotated(PathBuf),
    /// No secret of that name.
    #[error("there is no secret `{0}`; `mayfly secret list` shows those there are")]
    Unknown(String),
    /// Not a name.
    #[error(
        "`{0}` is no name for a secret: a lower-case letter or digit, then at most 62 lower-case letters, digits, `.`, `_` and `-`"
    )]
    Name(String),
    /// Too short or too long.
    #[error("a secret has {least} to {most} bytes: a shorter one could not be kept out of a tool's output")]
    Length {
        /// The fewest.
        least: usize,
        /// The most.
        most: usize,
    },
    /// The row does not open.
    #[error("secret `{0}` was changed in the store by somebody else, and does not open; set it again")]
    Damaged(String),
    /// The operating system has no randomness to give.
    #[error("the operating system gave no randomness: {0}")]
    Random(String),
    /// The master key's file cannot be written.
    #[error("the master key's file cannot be written: {0}")]
    File(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
