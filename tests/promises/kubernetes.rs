//! The shipped Kubernetes tools, from an agent's request to a Job that is gone, on a real cluster, by a gateway that has the rights
//! of `manifests/` and no others.

use std::time::Duration;

use mayfly_tests::harness::{Engine, until};
use serde_json::json;

use crate::manifests::{NAMESPACES, SANDBOXES, gateway};

const MINUTE: Duration = Duration::from_secs(60);

/// The Jobs and pods of sandboxes.
fn standing(engine: &Engine) -> String {
    engine.run("kubectl", &["-n", SANDBOXES, "get", "jobs,pods", "-o", "name"], "")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reads_and_scales_a_deployment_through_jobs_of_their_own() {
    let Some(engine) = Engine::kubernetes() else { return };
    let _alone = NAMESPACES.lock().await;
    let mayfly = gateway(&engine, &["k8s_get_deployment", "k8s_scale_deployment"], |yaml| yaml);
    let bot = mayfly.agent("runbook-bot");

    // As agents send it: flat.
    let flat = json!({"tool": "k8s_get_deployment", "namespace": "production", "name": "api-server"});
    let answer = bot.send(bot.request("POST", "/v1/calls").json(&flat)).await;
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("succeeded")), "{answer:?} {:#?}", mayfly.log());
    let result = &answer.body["result"];
    assert_eq!((&result["name"], &result["replicas"]["desired"]), (&json!("api-server"), &json!(0)), "{result}");
    assert_eq!(result["images"][0]["image"], "registry.example/api:1.2.3");

    // Its trace has what happened inside.
    let id = answer.body["id"].as_str().unwrap();
    let trace = bot.send(bot.request("GET", &format!("/v1/calls/{id}/trace"))).await.body.to_string();
    assert!(trace.contains("sandbox.start") && trace.contains("process.run"), "{trace}");

    let elsewhere = bot.call("k8s_get_deployment", json!({"namespace": "kube-system", "name": "api-server"})).await;
    assert_eq!(elsewhere.status, 403, "{elsewhere:?}");
    let missing = bot.call("k8s_get_deployment", json!({"namespace": "staging", "name": "none"})).await;
    assert_eq!((missing.status, &missing.body["is_error"]), (200, &json!(true)), "{missing:?}");

    let scale = async |namespace: &str, replicas: u32| {
        let arguments = json!({"namespace": namespace, "name": "api-server", "desired_replicas": replicas});
        bot.call("k8s_scale_deployment", arguments).await
    };
    let scaled = scale("staging", 2).await;
    assert_eq!((scaled.status, &scaled.body["state"]), (200, &json!("succeeded")), "{scaled:?}");
    let replicas =
        engine.run("kubectl", &["-n", "staging", "get", "deployment", "api-server", "-o", "jsonpath={.spec.replicas}"], "");
    assert_eq!(replicas, "2");
    assert_eq!(scale("production", 2).await.status, 403);
    let many = scale("staging", 11).await;
    assert!(many.status == 403 && many.body.to_string().contains("approval"), "{many:?}");
    engine.run("kubectl", &["-n", "staging", "scale", "deployment", "api-server", "--replicas=0"], "");

    until("every Job is gone", Duration::from_secs(30), || standing(&engine).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_leaves_no_pod_and_its_pools_come_back() {
    let Some(engine) = Engine::kubernetes() else { return };
    let _alone = NAMESPACES.lock().await;
    let warm = |yaml: String| yaml.replace("  timeout: 15s", "  timeout: 15s\n  warm: 2").replace("cpu: '0.5'", "cpu: '0.1'");
    let mut mayfly = gateway(&engine, &["k8s_get_deployment"], warm);
    let bot = mayfly.agent("runbook-bot");
    mayfly.until_pools_are_full(MINUTE);
    let arguments = json!({"namespace": "staging", "name": "api-server"});
    let answer = bot.call("k8s_get_deployment", arguments.clone()).await;
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("succeeded")), "{answer:?} {:#?}", mayfly.log());
    let id = answer.body["id"].as_str().unwrap();
    let trace = bot.send(bot.request("GET", &format!("/v1/calls/{id}/trace"))).await.body.to_string();
    assert!(trace.contains("sandbox.claim") && !trace.contains("sandbox.start"), "{trace}");

    mayfly.until_pools_are_full(MINUTE);
    let before = standing(&engine);
    mayfly.kill();
    mayfly.launch();
    mayfly.until_pools_are_full(MINUTE);
    until("what the killed one had is gone", Duration::from_secs(30), || {
        before.lines().all(|name| !standing(&engine).lines().any(|standing| standing == name))
    });
    mayfly.stop();
    until("a gateway that stops leaves nothing", Duration::from_secs(30), || standing(&engine).is_empty());
}
