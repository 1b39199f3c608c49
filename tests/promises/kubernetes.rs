//! The shipped Kubernetes tools, from an agent's request to a Job that is gone, on a real cluster, by a gateway that has the rights
//! of `manifests/` and no others.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mayfly_tests::harness::{Mayfly, Setup, cli, root};
use serde_json::{Value, json};

const SANDBOXES: &str = "mayfly-executions";

fn without_kubernetes() -> bool {
    let skipped = std::env::var("MAYFLY_TEST_SKIP_KUBERNETES").is_ok_and(|v| v == "1");
    if skipped {
        eprintln!("SKIPPED, as MAYFLY_TEST_SKIP_KUBERNETES=1 says: nothing of Kubernetes is tested");
    }
    skipped
}

/// As the administrator of the cluster.
fn kubectl(args: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("kubectl");
    command.args(args).current_dir(root()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn done(args: &[&str], input: &str) -> String {
    let (ok, text) = kubectl(args, input);
    assert!(ok, "kubectl {args:?}: {text}");
    text
}

/// The manifests without the gateway itself, which runs here; and two namespaces with a Deployment each.
fn apply() {
    let rendered = done(&["kustomize", "manifests/base"], "");
    let without_gateway: Vec<_> = rendered
        .split("\n---\n")
        .filter(|object| !object.contains("kind: Deployment") && !object.contains("kind: PersistentVolumeClaim"))
        .collect();
    done(&["apply", "-f", "-"], &without_gateway.join("\n---\n"));
    done(&["apply", "-k", "manifests/tools"], "");
    for namespace in ["staging", "production"] {
        let _ = kubectl(&["create", "namespace", namespace], "");
        done(&["apply", "-k", &format!("manifests/bindings/{namespace}")], "");
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api-server", "namespace": namespace},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "api"}},
                "template": {
                    "metadata": {"labels": {"app": "api"}},
                    "spec": {"containers": [{"name": "api", "image": "registry.example/api:1.2.3"}]},
                },
            },
        });
        done(&["apply", "-f", "-"], &deployment.to_string());
    }
}

/// A kubeconfig of the gateway's own service account.
fn gateway_s_kubeconfig(folder: &Path) -> String {
    let token = done(&["-n", "mayfly", "create", "token", "mayfly-gateway", "--duration", "1h"], "").trim().to_owned();
    let config: Value = serde_json::from_str(&done(&["config", "view", "--raw", "--minify", "-o", "json"], "")).unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "gateway",
        "clusters": [{"name": "test", "cluster": config["clusters"][0]["cluster"]}],
        "users": [{"name": "gateway", "user": {"token": token}}],
        "contexts": [{"name": "gateway", "context": {"cluster": "test", "user": "gateway"}}],
    });
    let file = folder.join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A gateway with these of the shipped tools and the shipped policy.
fn gateway(tools: &[&str], change: impl Fn(String) -> String) -> Mayfly {
    apply();
    let registry = std::env::var("MAYFLY_TEST_REGISTRY")
        .unwrap_or_else(|_| panic!("these tests need KUBECONFIG and MAYFLY_TEST_REGISTRY, or MAYFLY_TEST_SKIP_KUBERNETES=1"));
    let setup = Setup::new();
    for tool in tools {
        let (code, _, err) = cli(&["tool", "build", "--network", "host", "--push", &registry, &format!("images/{tool}")]);
        assert_eq!(code, 0, "{err}");
        let (from, to) = (root().join("images").join(tool), setup.dir.path().join("tools").join(tool));
        std::fs::create_dir(&to).unwrap();
        std::fs::copy(from.join("tool.lock"), to.join("tool.lock")).unwrap();
        let yaml = std::fs::read_to_string(from.join("tool.yaml")).unwrap();
        std::fs::write(to.join("tool.yaml"), change(yaml)).unwrap();
    }
    let kubeconfig = gateway_s_kubeconfig(setup.dir.path());
    setup
        .policy(
            "package agent.authz\nimport rego.v1\n\
             allow if input.namespace in {\"staging\", \"production\"}\n\
             approval if { input.action == \"scale\"; input.desired_replicas > 10 }\n\
             deny contains \"production is read only\" if { input.action == \"scale\"; input.namespace == \"production\" }\n",
        )
        .set("/kubernetes", json!({"enabled": "always", "kubeconfig": kubeconfig, "namespace": SANDBOXES}))
        .start()
}

/// The Jobs and pods of sandboxes.
fn standing() -> String {
    done(&["-n", SANDBOXES, "get", "jobs,pods", "-o", "name"], "")
}

fn until(what: &str, patience: Duration, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "{what}: {}", standing());
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reads_and_scales_a_deployment_through_jobs_of_their_own() {
    if without_kubernetes() {
        return;
    }
    let mayfly = gateway(&["k8s_get_deployment", "k8s_scale_deployment"], |yaml| yaml);
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
    let replicas = done(&["-n", "staging", "get", "deployment", "api-server", "-o", "jsonpath={.spec.replicas}"], "");
    assert_eq!(replicas, "2");
    assert_eq!(scale("production", 2).await.status, 403);
    let many = scale("staging", 11).await;
    assert!(many.status == 403 && many.body.to_string().contains("approval"), "{many:?}");
    done(&["-n", "staging", "scale", "deployment", "api-server", "--replicas=0"], "");

    until("every Job is gone", Duration::from_secs(30), || standing().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_leaves_no_pod_and_its_pools_come_back() {
    if without_kubernetes() {
        return;
    }
    let warm = |yaml: String| yaml.replace("  timeout: 15s", "  timeout: 15s\n  warm: 2").replace("cpu: '0.5'", "cpu: '0.1'");
    let mut mayfly = gateway(&["k8s_get_deployment"], warm);
    let bot = mayfly.agent("runbook-bot");
    let socket = mayfly.admin_socket();
    let socket = socket.to_str().unwrap();
    let ready = || {
        let (_, out, _) = cli(&["pool", "list", "-o", "json", "--socket", socket]);
        let pools: Value = serde_json::from_str(&out).unwrap_or_default();
        pools[0]["idle"] == 2
    };
    until("the pool is full", Duration::from_secs(60), ready);
    let arguments = json!({"namespace": "staging", "name": "api-server"});
    let answer = bot.call("k8s_get_deployment", arguments.clone()).await;
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("succeeded")), "{answer:?} {:#?}", mayfly.log());
    let id = answer.body["id"].as_str().unwrap();
    let trace = bot.send(bot.request("GET", &format!("/v1/calls/{id}/trace"))).await.body.to_string();
    assert!(trace.contains("sandbox.claim") && !trace.contains("sandbox.start"), "{trace}");

    until("the pool is full again", Duration::from_secs(60), ready);
    let before = standing();
    mayfly.kill();
    mayfly.launch();
    until("the pool is full after the restart", Duration::from_secs(60), ready);
    until("what the killed one had is gone", Duration::from_secs(30), || {
        before.lines().all(|name| !standing().lines().any(|standing| standing == name))
    });
    mayfly.stop();
    until("a gateway that stops leaves nothing", Duration::from_secs(30), || standing().is_empty());
}
