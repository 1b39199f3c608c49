//! The isolation floor, as the API server holds it: pods below it are refused, whoever creates them.

use std::time::Duration;

use mayfly_tests::harness::{Engine, root, until};
use serde_json::{Value, json};

use super::{NAMESPACES, SANDBOXES, apply};

/// A namespace with the admission policy alone: in the other, Pod Security answers first, and a LimitRange adds missing limits.
const FLOOR: &str = "mayfly-floor";
/// Who makes the pods of Jobs.
const JOB_CONTROLLER: &str = "--as=system:serviceaccount:kube-system:job-controller";

/// The pod of the Job that the executor makes, from its own snapshot.
fn sandbox() -> Value {
    let snapshots = root().join("executor/src/kubernetes/snapshots");
    let file = snapshots.join("mayfly_executor__kubernetes__job__tests__a_spec_becomes_exactly_this_job.snap");
    let snapshot = std::fs::read_to_string(file).unwrap();
    let mut job: Value = serde_json::from_str(snapshot.split("\n---\n").nth(1).unwrap()).unwrap();
    let mut pod = job["spec"]["template"].take();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("sandbox");
    pod
}

/// The same with changes, each named by JSON Pointer. What is `null` is not there.
fn with(object: &Value, changes: &Value) -> Value {
    let mut object = object.clone();
    for (pointer, value) in changes.as_object().unwrap() {
        if let Some(there) = object.pointer_mut(pointer) {
            *there = value.clone();
            continue;
        }
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} is nowhere"));
        parent.as_object_mut().unwrap().insert(key.to_owned(), value.clone());
    }
    object
}

/// What is below the floor, each with words of the rule that it breaks.
fn below_the_floor(good: &Value) -> Vec<(Value, &'static str)> {
    const LABEL: &str = "/metadata/labels/mayfly.dev~1service-account";
    let one = &good["spec"]["containers"][0];
    let two = json!([one, with(one, &json!({"/name": "second"}))]);
    vec![
        (json!({"/spec/containers": two}), "exactly one container"),
        (json!({"/spec/initContainers": [{"name": "more", "image": "x"}]}), "exactly one container"),
        // The API server itself answers: nobody creates a pod with these.
        (json!({"/spec/ephemeralContainers": [{"name": "more", "image": "x"}]}), "ephemeralContainers"),
        (json!({"/spec/restartPolicy": "OnFailure"}), "restartPolicy must be"),
        (json!({"/spec/restartPolicy": null}), "restartPolicy must be"),
        (json!({"/spec/activeDeadlineSeconds": null}), "activeDeadlineSeconds must be"),
        (json!({"/spec/securityContext/runAsNonRoot": null}), "runAsNonRoot must be"),
        (json!({"/spec/containers/0/securityContext/runAsNonRoot": false}), "runAsNonRoot must be"),
        (json!({"/spec/containers/0/securityContext/readOnlyRootFilesystem": false}), "readOnlyRootFilesystem must be"),
        (json!({"/spec/containers/0/securityContext/readOnlyRootFilesystem": null}), "readOnlyRootFilesystem must be"),
        (json!({"/spec/containers/0/securityContext/allowPrivilegeEscalation": true}), "allowPrivilegeEscalation must be"),
        (json!({"/spec/containers/0/securityContext/allowPrivilegeEscalation": null}), "allowPrivilegeEscalation must be"),
        // The API server itself answers: it contradicts allowPrivilegeEscalation.
        (json!({"/spec/containers/0/securityContext/privileged": true}), "privileged"),
        (json!({"/spec/containers/0/securityContext/capabilities/drop": ["NET_RAW"]}), "capabilities must drop ALL"),
        (json!({"/spec/containers/0/securityContext/capabilities/add": ["NET_ADMIN"]}), "capabilities must drop ALL"),
        (json!({"/spec/securityContext/seccompProfile": null}), "seccompProfile.type must be"),
        (json!({"/spec/containers/0/securityContext/seccompProfile/type": "Unconfined"}), "seccompProfile.type must be"),
        (json!({"/spec/hostNetwork": true}), "hostNetwork, hostPID and hostIPC"),
        (json!({"/spec/hostPID": true}), "hostNetwork, hostPID and hostIPC"),
        (json!({"/spec/hostIPC": true}), "hostNetwork, hostPID and hostIPC"),
        (json!({"/spec/volumes/0": {"name": "scratch", "hostPath": {"path": "/"}}}), "an emptyDir"),
        (json!({"/spec/volumes/0": {"name": "scratch", "secret": {"secretName": "x"}}}), "an emptyDir"),
        (json!({"/spec/volumes/0": {"name": "scratch", "configMap": {"name": "x"}}}), "an emptyDir"),
        (json!({"/spec/volumes/0": {"name": "scratch", "persistentVolumeClaim": {"claimName": "x"}}}), "an emptyDir"),
        (
            json!({"/spec/volumes/0": {
                "name": "scratch", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]},
            }}),
            "an emptyDir",
        ),
        (json!({"/spec/containers/0/envFrom": [{"secretRef": {"name": "x"}}]}), "the environment"),
        (
            json!({"/spec/containers/0/env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]}),
            "the environment",
        ),
        (json!({"/spec/enableServiceLinks": null}), "enableServiceLinks must be"),
        (json!({"/spec/containers/0/resources": null}), "resources.limits must name"),
        (json!({"/spec/containers/0/resources": {"limits": {"memory": "64Mi"}}}), "resources.limits must name"),
        (json!({"/spec/containers/0/resources": {"limits": {"cpu": "100m"}}}), "resources.limits must name"),
        (json!({"/spec/automountServiceAccountToken": true}), "automountServiceAccountToken must be"),
        (json!({"/spec/automountServiceAccountToken": null}), "automountServiceAccountToken must be"),
        (json!({"/spec/serviceAccountName": "other", LABEL: "other"}), "must begin with mayfly-tool-"),
        (json!({LABEL: "mayfly-tool-k8s-pod-logs"}), "label mayfly.dev/service-account"),
        (json!({"/metadata/labels": null}), "label mayfly.dev/service-account"),
    ]
}

