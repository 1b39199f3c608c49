//! Reads a policy from disk, whole or not at all: a folder of `.rego` and `data.json`/`data.yaml`, or an OPA bundle.
//!
//! Data documents lie where OPA puts them: `data.json` in the folder `a/b` is `data.a.b`. Files whose name begins with a dot
//! are left alone (a ConfigMap's machinery among them), and `_test.rego` files belong to `opa test`.

use std::fmt;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Most bytes that one policy may have, unpacked: rules and data together.
const MOST_BYTES: u64 = 256 << 20;
/// Most files in one policy.
const MOST_FILES: usize = 10_000;
/// Most folders below each other: a symlink that points upwards ends here.
const MOST_FOLDERS: usize = 32;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file, relative to the policy's folder or bundle.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u32>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    pub(super) fn general(message: impl Into<String>) -> Self {
        Self { file: None, line: None, message: message.into() }
    }

    pub(super) fn of(file: &str, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), line: None, message: message.into() }
    }

    pub(super) fn at(file: &str, line: u32, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), line: Some(line), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: {}", self.message),
            (Some(file), None) => write!(f, "{file}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

/// A policy that was refused, with every problem found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct PolicyLoadError {
    /// Never empty.
    pub problems: Vec<Problem>,
    /// Whether there is nothing at the path at all.
    pub not_found: bool,
}

impl From<Problem> for PolicyLoadError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], not_found: false }
    }
}

impl From<Vec<Problem>> for PolicyLoadError {
    fn from(problems: Vec<Problem>) -> Self {
        Self { problems, not_found: false }
    }
}

/// One file of Rego.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) text: String,
}

/// Everything a policy is made of.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) sources: Vec<Source>,
    pub(super) data: Map<String, Value>,
    pub(super) wasm: Option<Vec<u8>>,
    digest: Sha256,
}

impl Contents {
    pub(super) fn read(path: &Path, data: Option<&Path>) -> Result<Self, PolicyLoadError> {
        let shown = path.display();
        let metadata = std::fs::metadata(path).map_err(|error| PolicyLoadError {
            problems: vec![Problem::general(format!(
                "{shown}: {error}; name a folder of .rego files or an OPA bundle (.tar.gz)"
            ))],
            not_found: error.kind() == std::io::ErrorKind::NotFound,
        })?;
        let mut files = Files::default();
        if metadata.is_dir() {
            files.folder(path, &mut PathBuf::new())?;
        } else {
            files.bundle(path)?;
        }
        let mut contents = files.sorted()?;
        if let Some(path) = data {
            contents.replace_data(path)?;
        }
        if contents.sources.is_empty() && contents.wasm.is_none() {
            return Err(Problem::general(format!("{shown}: there is neither a .rego file nor a policy.wasm in it")).into());
        }
        Ok(contents)
    }

    pub(super) fn digest(&self) -> String {
        hex::encode(self.digest.clone().finalize())
    }

    fn replace_data(&mut self, path: &Path) -> Result<(), PolicyLoadError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| PolicyLoadError {
            problems: vec![Problem::of(&shown, error.to_string())],
            not_found: error.kind() == std::io::ErrorKind::NotFound,
        })?;
        self.count("--data", &bytes);
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        for (key, value) in document(&shown, &bytes, is_json)? {
            self.data.insert(key, value);
        }
        Ok(())
    }

    fn count(&mut self, name: &str, bytes: &[u8]) {
        for part in [name.as_bytes(), bytes] {
            self.digest.update((part.len() as u64).to_le_bytes());
            self.digest.update(part);
        }
    }
}

/// The files as they are found.
#[derive(Default)]
struct Files {
    found: Vec<(PathBuf, Vec<u8>)>,
    bytes: u64,
}

