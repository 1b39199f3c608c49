//! A token of a service account for each call, on a real cluster.

use std::time::Instant;

use mayfly_tests::harness::until;

use super::*;
use crate::manifests::{NAMESPACES, apply, gateway_s_kubeconfig};

const NAMESPACE: &str = "mayfly-credentials";

/// Whether the API server takes a token, and for whom.
fn is_good(cluster: &Engine, token: &str) -> bool {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = cluster.run("kubectl", &["create", "-f", "-", "-o", "json"], &review.to_string());
    let status = &serde_json::from_str::<Value>(&answer).unwrap()["status"];
    if status["authenticated"] == true {
        assert_eq!(status["user"]["username"], format!("system:serviceaccount:{NAMESPACE}:reader"));
    }
    status["authenticated"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refused_soon_after_its_call() {
    let (Some(engine), Some(cluster)) = (Engine::docker(), Engine::kubernetes()) else { return };
    // With the rights that the manifests give it, and no others.
    let _alone = NAMESPACES.lock().await;
    apply(&cluster);
    cluster.run("kubectl", &["apply", "-k", "manifests/credentials"], "");
    let name = "told_a_token";
    let source = json!({"kind": "kubernetes", "namespace": NAMESPACE, "service_account": "reader"});
    let setup = gateway(&engine, name, source, "  - {source: scoped, deliver: env, variable: TOKEN}\n");
    let kubeconfig = gateway_s_kubeconfig(&cluster, setup.dir.path());
    let mut mayfly = setup.set("/kubernetes", json!({"enabled": "never", "kubeconfig": kubeconfig})).start();
    let ann = mayfly.agent("ann");
    let (id, said) = told(&ann, name, 1).await;
    let bound = || cluster.run("kubectl", &["-n", NAMESPACE, "get", "secrets", "-o", "name"], "");
    assert!(is_good(&cluster, &said[0]));
    let objects = cluster.run("kubectl", &["-n", NAMESPACE, "get", "secrets", "-o", "json"], "");
    assert!(objects.contains("mayfly-call-") && !objects.contains(&said[0]), "{objects}");
    ann.wait(&id).await;
    let ended = Instant::now();
    until("the object is gone", Duration::from_secs(30), || bound().is_empty());
    until("the token is refused", Duration::from_secs(60), || !is_good(&cluster, &said[0]));
    println!("the API server refused the token {:.1} s after its call", ended.elapsed().as_secs_f64());
    assert_eq!(credentials(&mayfly, "list"), json!([]));

    // And a gateway that is killed while a call has one.
    told(&ann, name, 1).await;
    mayfly.kill();
    assert!(!bound().is_empty());
    mayfly.launch();
    until("what the killed one had is gone", Duration::from_secs(30), || bound().is_empty());
}
