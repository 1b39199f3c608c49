//! The files that a call brings along.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, fstatfs, open, openat};

use crate::wire::SecretFile;

/// What a file system in memory calls itself (`statfs(2)`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Writes all of them, for this user alone and read-only.
///
/// # Errors
/// A sentence without contents, when one cannot be written where only memory holds it. The tool must not start then.
pub(super) fn write(files: &[SecretFile]) -> Result<(), String> {
    files
        .iter()
        .try_for_each(|file| one(Path::new(&file.path), &file.contents).map_err(|error| format!("{}: {error}", file.path)))
}

/// Where Kubernetes lets a container leave its last words, for everybody who may read the pod. They are not the tool's to leave.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Empties it, where it is. Called when nothing of the tool runs any more.
pub(super) fn unsay() {
    // Not there (Docker), or not ours to open: then the tool could not either.
    let _ = File::options().write(true).truncate(true).open(TERMINATION_LOG);
}

fn one(path: &Path, contents: &[u8]) -> io::Result<()> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(wrong("not an absolute path"));
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(wrong("no file")) };
    let folder = open(folder, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if u64::try_from(fstatfs(&folder)?.f_type).ok() != Some(TMPFS_MAGIC) {
        return Err(wrong("its folder is not in memory"));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(folder.as_fd(), name, flags, Mode::RUSR)?;
    File::from(file).write_all(contents)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_read_only_and_only_in_memory() {
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = |name: &str| memory.path().join(name).to_str().unwrap().to_owned();
        write(&[SecretFile::new(path("token"), b"secret".to_vec())]).unwrap();
        assert_eq!(std::fs::read(path("token")).unwrap(), b"secret");
        assert_eq!(std::fs::metadata(path("token")).unwrap().permissions().mode() & 0o777, 0o400);

        let refused = |path: String| write(&[SecretFile::new(path, b"secret".to_vec())]).unwrap_err();
        assert!(refused(path("token")).contains("exists"), "what is there is not overwritten");
        assert!(refused(path("../x")).contains("absolute"));
        assert!(refused("token".into()).contains("absolute"));
        assert!(refused(path("none/token")).contains("No such file"));
        assert!(refused("/proc/self/token".into()).contains("memory"));
        std::os::unix::fs::symlink("/proc/self/x", memory.path().join("link")).unwrap();
        assert!(refused(path("link")).contains("exists"));
        assert!(!refused(path("token")).contains("secret"));
    }
}
