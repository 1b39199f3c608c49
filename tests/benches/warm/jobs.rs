//! The baseline of a cluster: a Job of the bare image, from its creation to its completion.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use mayfly_tests::harness::Engine;
use serde_json::json;

use crate::BASE;

/// What their pods are found by.
const APP: &str = "mayfly-bench";

/// A client of the cluster, and the bare image in its registry.
pub(crate) struct Jobs {
    api: Api<Job>,
    pods: Api<Pod>,
    image: String,
}

impl Jobs {
    pub(crate) async fn new(engine: &Engine, docker: &Engine) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = kube::Client::try_default().await.unwrap();
        let image = format!("{}/bench/base:1", engine.registry());
        docker.run("docker", &["tag", BASE, &image], "");
        docker.run("docker", &["push", "--quiet", &image], "");
        let pods = Api::namespaced(client.clone(), Engine::NAMESPACE);
        Self { api: Api::namespaced(client, Engine::NAMESPACE), pods, image }
    }

    /// Creates one, with such a request and limit, and waits until it is complete. Its removal is not measured.
    pub(crate) async fn one(&self, cpu: [&str; 2]) -> Duration {
        let name = format!("bench-{}", uuid::Uuid::now_v7());
        let begun = Instant::now();
        self.api.create(&PostParams::default(), &self.job(&name, cpu)).await.unwrap();
        await_condition(self.api.clone(), &name, conditions::is_job_completed()).await.unwrap();
        let taken = begun.elapsed();
        self.api.delete(&name, &DeleteParams::background()).await.unwrap();
        taken
    }

    /// That many at once: the slowest of them. Their removal is not measured.
    pub(crate) async fn at_once(&self, count: usize, cpu: [&str; 2]) -> Duration {
        let taken = futures_util::future::join_all((0..count).map(|_| self.one(cpu))).await;
        taken.into_iter().max().unwrap()
    }

    /// Waits until none of their pods is left: one that is being removed takes its share of the node.
    pub(crate) async fn gone(&self) {
        let theirs = ListParams::default().labels(&format!("app={APP}"));
        let begun = Instant::now();
        while !self.pods.list(&theirs).await.unwrap().items.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the pods of the baseline's Jobs stay");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn job(&self, name: &str, cpu: [&str; 2]) -> Job {
        let [requests, limits] = cpu.map(|cpu| json!({"cpu": cpu, "memory": "64Mi"}));
        let restricted = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        });
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": APP}}, "spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
                "containers": [{
                    "name": "tool", "image": self.image, "command": ["cat", "/dev/null"], "securityContext": restricted,
                    "resources": {"limits": limits, "requests": requests},
                }],
            }}},
        });
        serde_json::from_value(job).unwrap()
    }
}
