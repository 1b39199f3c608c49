//! A real `mayfly serve` in a process of its own, with folders of its own, spoken to through its real doors.
//!
//! Dropping a [`Mayfly`] stops it and fails the test if it left a sandbox behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

mod agent;
pub mod busy;
mod engines;
mod ledger;
pub mod own;
pub mod postgres;
mod running;
pub mod servers;
pub mod tools;

pub use agent::{Agent, Answer, client};
pub use engines::{Engine, Kind, until};
pub use ledger::Ledger;
pub use running::Mayfly;

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

/// The target folder of this build.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    exe.ancestors().find(|dir| dir.ends_with("target")).map_or_else(|| root().join("target"), Path::to_path_buf)
}

/// The `mayfly` binary of the profile that the caller was built with, built if need be.
pub fn mayfly() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let release = !cfg!(debug_assertions);
        // The one that runs this: another one would build everything anew, and again when its turn comes.
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root()).args(["build", "--quiet", "--workspace", "--bins", "--locked"]);
        // What cargo says of this package to its tests is a change to the build scripts that look at it: half of everything again.
        let said = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of_ours| name.starts_with(of_ours));
        for (name, _) in std::env::vars().filter(|(name, _)| said(name)) {
            cargo.env_remove(name);
        }
        if release {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo").success(), "mayfly does not build");
        target().join(if release { "release" } else { "debug" }).join("mayfly")
    })
}

/// Runs `mayfly` with `args` to its end: exit code, standard output, standard error.
pub fn cli(args: &[&str]) -> (i32, String, String) {
    cli_with(&[], args)
}

fn cli_with(env: &[(String, String)], args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(mayfly());
    let output = command.args(args).envs(env.iter().cloned()).current_dir(root()).output().expect("mayfly runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What a gateway is to be started with.
pub struct Setup {
    /// Its folder: tools, policy, data, configuration.
    pub dir: tempfile::TempDir,
    config: Value,
    env: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// An empty folder with a policy that allows everything to everybody.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
        for folder in ["tools", "policy"] {
            std::fs::create_dir(dir.path().join(folder)).expect("a folder");
        }
        let config = json!({
            "listen": "127.0.0.1:0",
            "observability_listen": "127.0.0.1:0",
            "data_dir": path("data"),
            "tools": [path("tools")],
            "policy": { "path": path("policy") },
            "wasm": { "cache_dir": target().join("tests/modules") },
            "docker": { "enabled": "never" },
            "log": { "format": "json" },
        });
        Self { dir, config, env: Vec::new() }.policy("package agent.authz\nallow := true\n")
    }

    /// Replaces the policy.
    #[must_use]
    pub fn policy(self, rego: &str) -> Self {
        std::fs::write(self.dir.path().join("policy/authz.rego"), rego).expect("the policy");
        self
    }

    /// Adds policy data.
    #[must_use]
    pub fn data(self, data: &Value) -> Self {
        std::fs::write(self.dir.path().join("policy/data.json"), data.to_string()).expect("the data");
        self
    }

    /// Adds a tool: `tool.yaml` and, for a wasm tool, its module as `.wat` text.
    #[must_use]
    pub fn tool(self, name: &str, yaml: &str, wat: Option<&str>) -> Self {
        let folder = self.dir.path().join("tools").join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("tool.yaml"), yaml).expect("tool.yaml");
        if let Some(wat) = wat {
            std::fs::write(folder.join("tool.wasm"), wat::parse_str(wat).expect("wat")).expect("the module");
        }
        self
    }

    /// Adds a tool whose image is made of `dockerfile`, builds it, and turns its engine on. `executor` is what its `tool.yaml` says
    /// beyond [`tools::container`]'s defaults, a `timeout` among it.
    #[must_use]
    pub fn container(self, engine: &Engine, name: &str, dockerfile: &str, executor: &str) -> Self {
        let setup = self.tool(name, &tools::container(engine.kind, name, executor), None);
        std::fs::write(setup.dir.path().join("tools").join(name).join("Dockerfile"), dockerfile).expect("the Dockerfile");
        setup.built(engine, name, &[])
    }

    /// Adds `images/NAME`, its `tool.yaml` changed, builds it for this engine, and turns that on.
    #[must_use]
    pub fn shipped(self, engine: &Engine, name: &str, change: impl FnOnce(String) -> String) -> Self {
        let folder = root().join("images").join(name);
        let yaml = std::fs::read_to_string(folder.join("tool.yaml")).expect("tool.yaml");
        let setup = self.tool(name, &change(yaml), None);
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let to = setup.dir.path().join("tools").join(name).join(entry.file_name());
            if entry.path().is_file() && !["tool.yaml", "tool.lock"].iter().any(|made| entry.file_name() == *made) {
                std::fs::copy(entry.path(), to).expect("a file");
            }
        }
        setup.built(engine, name, &["--network", "host"])
    }

    /// Builds a container tool that was added, and turns its engine on.
    fn built(mut self, engine: &Engine, name: &str, options: &[&str]) -> Self {
        let folder = self.dir.path().join("tools").join(name).to_str().expect("UTF-8").to_owned();
        self.env.extend(engine.env.iter().cloned());
        let build = |args: &[&str]| {
            let (code, _, err) = cli_with(&engine.env, &[&["tool", "build"], options, args, &[&folder]].concat());
            assert_eq!(code, 0, "{err}");
        };
        match engine.kind {
            Kind::Docker => {
                build(&[]);
                self.set("/docker/enabled", json!("always"))
            }
            Kind::Kubernetes => {
                build(&["--push", &engine.registry()]);
                engine.namespace(Engine::NAMESPACE);
                self.set("/kubernetes", json!({"enabled": "always", "namespace": Engine::NAMESPACE}))
            }
        }
    }

    /// Uses a folder of tools as it is, such as `images/`.
    #[must_use]
    pub fn tools_from(mut self, folder: &Path) -> Self {
        self.config["tools"] = json!([folder, self.dir.path().join("tools")]);
        self
    }

    /// Changes a key of the configuration, named by JSON Pointer.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = self.config.pointer_mut(parent).expect("a section");
        parent.as_object_mut().expect("a section").insert(key.into(), value);
        self
    }

    /// Sets a variable of the gateway's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Mayfly {
        let file = self.dir.path().join("mayfly.json");
        std::fs::write(&file, self.config.to_string()).expect("the configuration");
        Mayfly::of(self)
    }
}

/// A text with a part of it changed, which has to be there.
///
/// # Panics
/// When it is not.
pub fn edited(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in {text}");
    text.replace(from, to)
}