impl Files {
    fn folder(&mut self, root: &Path, below: &mut PathBuf) -> Result<(), PolicyLoadError> {
        let shown = below.display().to_string();
        let failed = |error: std::io::Error| PolicyLoadError::from(Problem::of(&shown, error.to_string()));
        if below.components().count() > MOST_FOLDERS {
            return Err(Problem::of(&shown, "folders are nested too deeply; does a link point upwards?").into());
        }
        for entry in std::fs::read_dir(root.join(&below)).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name.to_string_lossy().starts_with('.') && name != ".manifest" {
                continue;
            }
            below.push(&name);
            let path = root.join(&below);
            if std::fs::metadata(&path).map_err(failed)?.is_dir() {
                self.folder(root, below)?;
            } else if is_wanted(below) {
                let file = std::fs::File::open(&path).map_err(failed)?;
                self.keep(below.clone(), file)?;
            }
            below.pop();
        }
        Ok(())
    }

    fn bundle(&mut self, path: &Path) -> Result<(), PolicyLoadError> {
        let shown = path.display().to_string();
        let failed = |error: std::io::Error| {
            PolicyLoadError::from(Problem::of(&shown, format!("is not an OPA bundle (a .tar.gz from `opa build`): {error}")))
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        let unpacked = flate2::read::GzDecoder::new(file).take(MOST_BYTES + 1);
        let mut archive = tar::Archive::new(unpacked);
        for entry in archive.entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name: PathBuf =
                entry.path().map_err(failed)?.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            if entry.header().entry_type().is_file() && is_wanted(&name) {
                self.keep(name, entry)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, name: PathBuf, content: impl Read) -> Result<(), PolicyLoadError> {
        let shown = name.display().to_string();
        let mut bytes = Vec::new();
        content
            .take(MOST_BYTES.saturating_sub(self.bytes) + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Problem::of(&shown, error.to_string()))?;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > MOST_BYTES || self.found.len() >= MOST_FILES {
            let message = format!("the policy is too large: at most {MOST_FILES} files and {} MiB", MOST_BYTES >> 20);
            return Err(Problem::of(&shown, message).into());
        }
        self.found.push((name, bytes));
        Ok(())
    }

    fn sorted(mut self) -> Result<Contents, PolicyLoadError> {
        self.found.sort();
        let mut contents = Contents { sources: Vec::new(), data: Map::new(), wasm: None, digest: Sha256::new() };
        let mut problems = Vec::new();
        for (path, bytes) in self.found {
            let file = path.to_string_lossy().into_owned();
            contents.count(&file, &bytes);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("wasm") => contents.wasm = Some(bytes),
                Some("rego") => match String::from_utf8(bytes) {
                    Ok(text) => contents.sources.push(Source { file, text }),
                    Err(_) => problems.push(Problem::of(&file, "is not UTF-8 text")),
                },
                extension => match document(&file, &bytes, extension == Some("json")) {
                    Ok(found) => problems.extend(place(&mut contents.data, &path, &file, found).err()),
                    Err(problem) => problems.push(problem),
                },
            }
        }
        if problems.is_empty() { Ok(contents) } else { Err(problems.into()) }
    }
}

fn is_wanted(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    match name {
        "data.json" | "data.yaml" | "data.yml" => true,
        "policy.wasm" => path.components().count() == 1,
        _ => name.ends_with(".rego") && !name.ends_with("_test.rego"),
    }
}

fn document(file: &str, bytes: &[u8], is_json: bool) -> Result<Map<String, Value>, Problem> {
    let value = if is_json {
        serde_json::from_slice(bytes)
            .map_err(|error| Problem::at(file, u32::try_from(error.line()).unwrap_or(0), error.to_string()))?
    } else {
        serde_saphyr::from_slice(bytes).map_err(|error| Problem::of(file, error.to_string()))?
    };
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Problem::of(file, "is not an object; policy data is an object at the top")),
    }
}

/// Puts a document where its folder says. Two documents may share objects, never a value.
fn place(data: &mut Map<String, Value>, path: &Path, file: &str, found: Map<String, Value>) -> Result<(), Problem> {
    let folders =
        path.parent().into_iter().flat_map(Path::components).map(|part| part.as_os_str().to_string_lossy().into_owned());
    let nested = folders
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .fold(Value::Object(found), |inner, folder| Value::Object(Map::from_iter([(folder, inner)])));
    let Value::Object(nested) = nested else { return Ok(()) };
    merge(data, nested).map_err(|key| Problem::of(file, format!("`{key}` is given by two documents")))
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) -> Result<(), String> {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (None, value) => {
                into.insert(key, value);
            }
            (Some(Value::Object(there)), Value::Object(more)) => merge(there, more)?,
            _ => return Err(key),
        }
    }
    Ok(())
}

