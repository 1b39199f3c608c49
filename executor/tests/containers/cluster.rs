//! A backend on the cluster of this machine, and ways to look behind it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod as PodObject, ServiceAccount};
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams};
use kube::{Client, ResourceExt};
use mayfly_executor::docker::Engine;
use mayfly_executor::kubernetes::{KubernetesBackend, KubernetesConfig};
use mayfly_executor::spec::{Pod, SandboxSpec, Source};
use mayfly_executor::{Backend, SandboxId};
use tokio::sync::OnceCell;

use crate::{images, support};

/// The namespace of this suite.
pub(crate) const NAMESPACE: &str = "mayfly-executor-tests";
/// An account that may read pods there.
pub(crate) const READER: &str = "mayfly-tool-reader";

/// What a test works with.
pub(crate) struct Cluster {
    pub(crate) backend: KubernetesBackend,
    /// The cluster, past the backend.
    pub(crate) client: Client,
    /// An executor image with the conformance tool as `/tool`, by its digest in a registry that the cluster pulls from.
    pub(crate) image: String,
}

/// The cluster of `KUBECONFIG`. `None` only where its absence is explicitly known.
pub(crate) async fn cluster() -> Option<Cluster> {
    if std::env::var("MAYFLY_TEST_SKIP_KUBERNETES").is_ok_and(|skip| skip == "1") {
        eprintln!("SKIPPED, NOTHING OF KUBERNETES IS TESTED: MAYFLY_TEST_SKIP_KUBERNETES=1");
        return None;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (Ok(_), Ok(registry)) = (std::env::var("KUBECONFIG"), std::env::var("MAYFLY_TEST_REGISTRY")) else {
        panic!(
            "these tests need KUBECONFIG and MAYFLY_TEST_REGISTRY (`tests/setup/cluster up DIR` starts both), \
             or MAYFLY_TEST_SKIP_KUBERNETES=1 to go without, untested"
        );
    };
    let client = Client::try_default().await.unwrap();
    static READY: OnceCell<String> = OnceCell::const_new();
    let image = READY.get_or_init(|| prepared(client.clone(), registry)).await.clone();
    Some(Cluster { backend: backend(), client, image })
}

pub(crate) fn backend() -> KubernetesBackend {
    KubernetesBackend::connect(KubernetesConfig {
        kubeconfig: None,
        context: None,
        namespace: NAMESPACE.into(),
        allow_tags: false,
        instance: support::instance(),
    })
}

/// The namespace with its accounts, and the image in the registry.
async fn prepared(client: Client, registry: String) -> String {
    let apply = PatchParams::apply("mayfly-tests").force();
    let labels = BTreeMap::from([("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned())]);
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NAMESPACE.into()), labels: Some(labels), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone()).patch(NAMESPACE, &apply, &Patch::Apply(&namespace)).await.unwrap();
    for account in ["mayfly-tool-none", READER] {
        let object = ServiceAccount {
            metadata: ObjectMeta { name: Some(account.into()), ..ObjectMeta::default() },
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
        accounts.patch(account, &apply, &Patch::Apply(&object)).await.unwrap();
    }
    images::conformance().await;
    Engine::new(None).push(images::TAG, &registry, &|_| {}).await.unwrap()
}

/// Limits that bite soon enough for a test.
pub(crate) fn spec(image: &str) -> SandboxSpec {
    let pod = Pod { image: image.to_owned(), ..Pod::default() };
    SandboxSpec { source: Source::Pod(pod), cpu_millis: 500, ..support::spec("") }
}

/// The pods of a sandbox, as the API server has them.
pub(crate) async fn pods(client: &Client, id: SandboxId) -> Vec<PodObject> {
    let of_this = ListParams::default().labels(&format!("mayfly.dev/sandbox={id}"));
    Api::<PodObject>::namespaced(client.clone(), NAMESPACE).list(&of_this).await.unwrap().items
}

/// The name of a sandbox's one pod.
pub(crate) async fn pod_name(client: &Client, id: SandboxId) -> String {
    pods(client, id).await.first().expect("a pod").name_any()
}

/// Destroys it and makes sure that nothing of it is listed.
pub(crate) async fn destroyed(backend: &dyn Backend, id: SandboxId) {
    backend.destroy(id).await.unwrap();
    assert!(backend.list().await.unwrap().iter().all(|found| found.id != id));
}
