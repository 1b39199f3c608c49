//! The engines behind a gateway, seen from outside, as their administrator sees them.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::root;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Docker.
    Docker,
    /// Kubernetes.
    Kubernetes,
}

impl Kind {
    /// As a `tool.yaml` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// Where a tool's containers run.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Which one.
    pub kind: Kind,
    /// What a program's environment needs to find it, beside what it has: nothing for the engine that all tests share.
    pub(super) env: Vec<(String, String)>,
}

impl Engine {
    /// Where the pods of these tests run, unless a test says otherwise.
    pub const NAMESPACE: &str = "mayfly-tests";

    /// The Docker Engine of this run. `None`, said aloud, where the environment leaves it out.
    pub fn docker() -> Option<Self> {
        is_tested("DOCKER").then(|| Self { kind: Kind::Docker, env: Vec::new() })
    }

    /// The cluster of this run. `None`, said aloud, where the environment leaves it out.
    pub fn kubernetes() -> Option<Self> {
        is_tested("KUBERNETES").then(|| Self { kind: Kind::Kubernetes, env: Vec::new() })
    }

    /// What it has of one installation: containers, or Jobs and pods and whatever else carries our label, as `kind/name`.
    pub fn standing(&self, instance: &str) -> BTreeSet<String> {
        let label = format!("mayfly.dev/instance={instance}");
        let listed = match self.kind {
            Kind::Docker => {
                self.run("docker", &["ps", "-a", "--filter", &format!("label={label}"), "--format", "container/{{.Names}}"], "")
            }
            Kind::Kubernetes => {
                let kinds = "jobs,pods,secrets,configmaps,serviceaccounts";
                let names = "-o=jsonpath={range .items[*]}{.kind}/{.metadata.name}{\"\\n\"}{end}";
                self.run("kubectl", &["get", kinds, "--all-namespaces", "-l", &label, names], "")
            }
        };
        listed.lines().filter(|line| !line.is_empty()).map(str::to_lowercase).collect()
    }

    /// The same, by sandbox.
    pub fn sandboxes(&self, instance: &str) -> BTreeSet<String> {
        self.standing(instance).iter().map(|name| sandbox(name)).collect()
    }

    /// Those of them that run.
    pub fn running(&self, instance: &str) -> BTreeSet<String> {
        let label = format!("mayfly.dev/instance={instance}");
        let listed = match self.kind {
            Kind::Docker => {
                self.run("docker", &["ps", "--filter", &format!("label={label}"), "--format", "container/{{.Names}}"], "")
            }
            Kind::Kubernetes => {
                let running = "--field-selector=status.phase=Running";
                let names = "-o=jsonpath={range .items[*]}pod/{.metadata.name}{\"\\n\"}{end}";
                self.run("kubectl", &["get", "pods", "--all-namespaces", "-l", &label, running, names], "")
            }
        };
        listed.lines().filter(|line| !line.is_empty()).map(sandbox).collect()
    }

    /// `docker` or `kubectl`, which has to succeed: what it printed.
    pub fn run(&self, program: &str, args: &[&str], input: &str) -> String {
        let (ok, out, err) = self.attempt(program, args, input);
        assert!(ok, "{program} {args:?}: {out}{err}");
        out
    }

    /// The same, which may fail: whether it succeeded, its output, its errors.
    pub fn attempt(&self, program: &str, args: &[&str], input: &str) -> (bool, String, String) {
        let mut command = Command::new(program);
        command.args(args).current_dir(root()).envs(self.env.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        // It may end without reading.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    /// The registry that the cluster pulls from.
    pub fn registry(&self) -> String {
        let own = self.env.iter().find(|(name, _)| name == REGISTRY).map(|(_, value)| value.clone());
        own.or_else(|| std::env::var(REGISTRY).ok()).unwrap_or_else(|| {
            panic!(
                "these tests need KUBECONFIG and {REGISTRY} (`tests/setup/cluster up DIR` starts both), \
                 or MAYFLY_TEST_SKIP_KUBERNETES=1 to go without, untested"
            )
        })
    }

    /// Makes a namespace that sandboxes without an account can run in.
    pub(super) fn namespace(&self, name: &str) {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let objects: [Value; 2] = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "mayfly-tool-none", "namespace": name}}),
        ];
        for object in objects {
            self.run("kubectl", &["apply", "--server-side", "-f", "-"], &object.to_string());
        }
    }
}

/// The variable that names a registry.
const REGISTRY: &str = "MAYFLY_TEST_REGISTRY";

fn is_tested(engine: &str) -> bool {
    let variable = format!("MAYFLY_TEST_SKIP_{engine}");
    let skipped = std::env::var(&variable).is_ok_and(|value| value == "1");
    if skipped {
        eprintln!("SKIPPED, as {variable}=1 says: nothing of it is tested");
    }
    !skipped
}

/// The id in a name such as `container/mayfly-ID` or `pod/mayfly-ID-x2x7d`.
fn sandbox(name: &str) -> String {
    let id = name.split_once("/mayfly-").map_or(name, |(_, id)| id);
    id.get(..36).unwrap_or(id).to_owned()
}

/// Asks again and again until it holds.
///
/// # Panics
/// When it does not within `patience`.
pub fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
