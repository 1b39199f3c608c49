//! The Docker backend against a real engine: the conformance suite, and what only containers promise.
//!
//! Needs a Docker Engine, and the static executor (see [`support::executor`]). Without an engine the tests fail, unless
//! `MAYFLY_TEST_SKIP_DOCKER=1` says that this is known; they then say so.

use std::time::Duration;

use mayfly_executor::conformance::{self, Fixture, Fixtures, Scenario};
use mayfly_executor::docker::{DockerBackend, DockerConfig, container_name, container_request};
use mayfly_executor::error::{RunError, StartError};
use mayfly_executor::pid1::{EXIT_NO_REPORT, EXIT_NOT_ACCEPTED};
use mayfly_executor::spec::{SandboxSpec, Source};
use mayfly_executor::wire::{Exit, SecretText};
use mayfly_executor::{Backend, SandboxId};

use crate::support::{Listener, Rig, inspect, invocation, rig, spec, until_dead};
use crate::{images, support, wall};

struct Containers(String);

impl Fixtures for Containers {
    fn fixture(&self, scenario: Scenario) -> Fixture {
        let program = if scenario == Scenario::Missing { "/nowhere" } else { "/tool" };
        Fixture { spec: spec(&self.0), command: vec![program.to_owned(), scenario.name().to_owned()] }
    }
}

