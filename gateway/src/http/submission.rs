//! A body that asks for a call, in either of its two forms.
//!
//! With `arguments`, the members are exactly those of [`Submission`]. Without it, the form is flat: every other member is an
//! argument, except `args` and `token`, which are never taken (what they seem to say would go unheard). Everything that is
//! wrong is reported at once, each mistake with its place in the body.

use std::time::Instant;

use serde_json::{Map, Value};

use crate::call::CallRequest;
use crate::error::{CallError, Violation};

/// Longest tool name or version taken, in bytes.
const MAX_NAME: usize = 128;
/// Longest task id taken, in bytes.
const MAX_TASK_ID: usize = 256;
/// Longest reason taken, in bytes.
const MAX_REASON: usize = 4096;

/// What is asked for. In the flat form the arguments stand beside the other members instead of under `arguments`.
#[derive(Debug, PartialEq, utoipa::ToSchema)]
pub(super) struct Submission {
    /// The tool's name. May be left out where the path names it.
    #[schema(required = false)]
    tool: String,
    /// The exact version wanted; without it, the one that is served.
    #[schema(nullable)]
    version: Option<String>,
    /// The tool's arguments.
    #[schema(value_type = Option<Object>)]
    arguments: Map<String, Value>,
    /// The task this call belongs to, in your own words.
    #[schema(nullable)]
    task_id: Option<String>,
    /// Why you want it, for the approver and the record.
    #[schema(nullable)]
    reason: Option<String>,
}

impl Submission {
    /// Reads a body; `named` is the tool's name in the path, if it is there.
    ///
    /// # Errors
    /// [`CallError::InvalidRequest`] with every mistake.
    pub(super) fn read(body: Value, named: Option<String>) -> Result<Self, CallError> {
        let Value::Object(members) = body else {
            return Err(invalid(vec![violation("", "must be an object such as {\"tool\": \"...\", \"arguments\": {}}")]));
        };
        let mut reader = Reader { members, violations: Vec::new() };
        let tool = reader.tool(named);
        let submission = Self {
            tool,
            version: reader.text("version", MAX_NAME),
            task_id: reader.text("task_id", MAX_TASK_ID),
            reason: reader.text("reason", MAX_REASON),
            arguments: reader.arguments(),
        };
        if reader.violations.is_empty() { Ok(submission) } else { Err(invalid(reader.violations)) }
    }

    /// As the pipeline takes it.
    pub(super) fn into_request(self, traceparent: Option<String>, authenticated: Option<(Instant, Instant)>) -> CallRequest {
        let Self { tool, version, arguments, task_id, reason } = self;
        CallRequest { tool, version, arguments, task_id, reason, traceparent, authenticated }
    }
}

/// The members not read yet, and what was wrong with those that were.
struct Reader {
    members: Map<String, Value>,
    violations: Vec<Violation>,
}

impl Reader {
    fn tool(&mut self, named: Option<String>) -> String {
        let written = self.text("tool", MAX_NAME);
        match (written, named) {
            (Some(written), Some(named)) if written != named => {
                self.wrong("/tool", "names another tool than the path; leave it out or make them equal");
                named
            }
            (_, Some(named)) | (Some(named), None) => named,
            (None, None) => {
                if self.violations.is_empty() {
                    self.wrong("/tool", "is required: the name of the tool; `GET /v1/tools` lists them");
                }
                String::new()
            }
        }
    }

    /// An optional text member; `null` counts as left out.
    fn text(&mut self, name: &str, limit: usize) -> Option<String> {
        let mistake = match self.members.remove(name)? {
            Value::Null => return None,
            Value::String(text) if text.is_empty() => "must not be empty; leave it out instead".to_owned(),
            Value::String(text) if text.len() > limit => format!("must not be longer than {limit} bytes"),
            Value::String(text) if text.chars().any(is_forbidden) => "must not contain control characters".to_owned(),
            Value::String(text) => return Some(text),
            _ => "must be a string".to_owned(),
        };
        self.wrong(&format!("/{name}"), &mistake);
        None
    }

    /// What is left: `arguments` and nothing beside it, or the arguments themselves.
    fn arguments(&mut self) -> Map<String, Value> {
        let members = std::mem::take(&mut self.members);
        let (mut arguments, flat) = match members.get("arguments") {
            Some(_) => (Map::new(), false),
            None => (Map::new(), true),
        };
        for (name, value) in members {
            match (name.as_str(), value) {
                ("arguments", Value::Object(given)) => arguments = given,
                ("arguments", _) => self.wrong("/arguments", "must be an object"),
                ("args", _) => self.wrong("/args", "is not taken; the member is called `arguments`"),
                ("token", _) => self.wrong("/token", "is not taken; credentials go in the `Authorization` header"),
                (_, value) if flat => {
                    arguments.insert(name, value);
                }
                (name, _) => {
                    let place = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                    self.wrong(&place, "is not taken beside `arguments`; put it inside, or leave `arguments` out");
                }
            }
        }
        arguments
    }

