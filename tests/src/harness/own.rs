//! Engines of a test's own, which it may stop and start: others go on undisturbed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::engines::{Engine, Kind, until};
use super::root;

/// A `dockerd` with all its state in a folder.
pub struct Dockerd {
    dir: tempfile::TempDir,
    child: Option<Child>,
    /// It.
    pub engine: Engine,
}

impl Dockerd {
    /// Starts one and gives it the base image of the tests. `None`, said aloud, where that is left out or cannot be: it takes
    /// Linux, root and a `dockerd`.
    pub fn start_new() -> Option<Self> {
        let shared = Engine::docker()?;
        if !is_root() || Command::new("dockerd").arg("--version").output().is_err() {
            eprintln!("SKIPPED: a Docker Engine that the test may stop takes root and `dockerd`; not tested here");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let host = format!("unix://{}/docker.sock", dir.path().display());
        let engine = Engine { kind: Kind::Docker, env: vec![("DOCKER_HOST".into(), host)] };
        let mut own = Self { dir, child: None, engine };
        own.start();
        let image = own.dir.path().join("base.tar");
        let image = image.to_str().expect("UTF-8");
        shared.run("docker", &["save", "--output", image, "debian:bookworm-slim"], "");
        own.engine.run("docker", &["load", "--input", image], "");
        Some(own)
    }

    /// Starts it (again), and waits until it answers.
    pub fn start(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let log = std::fs::File::options().create(true).append(true).open(path("log")).expect("a log");
        let mut dockerd = Command::new("dockerd");
        dockerd
            .arg("--host")
            .arg(&self.engine.env[0].1)
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"));
        dockerd.arg("--pidfile").arg(path("pid")).args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        dockerd.env_remove("DOCKER_HOST").stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(dockerd.spawn().expect("dockerd"));
        until("dockerd answers", Duration::from_secs(60), || self.engine.attempt("docker", &["info"], "").0);
    }

    /// SIGTERM, and waits for its end. It stops its containers.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM);
        child.wait().expect("it ends");
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A cluster as `tests/setup/cluster` makes them.
pub struct OwnCluster {
    dir: PathBuf,
    _parent: tempfile::TempDir,
    /// It.
    pub engine: Engine,
}

impl OwnCluster {
    /// Starts one. `None`, said aloud, where that is left out, or where the tests use a cluster that was given to them.
    pub fn start_new() -> Option<Self> {
        Engine::kubernetes()?;
        if std::env::var_os("MAYFLY_TEST_CLUSTER").is_none() {
            eprintln!("SKIPPED: KUBECONFIG is somebody's cluster, and this test would stop its API server; not tested here");
            return None;
        }
        let parent = tempfile::tempdir().expect("a folder");
        let dir = parent.path().join("c");
        let kubeconfig = script(&["up", path(&dir)]);
        let registry = std::fs::read_to_string(dir.join("registry-address")).expect("its registry");
        let env = [("KUBECONFIG", kubeconfig.trim()), ("MAYFLY_TEST_REGISTRY", registry.trim())];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Some(Self { dir, _parent: parent, engine: Engine { kind: Kind::Kubernetes, env } })
    }

    /// Ends a part of it, such as `kube-apiserver`.
    pub fn stop(&self, part: &str) {
        script(&["stop", path(&self.dir), part]);
    }

    /// Starts that part again.
    pub fn start(&self, part: &str) {
        script(&["start", path(&self.dir), part]);
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        script(&["down", path(&self.dir)]);
    }
}

fn path(dir: &Path) -> &str {
    dir.to_str().expect("UTF-8")
}

fn script(args: &[&str]) -> String {
    let output = Command::new(root().join("tests/setup/cluster")).args(args).output().expect("tests/setup/cluster");
    assert!(output.status.success(), "cluster {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
