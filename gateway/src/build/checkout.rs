//! Where the source of Mayfly lies, when the tool or the working folder is inside it.

use std::path::{Path, PathBuf};

use super::BuildOptions;

/// A checkout of Mayfly's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout around `dir`, or around the working folder.
    pub(super) fn around(dir: &Path) -> Option<Self> {
        let here = std::env::current_dir().ok();
        Self::above(dir).or_else(|| Self::above(&here?))
    }

    fn above(dir: &Path) -> Option<Self> {
        let holds = |folder: &&Path| {
            std::fs::read_to_string(folder.join("executor/Cargo.toml"))
                .is_ok_and(|text| text.contains("name = \"mayfly-executor\""))
        };
        dir.ancestors().find(holds).map(|root| Self { root: root.to_owned() })
    }

    /// Its top folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where its own crates are built.
    pub(super) fn target_dir(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }
}

/// Where cargo builds the crate in `dir`. Tools share one folder, so that what they have in common is compiled once.
pub(super) fn tools_target_dir(dir: &Path, options: &BuildOptions) -> PathBuf {
    match (&options.target_dir, Checkout::above(dir)) {
        (Some(chosen), _) => chosen.clone(),
        (None, Some(checkout)) => checkout.target_dir().join("tools"),
        (None, None) => dir.join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_found_from_below_and_only_there() {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("images/some_tool");
        std::fs::create_dir_all(&tool).unwrap();
        assert_eq!(Checkout::above(&tool), None);
        assert_eq!(tools_target_dir(&tool, &BuildOptions::default()), tool.join("target"));

        std::fs::create_dir(folder.path().join("executor")).unwrap();
        std::fs::write(folder.path().join("executor/Cargo.toml"), "[package]\nname = \"mayfly-executor\"\n").unwrap();
        assert_eq!(Checkout::above(&tool).unwrap().root(), folder.path());
        assert!(tools_target_dir(&tool, &BuildOptions::default()).ends_with("tools"));

        let chosen = BuildOptions { target_dir: Some("/chosen".into()), ..BuildOptions::default() };
        assert_eq!(tools_target_dir(&tool, &chosen), Path::new("/chosen"));
    }
}
