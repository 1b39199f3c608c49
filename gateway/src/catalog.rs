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
pub use tool::{ARGUMENTS_MOST, DEEPEST, Tool, Unavailable};

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
    pub fn load(folders: &[PathBuf], allowed_mounts: &[PathBuf]) -> Result<Self, CatalogError> {
        let rules = Rules::now(allowed_mounts);
        let mut problems = Vec::new();
        let mut tools: BTreeMap<String, (Arc<Tool>, PathBuf)> = BTreeMap::new();
        for folder in tool_folders(folders, &mut problems) {
            let (tool, found) = Tool::load(&folder, &rules);
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
