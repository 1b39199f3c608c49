//! The Kubernetes backend against a real cluster: the conformance suite, and what only pods promise.
//!
//! Needs a cluster and a registry (see [`cluster`](crate::cluster::cluster)), and a Docker Engine to build the image with.

use std::io::BufRead;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, LogParams, PostParams};
use mayfly_executor::conformance::{self, Fixture, Fixtures, Scenario};
use mayfly_executor::error::{RunError, StartError};
use mayfly_executor::kubernetes::{job, job_name};
use mayfly_executor::spec::{Destination, Reach, SandboxSpec, Source};
use mayfly_executor::wire::{Exit, SecretFile, SecretText};
use mayfly_executor::{Backend, SandboxId};

use crate::cluster::{Cluster, NAMESPACE, READER, backend, cluster, destroyed, pod_name, pods, spec};
use crate::support::{self, Listener, invocation};
use crate::wall;

struct Containers(String);

impl Fixtures for Containers {
    fn fixture(&self, scenario: Scenario) -> Fixture {
        let program = if scenario == Scenario::Missing { "/nowhere" } else { "/tool" };
        Fixture { spec: spec(&self.0), command: vec![program.to_owned(), scenario.name().to_owned()] }
    }

    fn tells_processes(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_conformance_suite() {
    let Some(Cluster { backend, image, .. }) = cluster().await else { return };
    match conformance::run_all(&backend, &Containers(image)).await {
        Ok(passed) => assert_eq!(passed.len(), 22, "{passed:?}"),
        Err(broken) => panic!("{}", broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_tools_reach_what_is_listed_through_the_wall() {
    let Some(Cluster { backend, image, .. }) = cluster().await else { return };
    wall::check(&backend, &spec(&image)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_with_an_account_reaches_its_api_server_and_nothing_of_its_pods_network() {
    let Some(Cluster { backend, image, .. }) = cluster().await else { return };
    let Source::Pod(pod) = spec(&image).source else { panic!("no pod") };
    let pod = mayfly_executor::spec::Pod { service_account: Some(READER.into()), ..pod };
    let network = [Destination::api_server()].map(Reach::One);
    let spec = SandboxSpec { source: Source::Pod(pod), network: network.clone().into(), ..spec(&image) };
    let run = async |command: &[&str]| {
        let (id, wall) = (SandboxId::generate(), wall::of(network.clone().into()));
        let mut sandbox = backend.start(id, &spec).await.unwrap();
        let invocation = invocation(command);
        sandbox.mint(&invocation).await.unwrap();
        let report = sandbox.invoke(invocation, &Listener::behind(wall.clone())).await.unwrap();
        destroyed(&backend, id).await;
        assert_eq!(report.exit, Exit::Code(0), "{report:?}");
        (String::from_utf8(report.stdout.to_vec()).unwrap(), wall)
    };
    // It answers plain HTTP with a complaint, which is an answer; the greeting of TLS needs a name that is its own.
    let (said, wall) =
        run(&["/tool", "ask", "kubernetes.default.svc:443", "GET / HTTP/1.1\r\nHost: kubernetes.default.svc\r\n\r\n"]).await;
    assert!(said.contains("400 Bad Request") || said.contains("HTTP request"), "{said}");
    assert_eq!(wall.contacts()[0].connections, 1);
    let (look, _) = run(&["/tool", "look"]).await;
    assert!(look.contains("\"KUBERNETES_SERVICE_HOST\": \"kubernetes.default.svc\""), "{look}");
    // What a pod's network has: the API server's own address, the kubelet, the name servers.
    let (reached, _) = run(&[
        "/tool",
        "knock",
        "10.96.0.1:443",
        "10.250.0.1:10250",
        "10.244.0.1:10250",
        "10.96.0.10:53/udp",
        "169.254.169.254:80",
    ])
    .await;
    assert_eq!(reached, "{\"reached\": []}");
}

#[tokio::test]
async fn nothing_of_a_call_is_in_the_cluster() {
    let Some(Cluster { backend, client, image }) = cluster().await else { return };
    let id = SandboxId::generate();
    let sandbox = backend.start(id, &spec(&image)).await.unwrap();
    let mut call = invocation(&["/tool", "echo", "canary-argument"]);
    call.stdin = b"\"canary-input\"".to_vec().into();
    call.environment.insert("SECRET".into(), SecretText::new("canary-secret"));
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    call.files.push(SecretFile::new(format!("{folder}/canary"), b"canary-file".to_vec()));
    let report = sandbox.invoke(call, &Listener::default()).await.unwrap();
    assert_eq!(report.stdout, "{\"echo\": \"canary-input\"}");
    let pod = pods(&client, id).await.remove(0);
    let name = pod.metadata.name.clone().unwrap();
    let job = Api::<k8s_openapi::api::batch::v1::Job>::namespaced(client.clone(), NAMESPACE).get(&job_name(id)).await.unwrap();
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let log = api.logs(&name, &LogParams::default()).await.unwrap_or_default();
    let events = Api::<k8s_openapi::api::core::v1::Event>::namespaced(client.clone(), NAMESPACE);
    let events = events.list(&kube::api::ListParams::default()).await.unwrap().items;
    let told = |event: &k8s_openapi::api::core::v1::Event| event.involved_object.name.as_ref() == Some(&name);
    assert!(events.iter().any(told), "no event tells of the pod");
    // What lies on the node's disk, while the pod is still there: frames, sealed. And what lies in etcd.
    on_disk(&["podlogs"], &name);
    on_disk(&["etcd", "log"], &id.to_string());
    destroyed(&backend, id).await;
    let seen = serde_json::to_string(&(pod, job, events)).unwrap() + &log;
    assert!(seen.contains("mayfly.dev/sandbox") && !seen.contains("canary"), "{seen}");
    on_disk(&["etcd", "log", "podlogs"], &id.to_string());
}

/// Whether `word` is in there. Looked for by its first byte, which the standard library finds fast in a debug build too.
fn has(mut bytes: &[u8], word: &str) -> bool {
    let (first, tail) = word.as_bytes().split_first().unwrap();
    while bytes.skip_until(*first).unwrap() > 0 {
        if bytes.starts_with(tail) {
            return true;
        }
    }
    false
}

/// These folders of the cluster tell of `name`, in a file or by a file's own name, and of nothing that a call brings along.
fn on_disk(folders: &[&str], name: &str) {
    let Some(cluster) = std::env::var_os("MAYFLY_TEST_CLUSTER").map(PathBuf::from) else {
        eprintln!("SKIPPED: KUBECONFIG is somebody's cluster, whose etcd and whose nodes' files are not looked into");
        return;
    };
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| cluster.join(folder)).collect();
    assert!(folders.iter().all(|folder| folder.is_dir()), "not all of {folders:?} are there");
    let mut told = false;
    while let Some(folder) = folders.pop() {
        // Other tests' pods come and go, and their folders and files with them.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            told |= entry.path().to_string_lossy().contains(name);
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
                continue;
            }
            let Ok(bytes) = std::fs::read(entry.path()) else { continue };
            told |= has(&bytes, name);
            assert!(!has(&bytes, "canary-"), "{} holds something of a call", entry.path().display());
        }
    }
    assert!(told, "nothing there tells of {name}: it was not looked where it lies");
}

#[tokio::test]
async fn a_sandbox_whose_gateway_is_gone_ends_by_itself() {
    let Some(Cluster { backend, client, image }) = cluster().await else { return };
    for command in [None, Some("spin")] {
        let id = SandboxId::generate();
        let sandbox = backend.start(id, &spec(&image)).await.unwrap();
        match command {
            None => drop(sandbox),
            Some(command) => {
                let listener = Listener::default();
                tokio::select! {
                    result = sandbox.invoke(invocation(&["/tool", command]), &listener) => panic!("{result:?}"),
                    () = listener.accepted() => {}
                }
            }
        }
        let begun = Instant::now();
        loop {
            let phase = pods(&client, id).await.first().and_then(|pod| pod.status.clone()?.phase);
            if !matches!(phase.as_deref(), Some("Pending" | "Running")) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(15), "{command:?}: it still runs");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        destroyed(&backend, id).await;
    }
}

#[tokio::test]
async fn a_pod_that_dies_is_noticed_before_and_in_a_call() {
    let Some(Cluster { backend, client, image }) = cluster().await else { return };
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let now = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };

    let id = SandboxId::generate();
    let mut waiting = backend.start(id, &spec(&image)).await.unwrap();
    api.delete(&pod_name(&client, id).await, &now).await.unwrap();
    let why = tokio::time::timeout(Duration::from_secs(5), waiting.idle()).await.expect("it is noticed");
    assert!(!why.is_empty());
    destroyed(&backend, id).await;

    let id = SandboxId::generate();
    let sandbox = backend.start(id, &spec(&image)).await.unwrap();
    let listener = Listener::default();
    let killing = async {
        listener.accepted().await;
        api.delete(&pod_name(&client, id).await, &now).await.unwrap();
    };
    let (result, ()) = tokio::join!(sandbox.invoke(invocation(&["/tool", "sleep"]), &listener), killing);
    assert!(matches!(&result, Err(RunError::Lost(_))), "{result:?}");
    destroyed(&backend, id).await;
}

#[tokio::test]
async fn a_tool_acts_as_its_own_account_and_only_while_its_pod_lives() {
    let Some(Cluster { backend, client, image }) = cluster().await else { return };
    let Source::Pod(pod) = spec(&image).source else { panic!("no pod") };
    let pod = mayfly_executor::spec::Pod { service_account: Some(READER.into()), ..pod };
    let spec = SandboxSpec { source: Source::Pod(pod), ..spec(&image) };
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let id = SandboxId::generate();
    let mut sandbox = backend.start(id, &spec).await.unwrap();
    let show = invocation(&["/tool", "show", folder, &format!("{folder}/token"), &format!("{folder}/namespace")]);
    sandbox.mint(&show).await.unwrap();
    let report = sandbox.invoke(show, &Listener::default()).await.unwrap();
    let seen = String::from_utf8(report.stdout.to_vec()).unwrap();
    let listed = |name: &str| seen.lines().any(|line| line == name);
    assert!(["ca.crt", "namespace", "token", NAMESPACE].into_iter().all(listed), "{seen}");
    let token =
        seen.split_whitespace().find(|word| word.split('.').count() == 3 && word.len() > 100).expect("a token").to_owned();
    destroyed(&backend, id).await;

    // The token is bound to the pod, and the pod is gone.
    let review = k8s_openapi::api::authentication::v1::TokenReview {
        spec: k8s_openapi::api::authentication::v1::TokenReviewSpec { token: Some(token), audiences: None },
        ..Default::default()
    };
    let reviews = Api::<k8s_openapi::api::authentication::v1::TokenReview>::all(client);
    let begun = Instant::now();
    loop {
        let status = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
        if status.authenticated != Some(true) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the token outlives its pod");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn what_cannot_start_says_why_and_soon() {
    let Some(Cluster { backend, image, .. }) = cluster().await else { return };
    let refused = async |spec: SandboxSpec| {
        let (id, begun) = (SandboxId::generate(), Instant::now());
        let error = backend.start(id, &spec).await.err().expect("it cannot start");
        destroyed(&backend, id).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "{error} after {:?}", begun.elapsed());
        error
    };
    let of = |image: String| mayfly_executor::spec::Pod { image, ..Default::default() };
    let source = |pod| SandboxSpec { source: Source::Pod(pod), ..spec(&image) };

    let (name, _) = image.split_once('@').unwrap();
    let error = refused(source(of(format!("{name}@sha256:{}", "0".repeat(64))))).await;
    assert!(matches!(error, StartError::SourceMissing { .. }), "{error}");
    let error = refused(source(of(format!("{name}:latest")))).await;
    assert!(matches!(&error, StartError::SourceInvalid { detail, .. } if detail.contains("allow_tags")), "{error}");
    let account = mayfly_executor::spec::Pod { service_account: Some("mayfly-tool-nobody".into()), ..of(image.clone()) };
    let error = refused(source(account)).await;
    assert!(matches!(&error, StartError::Refused { detail, .. } if detail.contains("mayfly-tool-nobody")), "{error}");
    let elsewhere = mayfly_executor::spec::Pod { node_selector: [("pool".into(), "none".into())].into(), ..of(image.clone()) };
    let error = refused(source(elsewhere)).await;
    assert!(matches!(&error, StartError::NoRoom { .. }), "{error}");
}

#[tokio::test]
async fn a_job_that_nobody_attached_to_is_listed_and_destroyed() {
    let Some(Cluster { backend, client, image }) = cluster().await else { return };
    let id = SandboxId::generate();
    let end = std::time::SystemTime::now() + Duration::from_secs(60);
    let body = job(&spec(&image), id, support::instance(), end).unwrap();
    let jobs = Api::<k8s_openapi::api::batch::v1::Job>::namespaced(client.clone(), NAMESPACE);
    jobs.create(&PostParams::default(), &body).await.unwrap();
    let listed = backend.list().await.unwrap();
    let found = listed.iter().find(|found| found.id == id).expect("it is listed");
    assert!(found.instance == support::instance() && found.expires_at >= end);
    tokio::time::sleep(Duration::from_secs(1)).await;
    destroyed(&backend, id).await;
    assert!(pods(&client, id).await.is_empty());
}

#[tokio::test]
async fn a_pod_stands_on_the_isolation_floor() {
    let Some(Cluster { backend, image, .. }) = cluster().await else { return };
    let seen = support::show(&backend, &spec(&image), &["/proc/self/status", "/proc/self/oom_score_adj", "/tmp", "/"]).await;
    let words: Vec<_> = seen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    // A user of its own, in the group that images know.
    let user: u32 = words.iter().find_map(|word| word.strip_prefix("Uid: ")?.split(' ').next()?.parse().ok()).unwrap();
    assert!(user >= 100_000, "{user}");
    for line in ["Gid: 65532 65532 65532 65532", "CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2"] {
        assert!(words.iter().any(|word| word == line), "{line} is missing:\n{seen}");
    }
    assert!(seen.contains("/tmp (wrote: true)") && seen.contains("/ (wrote: false)"), "{seen}");
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_unavailable() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(
        &file,
        "{apiVersion: v1, kind: Config, current-context: x, clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}],\n \
         users: [{name: u, user: {}}], contexts: [{name: x, context: {cluster: c, user: u}}]}",
    )
    .unwrap();
    let config = |kubeconfig| mayfly_executor::kubernetes::KubernetesConfig {
        kubeconfig: Some(kubeconfig),
        context: None,
        namespace: NAMESPACE.into(),
        allow_tags: false,
        instance: support::instance(),
    };
    let image = format!("registry/tool@sha256:{}", "0".repeat(64));
    for (kubeconfig, says) in [(file, "127.0.0.1:1"), (folder.path().join("none"), "none")] {
        let away = mayfly_executor::kubernetes::KubernetesBackend::connect(config(kubeconfig));
        let error = away.start(SandboxId::generate(), &spec(&image)).await.err().unwrap();
        assert!(matches!(&error, StartError::EngineUnavailable { .. }), "{says}: {error}");
        assert!(away.probe().await.is_err() && away.list().await.is_err());
        assert!(away.destroy(SandboxId::generate()).await.is_err());
    }
    drop(backend());
}

#[tokio::test]
async fn a_canceled_call_ends_its_tool() {
    let Some(Cluster { backend, image, .. }) = cluster().await else { return };
    let id = SandboxId::generate();
    let sandbox = backend.start(id, &spec(&image)).await.unwrap();
    let listener = Listener::default();
    let canceling = async {
        listener.accepted().await;
        listener.cancel.cancel();
    };
    let (report, ()) = tokio::join!(sandbox.invoke(invocation(&["/tool", "spin"]), &listener), canceling);
    assert_eq!(report.unwrap().exit, Exit::Canceled);
    destroyed(&backend, id).await;
}
