//! `mayfly tool new`: a folder that passes the check and builds as it was made.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use time::{Duration, OffsetDateTime};

use super::Kind;
use crate::cli::Exit;

/// How long a new tool may go without another look at its tier.
const REVIEW_AFTER: Duration = Duration::days(180);

/// The files of a new tool: path, text with `NAME` and `REVIEW_BY` in it.
type Template = &'static [(&'static str, &'static str)];

const WASM: Template = &[
    ("tool.yaml", include_str!("new/wasm/tool.yaml")),
    ("Cargo.toml", include_str!("new/wasm/Cargo.toml.txt")),
    ("src/main.rs", include_str!("new/wasm/main.rs.txt")),
    (".gitignore", "/target\n/*.wasm\n"),
];

const DOCKER: Template = &[
    ("tool.yaml", include_str!("new/docker/tool.yaml")),
    ("Dockerfile", include_str!("new/docker/Dockerfile")),
    ("tool.sh", include_str!("new/docker/tool.sh")),
    (".gitignore", "/tool.lock\n"),
];

pub(super) fn run(dir: &Path, kind: Kind, out: &mut dyn Write) -> std::io::Result<Exit> {
    let Some(name) = dir.file_name().and_then(|n| n.to_str()).map(|n| n.replace('-', "_")).filter(|n| is_name(n)) else {
        writeln!(
            out,
            "{} cannot become a tool's name; accepted: a lower-case letter, then at most 62 lower-case letters, digits, - and _",
            dir.display()
        )?;
        return Ok(Exit::Usage);
    };
    // `create_dir` is what refuses to overwrite: it succeeds only for a folder that was not there.
    let made =
        dir.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::create_dir(dir)).and_then(|()| write(dir, &name, kind));
    match made {
        Ok(()) => {
            let dir = dir.display();
            writeln!(out, "{dir} is a tool now. Next:")?;
            writeln!(out, "  mayfly tool check {dir}                      # after every edit of tool.yaml")?;
            writeln!(out, "  mayfly tool build {dir}")?;
            writeln!(out, "  mayfly tool run {dir} --arg name=World      # without a gateway")?;
            Ok(Exit::Ok)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            writeln!(
                out,
                "{} is there already, and nothing in it was touched; accepted: a folder that is not there yet",
                dir.display()
            )?;
            Ok(Exit::Usage)
        }
        Err(e) => {
            writeln!(out, "{} cannot be made: {e}", dir.display())?;
            Ok(Exit::Usage)
        }
    }
}

fn write(dir: &Path, name: &str, kind: Kind) -> std::io::Result<()> {
    let template = match kind {
        Kind::Wasm => WASM,
        Kind::Docker => DOCKER,
    };
    let review_by = (OffsetDateTime::now_utc() + REVIEW_AFTER).date();
    let review_by = format!("{:04}-{:02}-{:02}", review_by.year(), u8::from(review_by.month()), review_by.day());
    for (path, text) in template {
        let path = dir.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let text = text.replace("NAME", name).replace("REVIEW_BY", &review_by);
        // A script keeps its mode in an image, and the tool's user has to be able to run it.
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::write(&path, text)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Rules, Tool};
    use serde_json::json;

    fn new(dir: &Path, kind: Kind) -> (Exit, String) {
        let mut out = Vec::new();
        let code = run(dir, kind, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_it_makes_passes_the_check_without_a_warning() {
        let root = tempfile::tempdir().unwrap();
        for (kind, file) in [(Kind::Wasm, "src/main.rs"), (Kind::Docker, "Dockerfile")] {
            let dir = root.path().join(format!("images/say-{kind:?}").to_lowercase());
            let (code, told) = new(&dir, kind);
            assert_eq!(code, Exit::Ok, "{told}");
            assert!(dir.join(file).exists());
            let (tool, problems) = Tool::load(&dir, &Rules::now(&[]));
            assert_eq!(problems, [], "{kind:?}");
            let tool = tool.unwrap();
            assert!(tool.definition.name.starts_with("say_"));
            assert!(tool.spec.as_ref().unwrap_err().0.contains("mayfly tool build"));
            let given = [("name".to_owned(), json!("World"))].into_iter().collect();
            assert_eq!(tool.validate(given).unwrap().value.as_ref(), &json!({"name": "World", "greeting": "hello"}));
        }
    }

    #[test]
    fn it_overwrites_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("hello");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("tool.yaml"), "mine").unwrap();
        let (code, told) = new(&dir, Kind::Wasm);
        assert!(code == Exit::Usage && told.contains("there already"), "{told}");
        assert_eq!(fs::read_to_string(dir.join("tool.yaml")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_makes_no_name_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for wrong in ["Hello", "1st", "a b", "..", "ümlaut"] {
            assert_eq!(new(&root.path().join(wrong), Kind::Docker).0, Exit::Usage, "{wrong}");
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
