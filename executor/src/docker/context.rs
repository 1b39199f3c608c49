//! Build contexts: the tar archives that the engine builds from, made in memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use tar::{Builder, EntryType, Header};

use super::image::ImageError;

/// The largest build context. A tool's folder holds a Dockerfile and a program; what is larger has got in by mistake.
const MAX_CONTEXT: usize = 256 << 20;
const IGNORE_FILE: &str = ".dockerignore";

/// A file that exists only here.
pub(super) struct Generated<'a> {
    pub(super) path: &'a str,
    pub(super) mode: u32,
    pub(super) bytes: &'a [u8],
}

/// An archive of `files`, all root's.
pub(super) fn archive(files: &[Generated<'_>]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for file in files {
        let mut header = header(EntryType::Regular, file.mode);
        header.set_size(file.bytes.len() as u64);
        tar.append_data(&mut header, file.path, file.bytes)?;
    }
    tar.into_inner()
}

/// An archive of the folder `root`, without what its `.dockerignore` names. Symbolic links stay links; owners and times are left
/// out, so that the engine's cache sees the same folder as the same.
pub(super) fn folder(root: &Path) -> Result<Vec<u8>, ImageError> {
    let ignore = Ignore::read(root)?;
    let mut tar = Builder::new(Vec::new());
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let failed = |source| ImageError::File { path: root.join(&folder), source };
        let mut names =
            fs::read_dir(root.join(&folder)).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()).map_err(failed)?;
        names.sort_by_key(fs::DirEntry::file_name);
        for name in names {
            let path = folder.join(name.file_name());
            let failed = |source| ImageError::File { path: root.join(&path), source };
            let kind = name.file_type().map_err(failed)?;
            if kind.is_dir() {
                // A folder that is ignored may hold an exception: what is ignored is decided file by file.
                folders.push(path.clone());
            }
            if !ignore.names(&path) {
                append(&mut tar, root, &path, kind).map_err(failed)?;
            }
            if tar.get_ref().len() > MAX_CONTEXT {
                return Err(ImageError::ContextTooLarge { path: root.to_owned(), limit: MAX_CONTEXT });
            }
        }
    }
    tar.into_inner().map_err(|source| ImageError::File { path: root.to_owned(), source })
}

fn append(tar: &mut Builder<Vec<u8>>, root: &Path, path: &Path, kind: fs::FileType) -> io::Result<()> {
    let full = root.join(path);
    let mode = mode(&fs::symlink_metadata(&full)?);
    if kind.is_dir() {
        tar.append_data(&mut header(EntryType::Directory, mode), path, io::empty())
    } else if kind.is_symlink() {
        tar.append_link(&mut header(EntryType::Symlink, 0o777), path, fs::read_link(full)?)
    } else if kind.is_file() {
        if fs::metadata(&full)?.len() > MAX_CONTEXT as u64 {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let bytes = fs::read(full)?;
        let mut header = header(EntryType::Regular, mode);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, &bytes[..])
    } else {
        Err(io::Error::other("neither file, folder nor symbolic link; name it in .dockerignore"))
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
}

#[cfg(not(unix))]
fn mode(_: &fs::Metadata) -> u32 {
    0o755
}

/// The rules of a `.dockerignore`: the last one that matches a path, or a folder above it, decides.
struct Ignore(Vec<(GlobMatcher, bool)>);

impl Ignore {
    fn read(root: &Path) -> Result<Self, ImageError> {
        let path = root.join(IGNORE_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|why| ImageError::File { path, source: io::Error::other(why) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(vec![])),
            Err(source) => Err(ImageError::File { path, source }),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let rules = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        rules
            .map(|line| {
                let (pattern, ignored) = line.strip_prefix('!').map_or((line, true), |rest| (rest.trim_start(), false));
                let pattern = pattern.trim_matches('/').trim_start_matches("./");
                let glob = GlobBuilder::new(pattern).literal_separator(true).build().map_err(|error| error.to_string())?;
                Ok((glob.compile_matcher(), ignored))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn names(&self, path: &Path) -> bool {
        // The engine needs its Dockerfile, whatever the rules say.
        path != Path::new("Dockerfile")
            && self
                .0
                .iter()
                .rev()
                .find(|(glob, _)| path.ancestors().any(|p| glob.is_match(p)))
                .is_some_and(|(_, ignored)| *ignored)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entries(archive: &[u8]) -> BTreeMap<String, (EntryType, u32)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let path = entry.path().unwrap().display().to_string();
                (path.trim_end_matches('/').to_owned(), (entry.header().entry_type(), entry.header().mode().unwrap()))
            })
            .collect()
    }

    #[test]
    fn a_folder_is_packed_without_what_it_ignores() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("Dockerfile", "FROM scratch");
        write("main.py", "");
        write("secrets/key.pem", "");
        write("secrets/public.pem", "");
        write("a/b/cache.pyc", "");
        write(".dockerignore", "# ours\nsecrets\n!secrets/public.pem\n**/*.pyc\nDockerfile\n");
        std::os::unix::fs::symlink("main.py", root.path().join("link")).unwrap();
        let found = entries(&folder(root.path()).unwrap());
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "a", "a/b", "link", "main.py", "secrets/public.pem"]);
        assert_eq!(found["link"].0, EntryType::Symlink);
    }

    #[test]
    fn a_wrong_ignore_rule_and_a_missing_folder_are_told() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".dockerignore"), "a[").unwrap();
        assert!(matches!(folder(root.path()), Err(ImageError::File { path, .. }) if path.ends_with(".dockerignore")));
        assert!(folder(&root.path().join("nowhere")).is_err());
    }

    #[test]
    fn generated_files_keep_their_mode() {
        let archive = archive(&[Generated { path: "executor", mode: 0o555, bytes: b"elf" }]).unwrap();
        assert_eq!(entries(&archive)["executor"], (EntryType::Regular, 0o555));
    }

    #[test]
    fn a_context_that_is_too_large_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::File::create(root.path().join("sparse")).unwrap().set_len(MAX_CONTEXT as u64 + 1).unwrap();
        assert!(folder(root.path()).is_err());
    }
}
