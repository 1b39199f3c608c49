//! A Unix socket for the operator alone.
//!
//! There is no moment at which anybody else could connect: the socket is made in a folder of mode 0700, gets its mode 0600
//! there, and only then moves to its path. A socket that a dead gateway left is replaced; a living one is not.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

/// Longest path of a Unix socket, in bytes (`sun_path` in unix(7), without its final NUL).
const MAX_PATH: usize = 107;

/// Why there is no socket. Says what to do.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody serves on it.
    #[error("a gateway is already serving on {0}; stop it, or give this one another path")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} exists and is not a socket; move it away, or give the socket another path")]
    NotASocket(PathBuf),
    /// The kernel would not take it.
    #[error("{0} is longer than {MAX_PATH} bytes, which a Unix socket's path cannot be; choose a shorter one")]
    TooLong(PathBuf),
    /// The system said no.
    #[error("no socket could be made at {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A listening socket that removes its file when it goes.
pub struct OperatorSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

/// Listens at `path`, for this user and root only.
///
/// # Errors
/// [`BindError`].
pub fn bind(path: &Path) -> Result<OperatorSocket, BindError> {
    if path.as_os_str().len() > MAX_PATH {
        return Err(BindError::TooLong(path.to_owned()));
    }
    check_vacant(path)?;
    make(path).map_err(|source| BindError::Io { path: path.to_owned(), source })
}

fn check_vacant(path: &Path) -> Result<(), BindError> {
    let io_error = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        // Nobody listens: what is there was left behind, and will be replaced.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(io_error(error)),
    }
}

fn make(path: &Path) -> io::Result<OperatorSocket> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Mode 0700 from its first moment on.
    let private = tempfile::Builder::new().prefix(".").rand_bytes(4).tempdir_in(folder)?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(short(&made)?)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
    let metadata = fs::symlink_metadata(&made)?;
    fs::rename(&made, path)?;
    Ok(OperatorSocket { listener, path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) })
}

/// The kernel's bound holds for the passing path too, which can be longer than the final one.
fn short(path: &Path) -> io::Result<&Path> {
    if path.as_os_str().len() <= MAX_PATH {
        Ok(path)
    } else {
        Err(io::Error::other("its folder's path is too long; choose a shorter one"))
    }
}

impl Listener for OperatorSocket {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Drop for OperatorSocket {
    /// Removes the file if it is still ours: another gateway may have taken the path over.
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_its_owner_may_use_it_and_it_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = bind(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(StdUnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the passing folder was left");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_living_are_left_and_the_dead_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse(_))));
        drop(socket);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists() && StdUnixStream::connect(&path).is_err(), "a stale socket is there");
        let replaced = bind(&path).unwrap();
        assert!(StdUnixStream::connect(&path).is_ok());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
        drop(replaced);
        assert_eq!(fs::read(&path).unwrap(), b"x", "what is not ours was removed");
        assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(bind(&folder.path().join("x".repeat(100))), Err(BindError::TooLong(_))));
        assert!(matches!(bind(&folder.path().join("missing/admin.sock")), Err(BindError::Io { .. })));
    }
}