#[tokio::test]
async fn it_passes_the_conformance_suite() {
    let Some(Rig { backend, image, .. }) = rig().await else { return };
    match conformance::run_all(&backend, &Containers(image)).await {
        Ok(passed) => assert_eq!(passed.len(), 22, "{passed:?}"),
        Err(broken) => panic!("{}", broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

#[tokio::test]
async fn its_tools_reach_what_is_listed_through_the_wall() {
    let Some(Rig { backend, image, .. }) = rig().await else { return };
    wall::check(&backend, &spec(&image)).await;
}

#[tokio::test]
async fn nothing_of_a_call_is_in_the_engine() {
    let Some(Rig { backend, docker, image }) = rig().await else { return };
    let id = SandboxId::generate();
    let sandbox = backend.start(id, &spec(&image)).await.unwrap();
    let mut call = invocation(&["/tool", "sleep", "canary-argument"]);
    call.stdin = b"\"canary-input\"".to_vec().into();
    call.environment.insert("SECRET".into(), SecretText::new("canary-secret"));
    let listener = Listener::default();
    let looking = async {
        listener.accepted().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let name = container_name(id);
        let seen = serde_json::to_string(&docker.inspect_container(&name, None).await.unwrap()).unwrap();
        let log = support::logs(&docker, &name).await;
        listener.cancel.cancel();
        (seen, log)
    };
    let (report, (seen, log)) = tokio::join!(sandbox.invoke(call, &listener), looking);
    backend.destroy(id).await.unwrap();
    assert_eq!(report.unwrap().exit, Exit::Canceled);
    assert!(seen.contains("mayfly.dev/sandbox") && !seen.contains("canary"), "{seen}");
    assert!(log.is_err(), "the engine keeps a log: {log:?}");
}

#[tokio::test]
async fn a_sandbox_whose_gateway_is_gone_ends_by_itself() {
    let Some(Rig { backend, docker, image }) = rig().await else { return };
    // Before a call: its stream is dropped.
    let id = SandboxId::generate();
    drop(backend.start(id, &spec(&image)).await.unwrap());
    let ended = until_dead(&docker, id, Duration::from_secs(3)).await;
    backend.destroy(id).await.unwrap();
    assert_eq!(ended, Some(i64::from(EXIT_NOT_ACCEPTED)));

    // In the middle of one, with a tool that would go on for ever.
    let id = SandboxId::generate();
    let sandbox = backend.start(id, &spec(&image)).await.unwrap();
    let listener = Listener::default();
    tokio::select! {
        result = sandbox.invoke(invocation(&["/tool", "spin"]), &listener) => panic!("{result:?}"),
        () = listener.accepted() => {}
    }
    let ended = until_dead(&docker, id, Duration::from_secs(3)).await;
    backend.destroy(id).await.unwrap();
    assert_eq!(ended, Some(i64::from(EXIT_NO_REPORT)));
}

#[tokio::test]
async fn a_sandbox_that_nobody_wants_ends_at_the_end_of_its_life() {
    let Some(Rig { backend, docker, image }) = rig().await else { return };
    let id = SandboxId::generate();
    let short = SandboxSpec { life: Duration::from_secs(1), ..spec(&image) };
    let sandbox = backend.start(id, &short).await.unwrap();
    let ended = until_dead(&docker, id, Duration::from_secs(4)).await;
    // And it says that it ran nothing, so the call may go elsewhere.
    let late = sandbox.invoke(invocation(&["/tool", "echo"]), &Listener::default()).await;
    backend.destroy(id).await.unwrap();
    assert_eq!(ended, Some(i64::from(EXIT_NOT_ACCEPTED)));
    assert!(matches!(late, Err(RunError::NotDelivered(_))), "{late:?}");
}

#[tokio::test]
async fn a_container_that_dies_in_a_call_is_lost() {
    let Some(Rig { backend, docker, image }) = rig().await else { return };
    let id = SandboxId::generate();
    let sandbox = backend.start(id, &spec(&image)).await.unwrap();
    let listener = Listener::default();
    let killing = async {
        listener.accepted().await;
        docker.kill_container(&container_name(id), None).await.unwrap();
    };
    let (result, ()) = tokio::join!(sandbox.invoke(invocation(&["/tool", "sleep"]), &listener), killing);
    backend.destroy(id).await.unwrap();
    assert!(matches!(&result, Err(RunError::Lost(why)) if why.contains("exited with 137")), "{result:?}");
}

/// What the kernel says of the tool's own process: the isolation floor as it is, not as it was asked for.
#[tokio::test]
async fn the_tool_stands_on_the_isolation_floor() {
    let Some(Rig { backend, image, .. }) = rig().await else { return };
    let seen =
        support::show(&backend, &spec(&image), &["/proc/self/status", "/proc/self/limits", "/proc/self/oom_score_adj"]).await;
    let words: Vec<_> = seen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "Uid: 65532 65532 65532 65532",
        "Gid: 65532 65532 65532 65532",
        "CapEff: 0000000000000000",
        "CapBnd: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        // Nothing that PID 1 holds off is held off for the tool.
        "SigBlk: 0000000000000000",
        // None, not even where the kernel would pipe them to a program.
        "Max core file size 1 1 bytes",
        "Max open files 4096 4096 files",
        "Max file size 9437184 9437184 bytes",
        "1000",
    ] {
        assert!(words.iter().any(|word| word == line), "{line} is missing:\n{seen}");
    }
    // Its three pipes, and the one descriptor that reads this folder.
    let fds = support::show(&backend, &spec(&image), &["/proc/self/fd"]).await;
    assert_eq!(fds, "/proc/self/fd (wrote: false)\n0\n1\n2\n3\n\n");
}

#[tokio::test]
async fn a_mount_is_shown_read_only() {
    let Some(Rig { backend, image, .. }) = rig().await else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("here"), "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let mount = mayfly_executor::spec::Mount { source: folder.path().to_owned(), target: "/data".into() };
    let seen = support::show(&backend, &SandboxSpec { mounts: vec![mount], ..spec(&image) }, &["/data", "/tmp"]).await;
    assert_eq!(seen, "/data (wrote: false)\nhere\n\n/tmp (wrote: true)\n\n");
}

#[tokio::test]
async fn what_was_created_and_never_started_is_listed_and_destroyed() {
    let Some(Rig { backend, docker, image }) = rig().await else { return };
    let id = SandboxId::generate();
    let executor = mayfly_executor::docker::ExecutorImage {
        reference: image.clone(),
        entrypoint: mayfly_executor::pid1::entrypoint([]),
        command: vec![],
    };
    let end = std::time::SystemTime::now() + Duration::from_secs(60);
    let body = container_request(&spec(&image), &executor, id, support::instance(), end).unwrap();
    let options = bollard::query_parameters::CreateContainerOptionsBuilder::default().name(&container_name(id)).build();
    docker.create_container(Some(options), body).await.unwrap();
    let listed = backend.list().await.unwrap();
    backend.destroy(id).await.unwrap();
    let found = listed.iter().find(|found| found.id == id).expect("it is listed");
    assert_eq!(found.instance, support::instance());
    assert!(found.expires_at >= end && found.expires_at < end + Duration::from_secs(2));
    assert_eq!(inspect(&docker, id).await, None);
}

#[tokio::test]
async fn an_image_that_cannot_be_a_sandbox_is_refused_for_its_own_reason() {
    let Some(Rig { backend, docker, image }) = rig().await else { return };
    let bare = images::bare(&docker).await;
    let refused = async |reference: &str| backend.prepare(&spec(reference)).await.unwrap_err();
    let error = refused(&bare).await;
    assert!(matches!(&error, StartError::SourceInvalid { detail, .. } if detail.contains("mayfly tool build")), "{error}");
    let error = refused(images::TAG).await;
    assert!(matches!(&error, StartError::SourceInvalid { detail, .. } if detail.contains("tag")), "{error}");
    let error = refused(&format!("sha256:{}", "0".repeat(64))).await;
    assert!(matches!(&error, StartError::SourceMissing { detail, .. } if detail.contains("mayfly tool build")), "{error}");
    let module = Source::Module { path: "x.wasm".into(), sha256: String::new() };
    assert!(backend.prepare(&SandboxSpec { source: module, ..spec(&image) }).await.is_err());
    backend.prepare(&spec(&image)).await.unwrap();
}

#[tokio::test]
async fn a_spec_that_the_engine_refuses_leaves_nothing() {
    let Some(Rig { backend, docker, image }) = rig().await else { return };
    let mounts = vec![mayfly_executor::spec::Mount { source: "/nowhere/at/all".into(), target: "/data".into() }];
    let id = SandboxId::generate();
    let error = backend.start(id, &SandboxSpec { mounts, ..spec(&image) }).await.err().unwrap();
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
    assert_eq!(inspect(&docker, id).await, None);
}

#[tokio::test]
async fn a_dead_engine_is_unavailable() {
    let host = Some("unix:///nowhere/docker.sock".to_owned());
    let backend = DockerBackend::connect(DockerConfig { host, instance: support::instance() });
    let image = format!("sha256:{}", "0".repeat(64));
    let error = backend.start(SandboxId::generate(), &spec(&image)).await.err().unwrap();
    assert!(matches!(error, StartError::EngineUnavailable { .. }), "{error}");
    assert!(backend.probe().await.is_err() && backend.list().await.is_err());
    assert!(backend.destroy(SandboxId::generate()).await.is_err());
}
