//! What `manifests/` promises: the gateway's rights and nothing beside them, the isolation floor, the quota, and the gateway
//! itself in a cluster.

mod floor;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use mayfly_tests::harness::{Agent, Engine, Mayfly, Setup, cli, client, mayfly, root, until};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// Where sandboxes run.
pub(crate) const SANDBOXES: &str = "mayfly-executions";
/// The manifests name their namespaces, so one test has them at a time.
pub(crate) static NAMESPACES: Mutex<()> = Mutex::const_new(());

/// The manifests without the gateway itself, which runs here; and two namespaces with a Deployment each.
pub(crate) fn apply(engine: &Engine) {
    let rendered = engine.run("kubectl", &["kustomize", "manifests/base"], "");
    let without_gateway: Vec<_> = rendered
        .split("\n---\n")
        .filter(|object| !object.contains("kind: Deployment") && !object.contains("kind: PersistentVolumeClaim"))
        .collect();
    engine.run("kubectl", &["apply", "-f", "-"], &without_gateway.join("\n---\n"));
    engine.run("kubectl", &["apply", "-k", "manifests/tools"], "");
    for namespace in ["staging", "production"] {
        let _ = engine.attempt("kubectl", &["create", "namespace", namespace], "");
        engine.run("kubectl", &["apply", "-k", &format!("manifests/bindings/{namespace}")], "");
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
        engine.run("kubectl", &["apply", "-f", "-"], &deployment.to_string());
    }
}