/// A package name is dotted words: it becomes part of queries.
pub(super) fn check_package(name: &str) -> Result<(), PolicyLoadError> {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if name.split('.').all(is_word) && name.split('.').next() != Some("data") {
        return Ok(());
    }
    Err(Problem::general(format!("`{name}` is not a package name; write it dotted, without `data`, such as agent.authz")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn data_lies_where_its_folder_says() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.rego", "package a");
        write(folder.path(), "a_test.rego", "not rego at all");
        write(folder.path(), "..data/b.rego", "not rego at all");
        write(folder.path(), "data.json", r#"{"x": 1, "team": {"lead": "ada"}}"#);
        write(folder.path(), "team/data.yaml", "size: 3\n");
        let contents = Contents::read(folder.path(), None).unwrap();
        assert_eq!(contents.sources.len(), 1);
        assert_eq!(Value::Object(contents.data), serde_json::json!({"x": 1, "team": {"lead": "ada", "size": 3}}));
    }

    #[test]
    fn two_documents_do_not_give_one_value() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.rego", "package a");
        write(folder.path(), "data.json", r#"{"team": {"size": 1}}"#);
        write(folder.path(), "team/data.json", r#"{"size": 2}"#);
        let error = Contents::read(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("team/data.json") && error.contains("size"), "{error}");
    }

    #[test]
    fn every_broken_document_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "data.json", "{\n\"x\": }");
        write(folder.path(), "b/data.json", "[1]");
        let problems = Contents::read(folder.path(), None).unwrap_err().problems;
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(problems[1].line, Some(2));
    }

    #[test]
    fn the_digest_follows_every_byte_and_name() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.rego", "package a");
        let first = Contents::read(folder.path(), None).unwrap().digest();
        assert_eq!(first, Contents::read(folder.path(), None).unwrap().digest());
        write(folder.path(), "data.json", "{}");
        let second = Contents::read(folder.path(), None).unwrap().digest();
        write(folder.path(), "data.json", r#"{"a":1}"#);
        let third = Contents::read(folder.path(), None).unwrap().digest();
        assert!(first != second && second != third);
    }

    #[test]
    fn given_data_replaces_whole_documents() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.rego", "package a");
        write(folder.path(), "data.json", r#"{"grants": {"a": 1}, "kept": true}"#);
        write(folder.path(), "other/more.json", r#"{"grants": {"b": 2}}"#);
        let contents = Contents::read(folder.path(), Some(&folder.path().join("other/more.json"))).unwrap();
        assert_eq!(Value::Object(contents.data), serde_json::json!({"grants": {"b": 2}, "kept": true}));
    }

    #[test]
    fn a_link_that_points_upwards_ends() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.rego", "package a");
        std::os::unix::fs::symlink("..", folder.path().join("up")).ok();
        std::os::unix::fs::symlink(".", folder.path().join("self")).unwrap();
        std::fs::remove_file(folder.path().join("up")).unwrap();
        assert!(Contents::read(folder.path(), None).is_err());
    }

    #[test]
    fn a_bundle_that_unpacks_without_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bomb.tar.gz");
        let gz = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gz);
        let mut header = tar::Header::new_gnu();
        header.set_size(MOST_BYTES + 4096);
        header.set_cksum();
        tar.append_data(&mut header, "data.json", std::io::repeat(b' ').take(MOST_BYTES + 4096)).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        assert!(Contents::read(&path, None).is_err());
    }

    #[test]
    fn package_names_are_dotted_words() {
        assert!(check_package("agent.authz").is_ok());
        for wrong in ["", "agent/authz", "data.agent", "a..b", "a b", "a.1", "x\"]"] {
            assert!(check_package(wrong).is_err(), "{wrong}");
        }
    }
}
