//! `mayfly tool check`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::catalog::{Rules, Tool, tool_folders};
use crate::cli::Exit;
use crate::document::Problem;

pub(super) fn run(dirs: &[PathBuf], allowed_mounts: &[PathBuf], out: &mut dyn Write) -> std::io::Result<Exit> {
    let rules = Rules::now(allowed_mounts);
    let mut problems = Vec::new();
    let folders = folders(dirs, &mut problems);
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    for folder in &folders {
        let (tool, found) = Tool::load(folder, &rules);
        problems.extend(found);
        let Some(tool) = tool else { continue };
        let name = &tool.definition.name;
        if let Some(first) = names.insert(name.clone(), folder.clone()).filter(|first| first != folder) {
            let what = format!("is `{name}`, the name of the tool in {} too", first.display());
            problems.push(Problem::error(&folder.join("tool.yaml"), 0, "/name", what, "each name once in the catalog"));
        }
        let state = tool.spec.as_ref().map_or_else(|why| format!("cannot run yet: {why}"), |_| "can run".to_owned());
        writeln!(out, "{}: {} {} is well-defined; {state}", folder.display(), name, tool.definition.version)?;
    }
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    match (problems.iter().filter(|p| p.is_error()).count(), folders.len()) {
        (0, _) => Ok(Exit::Ok),
        (errors, tools) => {
            writeln!(out, "{errors} mistake{} in {tools} tool{}", plural(errors), plural(tools))?;
            Ok(Exit::Invalid)
        }
    }
}

const fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// The tools in what was named: each is a tool's folder, or holds such folders.
fn folders(dirs: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in dirs {
        if dir.join("tool.yaml").exists() {
            found.push(dir.clone());
            continue;
        }
        let before = problems.len();
        let inside = tool_folders(std::slice::from_ref(dir), problems);
        if inside.is_empty() && problems.len() == before {
            problems.push(nothing_in(dir));
        }
        found.extend(inside);
    }
    found
}

fn nothing_in(dir: &Path) -> Problem {
    Problem::error(
        dir,
        0,
        "",
        "has no tool.yaml, and no folder in it has one",
        "a tool's folder, such as `mayfly tool new` makes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::fixture::SCALE;

    fn check(dirs: &[PathBuf]) -> (Exit, String) {
        let mut out = Vec::new();
        let code = run(dirs, &[], &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn folders_of_tools_and_folders_of_those_are_checked() {
        let root = tempfile::tempdir().unwrap();
        let put = |folder: &str, yaml: &str| {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
            std::fs::write(root.path().join(folder).join("tool.yaml"), yaml).unwrap();
            root.path().join(folder)
        };
        let good = put("good", SCALE);
        let (code, told) = check(std::slice::from_ref(&good));
        assert!(code == Exit::Ok && told.contains("k8s_scale 1.0.0 is well-defined; cannot run yet: "), "{told}");
        assert_eq!(check(&[good.clone(), good.clone()]).0, Exit::Ok, "the same folder twice is one tool");
        put("same", SCALE);
        put("bad", &SCALE.replace("tier: free", "tier: fre"));
        let (code, told) = check(&[root.path().to_owned()]);
        assert_eq!(code, Exit::Invalid);
        assert!(
            told.contains("bad/tool.yaml:5: tier is `fre`; accepted: ")
                && told.contains("too")
                && told.ends_with("2 mistakes in 3 tools\n"),
            "{told}"
        );
    }

    #[test]
    fn where_there_is_no_tool_it_says_so() {
        let root = tempfile::tempdir().unwrap();
        for dir in [root.path().to_owned(), root.path().join("missing")] {
            let (code, told) = check(std::slice::from_ref(&dir));
            assert!(code == Exit::Invalid && told.contains("accepted: "), "{told}");
        }
    }
}
