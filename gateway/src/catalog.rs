//! The catalog: every tool there is, loaded from folders, checked, and never half loaded.
//!
//! One bad definition refuses the whole load, so that a catalog is always one generation; a tool whose image or module is not
//! there is loaded and says why it cannot run. Nothing here knows a caller: who sees which tool is policy's business.

mod arguments;
mod artefact;
mod check;
mod command;
pub mod definition;
mod schema;
mod tool;
mod violation;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::document::Problem;

pub use arguments::Arguments;
pub use artefact::{LOCK_FILE, Lock};
pub use check::Rules;
pub use schema::REDACTED;
pub use tool::{ARGUMENTS_MOST, DEEPEST, Tool, Unavailable};
pub(crate) use violation::depth;

/// One generation of tools. Immutable; a reload makes another.
#[derive(Debug)]
pub struct Catalog {
    tools: BTreeMap<String, Arc<Tool>>,
    digest: String,
    warnings: Vec<Problem>,
}

/// Why a catalog was not loaded: every mistake in every folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CatalogError {
    /// Errors and warnings, in the order of the folders.
    pub problems: Vec<Problem>,
}

impl Catalog {
    /// Loads every subfolder of `folders` that has a `tool.yaml`. `allowed_mounts` are the host folders that tools may be shown.
    ///
    /// # Errors
    /// Every mistake that was found. Missing images and modules are none: such a tool says so in [`Tool::spec`].
    pub fn load(folders: &[PathBuf], rules: &Rules) -> Result<Self, CatalogError> {
        let mut problems = Vec::new();
        let mut tools: BTreeMap<String, (Arc<Tool>, PathBuf)> = BTreeMap::new();
        for folder in tool_folders(folders, &mut problems) {
            let (tool, found) = Tool::load(&folder, rules);
            problems.extend(found);
            let Some(tool) = tool else { continue };
            let name = tool.definition.name.clone();
            if let Some((_, first)) = tools.get(&name) {
                let what = format!("is `{name}`, the name of the tool in {} too", first.display());
                problems.push(Problem::error(&folder.join("tool.yaml"), 0, "/name", what, "each name once in the catalog"));
            } else {
                tools.insert(name, (Arc::new(tool), folder));
            }
        }
        if problems.iter().any(Problem::is_error) {
            return Err(CatalogError { problems });
        }
        let tools: BTreeMap<String, Arc<Tool>> = tools.into_iter().map(|(name, (tool, _))| (name, tool)).collect();
        let mut hash = Sha256::new();
        tools.values().for_each(|tool| hash.update(&tool.digest));
        Ok(Self { tools, digest: hex::encode(hash.finalize()), warnings: problems })
    }

    /// The tool of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools.get(name)
    }

    /// All tools by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.values()
    }

    /// Lower-case hex SHA-256 over the digests of all tools: two catalogs with the same one are the same.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What somebody should look at, though nothing is wrong yet.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

