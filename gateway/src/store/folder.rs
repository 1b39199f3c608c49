//! The data folder: private to its owner, and to one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Name of the file whose lock says that a process has the folder.
const LOCK: &str = "lock";

/// An exclusive hold on a data folder; ends when dropped, or with the process however that ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

/// Creates the folder with mode 0700 if it is not there, and takes it for this process.
///
/// # Errors
/// [`StoreError::InUse`] when another process has it; [`StoreError::Folder`] when it cannot be used, or others could swap its files.
pub(super) fn claim(dir: &Path) -> Result<FolderLock, StoreError> {
    let failed = |problem: String| StoreError::Folder { path: dir.to_owned(), problem };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(format!("cannot be created: {e}")))?;
    let mode = std::fs::metadata(dir).map_err(|e| failed(format!("cannot be read: {e}")))?.permissions().mode();
    // Group access stays allowed: a volume in Kubernetes belongs to a group. The files themselves are 0600.
    if mode & 0o002 != 0 {
        return Err(failed("everybody may write to it; `chmod o-w` it".into()));
    }
    let mut file = open_private(&dir.join(LOCK)).map_err(|e| failed(format!("its lock file cannot be opened: {e}")))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let pid = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(StoreError::InUse { path: dir.to_owned(), pid });
        }
        Err(error) => return Err(failed(format!("cannot be locked: {error}"))),
    }
    // Only for the message above, so that a failure here does not matter.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(FolderLock { _file: file })
}

/// Makes sure that `path` is a file of mode 0600 before SQLite opens it: its journal files inherit the mode.
///
/// # Errors
/// [`StoreError::Folder`] when it cannot be created or its mode cannot be set.
pub(super) fn make_private(path: &Path) -> Result<(), StoreError> {
    open_private(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
        .map_err(|error| StoreError::Folder { path: path.to_owned(), problem: error.to_string() })
}

/// Makes the folder's entries themselves survive a power cut.
///
/// # Errors
/// [`StoreError::Folder`] when the disk refuses.
pub(super) fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| StoreError::Folder { path: dir.to_owned(), problem: error.to_string() })
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_folder_is_refused_to_others_until_it_is_let_go() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let lock = claim(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let error = claim(&dir).unwrap_err();
        assert!(error.to_string().contains("another gateway has the data folder"), "{error}");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        claim(&dir).unwrap();
    }

    #[test]
    fn a_folder_that_everybody_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(claim(dir.path()).unwrap_err().to_string().contains("chmod"));
    }

    #[test]
    fn a_folder_that_is_a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(claim(file.path()), Err(StoreError::Folder { .. })));
    }
}