    /// Notes a mistake; past 32 nobody reads on.
    fn wrong(&mut self, pointer: &str, detail: &str) {
        if self.violations.len() < 32 {
            self.violations.push(violation(pointer, detail));
        }
    }
}

/// Control characters have no business in names and reasons; line breaks and tabs may structure a reason.
fn is_forbidden(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

fn violation(pointer: &str, detail: &str) -> Violation {
    let shown: String = pointer.chars().take(200).collect();
    Violation { pointer: shown, detail: detail.to_owned() }
}

fn invalid(violations: Vec<Violation>) -> CallError {
    CallError::InvalidRequest { violations }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> CallRequest {
        Submission::read(body, None).unwrap().into_request(None, None)
    }

    fn wrong(body: Value, named: Option<&str>) -> Vec<String> {
        match Submission::read(body, named.map(str::to_owned)) {
            Err(CallError::InvalidRequest { violations }) => violations.into_iter().map(|v| v.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_forms_ask_for_the_same() {
        let flat = read(
            json!({"tool": "k8s_get_deployment", "namespace": "production", "name": "api-server", "task_id": "t", "reason": "why\nso"}),
        );
        let nested = read(json!({
            "tool": "k8s_get_deployment", "arguments": {"namespace": "production", "name": "api-server"},
            "task_id": "t", "reason": "why\nso", "version": null,
        }));
        assert_eq!(flat, nested);
        assert_eq!(Value::Object(flat.arguments), json!({"namespace": "production", "name": "api-server"}));
        assert_eq!((flat.task_id.as_deref(), flat.reason.as_deref()), (Some("t"), Some("why\nso")));
    }

    #[test]
    fn inside_arguments_no_name_is_reserved() {
        let request = read(json!({"tool": "x", "arguments": {"tool": 1, "token": 2, "args": 3}}));
        assert_eq!(request.arguments.len(), 3);
    }

    #[test]
    fn a_tool_without_arguments_needs_none() {
        assert!(read(json!({"tool": "x"})).arguments.is_empty());
    }

    #[test]
    fn the_path_may_name_the_tool() {
        let request = Submission::read(json!({"n": 1}), Some("x".into())).unwrap().into_request(None, None);
        assert_eq!((request.tool.as_str(), request.arguments.len()), ("x", 1));
        assert!(Submission::read(json!({"tool": "x", "arguments": {}}), Some("x".into())).is_ok());
        assert_eq!(wrong(json!({"tool": "y"}), Some("x")), ["/tool"]);
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        assert_eq!(
            wrong(
                json!({"tool": 7, "version": [], "task_id": "", "reason": "\u{0}", "arguments": [], "a/b~": 1, "args": {}}),
                None
            ),
            ["/tool", "/version", "/task_id", "/reason", "/a~1b~0", "/args", "/arguments"]
        );
    }

    #[test]
    fn what_is_not_a_submission_is_refused() {
        for body in [json!([]), json!("x"), json!(null), json!(1)] {
            assert_eq!(wrong(body, None), [""]);
        }
        assert_eq!(wrong(json!({}), None), ["/tool"]);
        assert_eq!(wrong(json!({"tool": null, "arguments": {}}), None), ["/tool"]);
        for arguments in [json!(null), json!([]), json!("{}"), json!(1)] {
            assert_eq!(wrong(json!({"tool": "x", "arguments": arguments}), None), ["/arguments"]);
        }
        assert_eq!(wrong(json!({"tool": "x", "arguments": {}, "namespace": "n"}), None), ["/namespace"]);
        assert_eq!(wrong(json!({"tool": "x", "args": {"n": 1}}), None), ["/args"]);
        assert_eq!(wrong(json!({"tool": "x", "token": "t"}), None), ["/token"]);
    }

    #[test]
    fn texts_are_bounded() {
        assert_eq!(wrong(json!({"tool": "x".repeat(MAX_NAME + 1)}), None), ["/tool"]);
        assert_eq!(wrong(json!({"tool": "x\u{0}y"}), None), ["/tool"]);
        assert_eq!(wrong(json!({"tool": "x", "task_id": "t".repeat(MAX_TASK_ID + 1)}), None), ["/task_id"]);
        assert_eq!(wrong(json!({"tool": "x", "reason": "r".repeat(MAX_REASON + 1)}), None), ["/reason"]);
        let many: Map<String, Value> =
            (0..100).map(|n| (format!("m{n}"), json!(n))).chain([("arguments".into(), json!({}))]).collect();
        assert_eq!(wrong(Value::Object(many), Some("x")).len(), 32);
    }
}
