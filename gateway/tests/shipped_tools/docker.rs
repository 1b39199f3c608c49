//! The Docker tools, built from their Dockerfiles and run in containers.
//!
//! Need a Docker Engine; `MAYFLY_TEST_SKIP_DOCKER=1` says that there is none, and that nothing here is tested.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_executor::docker::{DockerBackend, DockerConfig};
use mayfly_executor::wire::Exit;
use mayfly_executor::{Backend, InstanceId};
use serde_json::json;
use uuid::Uuid;

use crate::{Bench, built, folder, load};

/// The engine of this machine. `None` only where its absence is explicitly known.
async fn bench() -> Option<Bench> {
    let instance = InstanceId(Uuid::new_v4());
    let backend = DockerBackend::connect(DockerConfig { host: None, instance });
    if let Err(error) = backend.probe().await {
        if std::env::var("MAYFLY_TEST_SKIP_DOCKER").is_ok_and(|skip| skip == "1") {
            eprintln!("SKIPPED, NO DOCKER TOOL IS TESTED: MAYFLY_TEST_SKIP_DOCKER=1 and {error}");
            return None;
        }
        panic!("these tests need a Docker Engine (or MAYFLY_TEST_SKIP_DOCKER=1 to go without, untested): {error}");
    }
    Some(Bench { backend: Arc::new(backend), instance })
}

#[tokio::test]
async fn code_executor_answers_and_is_held_by_its_limits() {
    let Some(bench) = bench().await else { return };
    let mut tool = built("code_executor").await;
    let code = "import os\nprint(os.getuid(), open('in.txt').read())\nopen('out.txt', 'w').write('made')";
    let found = bench.answer(&tool, json!({"code": code, "files": {"in.txt": "given"}, "outputs": ["out.txt"]})).await;
    assert_eq!((&found["stdout"], &found["exit_code"]), (&json!("65532 given\n"), &json!(0)));
    assert_eq!(found["files"], json!({"out.txt": {"encoding": "utf-8", "content": "made"}}));

    let attempts = r#"
import os, socket, time
def attempt(name, deed):
    try:
        deed(); print(name, "went through")
    except OSError as error:
        print(name, error.errno)
def fill():
    with open("/tmp/big", "wb") as file:
        for _ in range(128): file.write(b"x" * 1048576)
def fork():
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(60)
attempt("network", lambda: socket.create_connection(("192.0.2.1", 80), timeout=2))
attempt("root", lambda: open("/etc/x", "w"))
attempt("disk", fill)
os.remove("/tmp/big")
attempt("processes", fork)
"#;
    let found = bench.answer(&tool, json!({"code": attempts})).await;
    assert_eq!(found["stdout"], "network 101\nroot 30\ndisk 28\nprocesses 11\n", "{found}");

    let greedy = bench.answer(&tool, json!({"code": "x = []\nwhile True: x.append(bytearray(1 << 20))"})).await;
    assert!(greedy["exit_code"] == 137 || greedy["stderr"].as_str().unwrap().contains("MemoryError"), "{greedy}");

    tool.definition.executor.timeout = Duration::from_secs(3);
    let begun = Instant::now();
    assert_eq!(bench.run(&tool, json!({"code": "while True: pass"})).await.report.exit, Exit::Deadline);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// A repository with one commit, readable for everyone, whose configuration names a program for all git would run.
fn hostile_repository(at: &Path) {
    let git = |arguments: &[&str]| {
        let run = Command::new("git")
            .args(["-C", &at.display().to_string(), "-c", "user.name=Ada", "-c", "user.email=a@b"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["commit", "-q", "--allow-empty", "-m", "First"]);
    for (key, value) in [
        ("core.fsmonitor", "touch /tmp/ran"),
        ("core.pager", "touch /tmp/ran"),
        ("gpg.program", "/bin/false"),
        ("log.showSignature", "true"),
    ] {
        git(&["config", key, value]);
    }
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn git_log_reads_what_is_mounted_and_takes_no_option() {
    let Some(bench) = bench().await else { return };
    built("git_log").await;
    // The same tool, for a repository of this test.
    let (repository, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    hostile_repository(repository.path());
    let definition = std::fs::read_to_string(folder("git_log").join("tool.yaml")).unwrap();
    let definition = definition.replace("/srv/git/repo", &repository.path().display().to_string());
    std::fs::write(copy.path().join("tool.yaml"), definition).unwrap();
    std::fs::copy(folder("git_log").join("tool.lock"), copy.path().join("tool.lock")).unwrap();
    let tool = load(copy.path());

    let found = bench.answer(&tool, json!({})).await;
    assert_eq!(
        (&found["count"], &found["commits"][0]["subject"], &found["commits"][0]["author"]),
        (&json!(1), &json!("First"), &json!("Ada"))
    );
    assert!(bench.error(&tool, json!({"ref": "nope"})).await.contains("no commit `nope`"));
    let option = tool.validate(json!({"ref": "--output=/tmp/x"}).as_object().unwrap().clone());
    assert_eq!(option.unwrap_err()[0].pointer, "/ref");
}