/// The tools' folders in the given ones, in order. Names that start with a dot are not ours: `.git`, and the `..data` that
/// a mounted ConfigMap swaps.
pub fn tool_folders(folders: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        match std::fs::read_dir(folder) {
            Ok(entries) => {
                let hidden = |path: &Path| path.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
                let paths = entries.filter_map(Result::ok).map(|e| e.path());
                let mut tools: Vec<PathBuf> = paths.filter(|p| !hidden(p) && p.join("tool.yaml").exists()).collect();
                tools.sort();
                found.extend(tools);
            }
            Err(e) => problems.push(Problem::error(
                folder,
                0,
                "",
                format!("cannot be read: {e}"),
                "a folder with one subfolder for each tool",
            )),
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod tests {
    use super::fixture::SCALE;
    use super::*;

    fn put(root: &Path, folder: &str, yaml: &str) {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        std::fs::write(root.join(folder).join("tool.yaml"), yaml).unwrap();
    }

    fn load(root: &Path) -> Result<Catalog, CatalogError> {
        Catalog::load(&[root.to_owned()], &Rules::now(&[]))
    }

    #[test]
    fn every_folder_with_a_definition_is_a_tool_even_one_that_cannot_run_here() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a", SCALE);
        put(root.path(), "b", &SCALE.replace("k8s_scale", "other"));
        put(root.path(), ".hidden", "nonsense");
        std::fs::create_dir(root.path().join("gateway")).unwrap();
        let catalog = load(root.path()).unwrap();
        assert_eq!(catalog.iter().map(|t| t.definition.name.as_str()).collect::<Vec<_>>(), ["k8s_scale", "other"]);
        assert!(catalog.get("other").unwrap().spec.is_err());
        assert!(catalog.get("none").is_none());
    }

    #[test]
    fn one_bad_definition_refuses_all_and_all_mistakes_are_told() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a", SCALE);
        put(root.path(), "b", &SCALE.replace("tier: free", "tier: fre"));
        put(root.path(), "c", "[");
        put(root.path(), "d", SCALE);
        let error = load(root.path()).unwrap_err();
        let told = error.to_string();
        assert_eq!(error.problems.len(), 3, "{told}");
        for part in ["b/tool.yaml:5: tier", "c/tool.yaml", "d/tool.yaml: name is `k8s_scale`, the name of the tool in"] {
            assert!(told.contains(part), "{part} in {told}");
        }
        assert!(load(&root.path().join("missing")).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn the_digest_is_that_of_the_content() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a", SCALE);
        let first = load(root.path()).unwrap();
        assert_eq!(first.digest(), load(root.path()).unwrap().digest());
        put(root.path(), "a", &SCALE.replace("30s", "31s"));
        assert_ne!(first.digest(), load(root.path()).unwrap().digest());
    }

    #[test]
    fn mounts_are_what_the_operator_allows_and_nothing_behind_a_link() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
        std::fs::create_dir_all(inside.join("repo")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let tools = root.path().join("tools");
        let with = |source: &str| {
            let mount = format!("  mounts: [{{source: {source}, target: /repo}}]\n");
            put(&tools, "a", &(SCALE.replace("scale:dev", &format!("s@sha256:{}", "a".repeat(64))) + &mount));
            Catalog::load(std::slice::from_ref(&tools), &Rules::now(std::slice::from_ref(&inside)))
        };
        let at = |path: PathBuf| path.display().to_string();
        assert!(with(&at(inside.join("repo"))).unwrap().get("k8s_scale").unwrap().spec.is_ok());
        assert!(with(&at(inside.join("gone"))).unwrap().get("k8s_scale").unwrap().spec.is_err());
        for refused in [at(outside.clone()), at(inside.join("link")), "/".to_owned(), at(root.path().join("inside2"))] {
            let catalog = with(&refused).unwrap();
            let why = catalog.get("k8s_scale").unwrap().spec.clone().unwrap_err().to_string();
            assert!(why.contains("allowed_mounts"), "{refused}: {why}");
        }
        assert!(with(&at(inside.join("../outside"))).unwrap_err().to_string().contains("without `..`"));
    }

    #[test]
    fn a_core_module_cannot_list_a_network() {
        let root = tempfile::tempdir().unwrap();
        let yaml =
            SCALE.replace("backend: docker\n  image: scale:dev", "backend: wasm\n  module: m.wasm\n  network: [example.com:443]");
        put(root.path(), "a", &yaml);
        assert!(load(root.path()).unwrap().get("k8s_scale").unwrap().spec.is_err(), "not built yet");
        std::fs::write(root.path().join("a/m.wasm"), b"\0asm\x01\0\0\0").unwrap();
        assert!(load(root.path()).unwrap_err().to_string().contains("core module"));
        std::fs::write(root.path().join("a/m.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
        assert!(load(root.path()).unwrap().get("k8s_scale").unwrap().spec.is_ok());
    }
}
