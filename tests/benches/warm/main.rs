//! Calls on Docker and on Kubernetes, warm and cold, beside a fresh container and a fresh Job of the same image, in one run.
//!
//! Needs a Docker Engine, KUBECONFIG and MAYFLY_TEST_REGISTRY (`tests/setup/cluster up DIR` starts such a cluster). With
//! MAYFLY_TEST_SKIP_KUBERNETES=1, what concerns Docker alone.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]

mod docker;
mod jobs;
mod kubernetes;
mod room;
mod steps;

use mayfly_tests::bench::publish;
use mayfly_tests::harness::Engine;

/// The image of every tool here, and of what it is compared with.
const BASE: &str = "debian:bookworm-slim";
/// The tool: what comes in goes out.
const ECHO: &str = "FROM debian:bookworm-slim\nENTRYPOINT [\"cat\"]\n";

fn main() {
    let docker = Engine::docker().expect("a Docker Engine");
    let kubernetes = Engine::kubernetes();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (figures, warm) = docker::compare(&docker).await;
        publish(&figures);
        if let Some(kubernetes) = kubernetes {
            kubernetes::compare(&kubernetes, &docker, warm).await;
        }
    });
}
