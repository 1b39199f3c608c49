//! Writing a file so that it appears whole or not at all.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::BuildError;

/// Puts `bytes` at `path`, unless they lie there already. Returns whether anything changed.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<bool, BuildError> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(false);
    }
    let failed = |source| BuildError::File { path: path.to_owned(), source };
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut file = tempfile::Builder::new()
        .prefix(".building-")
        // A gateway often runs as another user than the one who builds.
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(&folder)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_is_left_alone_and_nothing_else_lies_about() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/x.wasm");
        assert!(put(&path, b"one").unwrap());
        let before = fs::metadata(&path).unwrap();
        assert_eq!(before.permissions().mode() & 0o777 & !0o022, 0o644);
        assert!(!put(&path, b"one").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before.modified().unwrap());
        assert!(put(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = put(&folder.path().join("file/x"), b"").unwrap_err();
        assert!(error.to_string().contains("file/x"), "{error}");
    }
}