/// Why the API server does not take a pod, from the administrator or in another's name. `None`: it would take it.
fn refusal(engine: &Engine, namespace: &str, in_the_name_of: Option<&str>, pod: &Value) -> Option<String> {
    let mut args = vec!["-n", namespace, "create", "--dry-run=server", "-f", "-"];
    args.extend(in_the_name_of);
    let (taken, _, why) = engine.attempt("kubectl", &args, &pod.to_string());
    (!taken).then_some(why)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_below_the_floor_are_refused_whoever_creates_them() {
    let Some(engine) = Engine::kubernetes() else { return };
    let _alone = NAMESPACES.lock().await;
    apply(&engine);
    let named = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    let labels = json!({"/metadata/labels": {"mayfly.dev/executions": "true"}});
    engine.run("kubectl", &["apply", "-f", "-"], &with(&named("Namespace", FLOOR), &labels).to_string());
    for account in ["mayfly-tool-none", "other"] {
        engine.run("kubectl", &["-n", FLOOR, "apply", "-f", "-"], &named("ServiceAccount", account).to_string());
    }

    let good = sandbox();
    let mut said = String::new();
    for namespace in [SANDBOXES, FLOOR] {
        // What was applied just now takes a moment to hold.
        until("the administrator creates no pod", Duration::from_secs(30), || {
            said = refusal(&engine, namespace, None, &good).unwrap_or_default();
            said.contains("created by the Job controller alone")
        });
        assert_eq!(refusal(&engine, namespace, Some(JOB_CONTROLLER), &good), None, "in {namespace}");
    }
    for (changes, words) in below_the_floor(&good) {
        let why = refusal(&engine, FLOOR, Some(JOB_CONTROLLER), &with(&good, &changes)).unwrap_or_default();
        assert!(why.contains(words), "{changes}: {why:?}");
        said += &why;
    }
    // What the policy leaves to Pod Security.
    for (changes, words) in [
        (json!({"/spec/securityContext/runAsUser": 0}), "runAsUser=0"),
        (json!({"/spec/securityContext/sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), "sysctls"),
        (json!({"/spec/containers/0/ports": [{"containerPort": 80, "hostPort": 80}]}), "hostPort"),
    ] {
        let why = refusal(&engine, SANDBOXES, Some(JOB_CONTROLLER), &with(&good, &changes)).unwrap_or_default();
        assert!(why.contains(words), "{changes}: {why:?}");
    }

    // One that stands, on no node, is not changed.
    let nowhere = with(&good, &json!({"/spec/nodeSelector": {"mayfly.dev/nowhere": "true"}}));
    let delete = || engine.run("kubectl", &["-n", FLOOR, "delete", "pod", "sandbox", "--ignore-not-found"], "");
    delete();
    engine.run("kubectl", &["-n", FLOOR, JOB_CONTROLLER, "create", "-f", "-"], &nowhere.to_string());
    let standing = engine.run("kubectl", &["-n", FLOOR, "get", "pod", "sandbox", "-o", "json"], "");
    let standing: Value = serde_json::from_str(&standing).unwrap();
    // Whatever the scheduler wrote to it meanwhile.
    let standing = with(&standing, &json!({"/metadata/resourceVersion": null}));
    let resources = "/spec/containers/0/resources";
    let (limit, request) = (format!("{resources}/limits/cpu"), format!("{resources}/requests/cpu"));
    for (part, changes) in [
        ("ephemeralcontainers", json!({"/spec/ephemeralContainers": [{"name": "more", "image": "x"}]})),
        ("resize", json!({limit: "250m", request: "250m"})),
    ] {
        let path = format!("/api/v1/namespaces/{FLOOR}/pods/sandbox/{part}");
        let changed = with(&standing, &changes).to_string();
        let (taken, _, why) = engine.attempt("kubectl", &["replace", "--raw", &path, "-f", "-"], &changed);
        assert!(!taken && why.contains("a sandbox is not changed"), "{part}: {why}");
        said += &why;
    }
    delete();

    let policy = engine.run("kubectl", &["get", "validatingadmissionpolicy", "mayfly-sandbox", "-o", "json"], "");
    let policy: Value = serde_json::from_str(&policy).unwrap();
    for rule in policy["spec"]["validations"].as_array().unwrap() {
        let message = rule["message"].as_str().unwrap();
        assert!(said.contains(message), "nothing here breaks this rule: {message}");
    }
}
