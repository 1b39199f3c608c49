//! The policy that people publish for infrastructure agents runs unchanged, and null, negative, capital and missing values do not
//! slip through it when a tool is defined as the check wants.

use mayfly_tests::harness::{Setup, tools};
use serde_json::json;

const PUBLISHED: &str = r#"package agent.authz

import future.keywords.if
import future.keywords.in

default allow := false

allow if {
    input.action in {"get", "list", "watch"}
    input.namespace == "staging"
    input.agent_id in data.authorized_agents
}

allow if {
    input.action == "scale"
    input.resource == "deployment"
    input.desired_replicas <= 10
    input.namespace != "production"
}

deny if {
    input.resource == "secret"
}
"#;

const YAML: &str = r#"format: 1
name: k8s
version: 1.0.0
description: Stands for a tool that reads and scales.
tier: free
justification: It echoes.
review_by: 2099-01-01
action: { from: /verb }
resource: { from: /kind }
input_schema:
  type: object
  required: [verb, kind, namespace, desired_replicas]
  properties:
    verb: { enum: [get, list, watch, scale] }
    kind: { enum: [deployment, secret] }
    namespace: { enum: [staging, production] }
    desired_replicas: { type: integer, minimum: 0, maximum: 100 }
policy_input:
  namespace: /namespace
  desired_replicas: /desired_replicas
executor:
  backend: wasm
  module: tool.wasm
  timeout: 2s
  memory: 16Mi
  output_limit: 64Ki
"#;

#[tokio::test]
async fn it_runs_unchanged_and_nothing_slips_through() {
    let setup = Setup::new().policy(PUBLISHED).tool("k8s", YAML, Some(tools::ECHO));
    std::fs::write(setup.dir.path().join("policy/data.json"), r#"{"authorized_agents": ["ann"]}"#).unwrap();
    let mayfly = setup.start();
    let (ann, bob) = (mayfly.agent("ann"), mayfly.agent("bob"));
    let arguments = |verb: &str, kind: &str, namespace: &str, replicas: serde_json::Value| json!({"verb": verb, "kind": kind, "namespace": namespace, "desired_replicas": replicas});
    let cases = [
        ("get", "deployment", "staging", json!(0), 200),
        ("get", "deployment", "production", json!(0), 403),
        ("get", "secret", "staging", json!(0), 403),
        ("scale", "deployment", "staging", json!(10), 200),
        ("scale", "deployment", "staging", json!(11), 403),
        ("scale", "deployment", "production", json!(1), 403),
        ("scale", "deployment", "staging", json!(null), 422),
        ("scale", "deployment", "staging", json!(-5), 422),
        ("scale", "deployment", "staging", json!("5"), 422),
        ("scale", "deployment", "staging", json!(5.5), 422),
        ("scale", "deployment", "Production", json!(5), 422),
        ("delete", "deployment", "staging", json!(5), 422),
    ];
    for (verb, kind, namespace, replicas, status) in cases {
        let answer = ann.call("k8s", arguments(verb, kind, namespace, replicas.clone())).await;
        assert_eq!(answer.status, status, "{verb} {kind} {namespace} {replicas}: {answer:?}");
    }
    assert_eq!(bob.call("k8s", arguments("get", "deployment", "staging", json!(0))).await.status, 403, "not an authorized agent");
    let missing = json!({"verb": "scale", "kind": "deployment", "namespace": "staging"});
    assert_eq!(ann.call("k8s", missing).await.status, 422);
}

#[test]
fn a_tool_that_would_let_them_through_is_refused_by_the_check() {
    let setup = Setup::new();
    for (sound, loose) in [
        (
            "desired_replicas: { type: integer, minimum: 0, maximum: 100 }",
            "desired_replicas: { type: [integer, 'null'], minimum: 0, maximum: 100 }",
        ),
        ("desired_replicas: { type: integer, minimum: 0, maximum: 100 }", "desired_replicas: { type: integer }"),
        ("namespace, desired_replicas]", "namespace]"),
        ("namespace: { enum: [staging, production] }", "namespace: {}"),
    ] {
        let folder = setup.dir.path().join("tools/k8s");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("tool.yaml"), YAML.replace(sound, loose)).unwrap();
        let (code, out, err) = mayfly_tests::harness::cli(&["tool", "check", folder.to_str().unwrap()]);
        assert_eq!(code, 5, "{loose} passed the check: {out}{err}");
        assert!(format!("{out}{err}").contains("tool.yaml:"), "it names file and line: {out}{err}");
    }
}
