//! A good definition to start tests from.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Rules, Tool};
use crate::document::Problem;

/// A definition that passes, with something of everything in it.
pub(crate) const SCALE: &str = r#"format: 1
name: k8s_scale
version: 1.0.0
description: Sets the number of replicas of a workload.
tier: free
justification: Reversible, and policy bounds it.
review_by: 2999-01-01
action: scale
resource: {from: /kind}
input_schema:
  type: object
  required: [namespace, name, desired_replicas]
  properties:
    namespace: {type: string, maxLength: 63}
    name: {type: string, pattern: "^[a-z][a-z0-9-]{0,62}$"}
    kind: {enum: [deployment, statefulset], default: deployment}
    desired_replicas: {type: integer, minimum: 0, maximum: 100}
    token_hint: {type: string, writeOnly: true}
    options: {type: object, properties: {wait: {type: boolean, default: false}}}
output_schema:
  type: object
  required: [replicas]
policy_input:
  namespace: /namespace
  desired_replicas: /desired_replicas
executor:
  backend: docker
  image: scale:dev
  command: [kubectl, scale, "{/kind}", "{/name}", -n, "{/namespace}"]
  timeout: 30s
  memory: 64Mi
  output_limit: 1Mi
"#;

/// The tool of a text that passes.
pub(crate) fn tool(yaml: &str) -> Tool {
    let (tool, problems) = Tool::parse(Path::new("t"), yaml, &rules());
    tool.unwrap_or_else(|| panic!("{problems:#?}"))
}

/// Everything wrong with a text.
pub(crate) fn problems(yaml: &str) -> Vec<Problem> {
    Tool::parse(Path::new("t"), yaml, &rules()).1
}

/// No mounts, and a day that stays.
pub(crate) fn rules() -> Rules {
    let start_timeout = std::time::Duration::from_secs(30);
    Rules {
        allowed_mounts: Vec::new(),
        allow_tags: false,
        sources: None,
        start_timeout,
        today: time::macros::date!(2026 - 06 - 01),
    }
}

/// The members of a JSON object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}