/// A kubeconfig of the gateway's own service account.
pub(crate) fn gateway_s_kubeconfig(engine: &Engine, folder: &Path) -> String {
    let token =
        engine.run("kubectl", &["-n", "mayfly", "create", "token", "mayfly-gateway", "--duration", "1h"], "").trim().to_owned();
    let config: Value =
        serde_json::from_str(&engine.run("kubectl", &["config", "view", "--raw", "--minify", "-o", "json"], "")).unwrap();
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
pub(crate) fn gateway(engine: &Engine, tools: &[&str], change: impl Fn(String) -> String) -> Mayfly {
    apply(engine);
    let setup = Setup::new();
    for tool in tools {
        let (code, _, err) =
            cli(&["tool", "build", "--network", "host", "--push", &engine.registry(), &format!("images/{tool}")]);
        assert_eq!(code, 0, "{err}");
        let (from, to) = (root().join("images").join(tool), setup.dir.path().join("tools").join(tool));
        std::fs::create_dir(&to).unwrap();
        std::fs::copy(from.join("tool.lock"), to.join("tool.lock")).unwrap();
        let yaml = std::fs::read_to_string(from.join("tool.yaml")).unwrap();
        std::fs::write(to.join("tool.yaml"), change(yaml)).unwrap();
    }
    let kubeconfig = gateway_s_kubeconfig(engine, setup.dir.path());
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

/// What an account may do in a namespace, as the API server tells it: `verb group/resource [names]`.
fn rights(engine: &Engine, kubeconfig: &str, namespace: &str) -> BTreeSet<String> {
    let review =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}});
    let answer = engine.run(
        "kubectl",
        &["--kubeconfig", kubeconfig, "create", "--validate=false", "-o", "json", "-f", "-"],
        &review.to_string(),
    );
    let status: Value = serde_json::from_str::<Value>(&answer).unwrap()["status"].take();
    assert_eq!(status["incomplete"], false, "{status}");
    let words = |rule: &Value, key: &str| -> Vec<String> {
        let words = rule[key].as_array().into_iter().flatten();
        words.map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in status["resourceRules"].as_array().unwrap() {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                for verb in words(rule, "verbs") {
                    all.insert(
                        format!("{verb} {group}/{resource} {}", words(rule, "resourceNames").join(",")).trim_end().to_owned(),
                    );
                }
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_s_account_may_do_this_and_nothing_else() {
    let Some(engine) = Engine::kubernetes() else { return };
    let _alone = NAMESPACES.lock().await;
    apply(&engine);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = gateway_s_kubeconfig(&engine, folder.path());
    // What every account may: ask about itself.
    let everybody = rights(&engine, &kubeconfig, "default");
    assert!(
        everybody.iter().all(|right| right.starts_with("create authentication") || right.starts_with("create authorization"))
    );
    for namespace in ["mayfly", "kube-system", "staging", "production"] {
        assert_eq!(rights(&engine, &kubeconfig, namespace), everybody, "in {namespace}");
    }
    let here = rights(&engine, &kubeconfig, SANDBOXES);
    let here: Vec<_> = here.difference(&everybody).map(String::as_str).collect();
    let expected = [
        "create /pods/attach",
        "create /pods/portforward",
        "create /serviceaccounts/token mayfly-tool-k8s-get-deployment",
        "create /serviceaccounts/token mayfly-tool-k8s-pod-logs",
        "create /serviceaccounts/token mayfly-tool-k8s-scale-deployment",
        "create batch/jobs",
        "delete /pods",
        "delete batch/jobs",
        "get /configmaps kube-root-ca.crt",
        "get /pods/attach",
        "get /pods/portforward",
        "list /events",
        "list /pods",
        "list batch/jobs",
        "watch /pods",
    ];
    assert_eq!(here, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_bites_and_the_call_says_so_soon() {
    let Some(engine) = Engine::kubernetes() else { return };
    let _alone = NAMESPACES.lock().await;
    let mayfly = gateway(&engine, &["k8s_get_deployment"], |yaml| yaml);
    let bot = mayfly.agent("runbook-bot");
    let arguments = json!({"namespace": "staging", "name": "api-server"});
    let quota = |key: &str, value: &str| {
        let patch = json!({"spec": {"hard": {key: value}}}).to_string();
        engine.run("kubectl", &["-n", SANDBOXES, "patch", "resourcequota", "mayfly-sandboxes", "-p", &patch], "");
        until("the quota holds", Duration::from_secs(30), || {
            let all = engine.run("kubectl", &["-n", SANDBOXES, "get", "resourcequota", "mayfly-sandboxes", "-o", "json"], "");
            serde_json::from_str::<Value>(&all).unwrap()["status"]["hard"][key] == *value
        });
    };
    for (key, before) in [("pods", "64"), ("count/jobs.batch", "128")] {
        quota(key, "0");
        let begun = Instant::now();
        let answer = bot.call("k8s_get_deployment", arguments.clone()).await;
        let took = begun.elapsed();
        quota(key, before);
        assert_eq!(answer.status, 503, "{key}: {answer:?}");
        assert!(answer.body["type"].as_str().unwrap().ends_with("/saturated"), "{answer:?}");
        assert!(took < Duration::from_secs(10), "{key}: {took:?}");
        mayfly.wait_log(|line| line["error"].as_str().is_some_and(|why| why.contains("exceeded quota") && why.contains(key)));
    }
    let answer = bot.call("k8s_get_deployment", arguments).await;
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("succeeded")), "{answer:?}");
}

/// The gateway as `manifests/README.md` puts it into a cluster, step by step.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_runs_in_a_cluster() {
    let Some(engine) = Engine::kubernetes() else { return };
    let Some(state) = std::env::var_os("MAYFLY_TEST_CLUSTER") else {
        eprintln!("SKIPPED: it takes a volume on the node, and KUBECONFIG is somebody's cluster; not tested here");
        return;
    };
    let _alone = NAMESPACES.lock().await;
    let volume = Path::new(&state).join(format!("gateway-data-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&volume).unwrap();
    // The tools' images, pinned; their pods are the shipped ones.
    drop(gateway(&engine, &["k8s_get_deployment"], |yaml| yaml));
    let image = gateway_s_image(&engine);
    let base = engine.run("kubectl", &["kustomize", "manifests/base"], "");
    let base = base.replace("image: mayfly/gateway:0.1.0", &format!("image: {image}"));
    assert!(base.contains(&image), "the image stands somewhere else now");
    let node = engine.run("kubectl", &["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"], "");
    let on_node = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
    let disk = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "mayfly-test-data"},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": volume}, "nodeAffinity": {"required": {"nodeSelectorTerms": [on_node]}},
        },
    });
    engine.run("kubectl", &["apply", "-f", "-"], &disk.to_string());
    engine.run("kubectl", &["apply", "-f", "-"], &base);
    let folder = |name: &str, files: &[&str]| {
        let made = [&["-n", "mayfly", "create", "configmap", name, "--dry-run=client", "-o", "yaml"], files].concat();
        let made = engine.run("kubectl", &made, "");
        engine.run("kubectl", &["apply", "-f", "-"], &made);
    };
    folder("mayfly-policy", &["--from-file=policies/default"]);
    let tool = "images/k8s_get_deployment/tool";
    folder("tool-k8s-get-deployment", &[&format!("--from-file={tool}.yaml"), &format!("--from-file={tool}.lock")]);
    let (rolled, said, why) =
        engine.attempt("kubectl", &["-n", "mayfly", "rollout", "status", "deploy/mayfly-gateway", "--timeout=120s"], "");
    let log = || engine.attempt("kubectl", &["-n", "mayfly", "logs", "deploy/mayfly-gateway"], "");
    assert!(rolled, "{said}{why} {:?} {}", log(), engine.run("kubectl", &["-n", "mayfly", "get", "pods,events"], ""));

    let add = ["-n", "mayfly", "exec", "deploy/mayfly-gateway", "--", "mayfly", "agent", "add", "runbook-bot", "-o", "json"];
    let added: Value = serde_json::from_str(&engine.run("kubectl", &add, "")).unwrap();
    let selector = "app.kubernetes.io/name=mayfly-gateway";
    let address =
        engine.run("kubectl", &["-n", "mayfly", "get", "pods", "-l", selector, "-o", "jsonpath={.items[0].status.podIP}"], "");
    let url = format!("http://{address}:8420");
    let bot = Agent { url, key: added["key"].as_str().unwrap().to_owned(), http: client() };
    // The kubelet shows a ConfigMap that was made after its pod when it comes to it.
    let begun = std::time::Instant::now();
    let answer = loop {
        let answer = bot.call("k8s_get_deployment", json!({"namespace": "staging", "name": "api-server"})).await;
        if answer.status != 404 || begun.elapsed() > Duration::from_secs(120) {
            break answer;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("succeeded")), "{answer:?} {:?}", log());
    assert_eq!(answer.body["result"]["name"], "api-server");

    engine.run("kubectl", &["-n", "mayfly", "delete", "deploy/mayfly-gateway", "pvc/mayfly-data", "--wait=true"], "");
    engine.run("kubectl", &["delete", "pv/mayfly-test-data"], "");
    until("every Job is gone", Duration::from_secs(30), || {
        engine.run("kubectl", &["-n", SANDBOXES, "get", "jobs,pods", "-o", "name"], "").is_empty()
    });
}

/// Built as `images/gateway/Dockerfile` says, of the program under test, and pushed.
fn gateway_s_image(engine: &Engine) -> String {
    // Skipped together with Kubernetes only.
    let docker = Engine::docker().unwrap();
    let context = tempfile::tempdir().unwrap();
    let executor = format!("target/{}-unknown-linux-musl/executor/mayfly-executor", std::env::consts::ARCH);
    std::fs::copy(root().join(executor), context.path().join("mayfly-executor")).unwrap();
    // Without what only a debugger reads.
    let program = context.path().join("mayfly");
    docker.run("strip", &["-o", program.to_str().unwrap(), mayfly().to_str().unwrap()], "");
    // A tag of its own: nodes keep what they have pulled.
    let image = format!("{}/mayfly/gateway:{}", engine.registry(), uuid::Uuid::now_v7());
    let (file, context) = ("images/gateway/Dockerfile", context.path().to_str().unwrap());
    docker.run("docker", &["build", "--quiet", "--network", "host", "--file", file, "--tag", &image, context], "");
    docker.run("docker", &["push", "--quiet", &image], "");
    image
}
