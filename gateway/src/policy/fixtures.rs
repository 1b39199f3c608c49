//! Policies and questions for the tests of this room.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use time::macros::datetime;

use super::{Policy, PolicyLoadError, PolicySettings, Question};
use crate::caller::Caller;
use crate::catalog::definition::Definition;
use crate::catalog::{self, Arguments, Tool};

/// `policies/` of the repository.
pub(super) fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

/// Settings under which a busy machine and an unoptimized engine are no reason to fail.
pub(super) fn patient() -> PolicySettings {
    PolicySettings { time_limit: Duration::from_secs(10), ..PolicySettings::default() }
}

/// A policy in the making: files in a folder of its own.
pub(super) struct Written(TempDir);

impl Written {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with one file of rules in `agent.authz`.
    pub(super) fn rules(rules: &str) -> Self {
        Self::new().file("authz.rego", &format!("package agent.authz\n{rules}"))
    }

    pub(super) fn file(self, name: &str, text: &str) -> Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn load(&self) -> Result<Policy, PolicyLoadError> {
        Policy::load(self.path(), None, &patient())
    }

    pub(super) fn load_within(&self, time_limit: Duration) -> Policy {
        Policy::load(self.path(), None, &PolicySettings { time_limit, ..PolicySettings::default() }).unwrap()
    }

    /// The same, compiled to a bundle.
    pub(super) fn bundle(&self, entrypoint: &str) -> Option<Built> {
        build(self.path(), entrypoint)
    }
}

/// A bundle on disk for as long as this lives.
pub(super) struct Built(TempDir);

impl Built {
    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("bundle.tar.gz")
    }

    pub(super) fn load(&self) -> Result<Policy, PolicyLoadError> {
        Policy::load(&self.path(), None, &patient())
    }
}

/// Compiles a folder with `opa build`. `None` only where the environment says so aloud.
pub(super) fn build(folder: &Path, entrypoint: &str) -> Option<Built> {
    if std::env::var("MAYFLY_TEST_SKIP_OPA").as_deref() == Ok("1") {
        eprintln!("SKIPPED: compiled policies are not tested, because MAYFLY_TEST_SKIP_OPA=1");
        return None;
    }
    let built = Built(tempfile::tempdir().unwrap());
    let output = Command::new("opa")
        .args(["build", "--target", "wasm", "--ignore", "*_test.rego", "--entrypoint", entrypoint, "--output"])
        .arg(built.path())
        // From within: from elsewhere, opa puts data of a path with `..` in it under the names of its folders.
        .args(["--bundle", "."])
        .current_dir(folder)
        .output()
        .expect("`opa` is not on the PATH; install it, or set MAYFLY_TEST_SKIP_OPA=1 to leave compiled policies untested");
    assert!(output.status.success(), "opa build: {}", String::from_utf8_lossy(&output.stderr));
    Some(built)
}

const LOOK: &str = "format: 1
name: look
version: 1.2.3
description: Looks.
tier: free
justification: It only looks.
review_by: 2999-01-01
action: get
resource: thing
input_schema: {type: object}
executor: {backend: wasm, module: look.wasm, timeout: 10s, memory: 64Mi, output_limit: 1Mi}
";

/// A wasm tool `look` of tier free: action `get`, resource `thing`, no network.
pub(super) fn tool(change: impl FnOnce(&mut Definition)) -> Arc<Tool> {
    let mut tool = catalog::fixture::tool(LOOK);
    change(&mut tool.definition);
    Arc::new(tool)
}

/// `ada-bot`, acting for `ada`, calls a tool with these arguments.
pub(super) fn question(tool: Arc<Tool>, arguments: Value) -> Question {
    let value = Arc::new(arguments);
    Question {
        caller: Arc::new(Caller::delegate("ada-bot", "ada", &["desk"])),
        tool,
        arguments: Arguments { bytes: value.to_string().into(), redacted: Arc::clone(&value), value },
        task_id: Some("task-1".to_owned()),
        now: datetime!(2027-03-01 14:05:00 UTC),
    }
}
