//! Their definitions pass the check, and refuse what policy must never see.

use mayfly_gateway::catalog::Tool;
use serde_json::{Value, json};

use crate::folder;

fn load(name: &str) -> Tool {
    crate::load(&folder(name))
}

/// Where the arguments do not fit; empty when they do.
fn violations(tool: &Tool, arguments: Value) -> Vec<String> {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    tool.validate(arguments).err().unwrap_or_default().into_iter().map(|violation| violation.pointer).collect()
}

#[track_caller]
fn refused(tool: &Tool, arguments: Value, pointer: &str) {
    let shown = arguments.to_string();
    let found = violations(tool, arguments);
    assert!(found.iter().any(|p| p == pointer), "{shown}: {found:?}");
}

#[test]
fn every_definition_passes_and_fills_in_what_policy_compares() {
    let probe = load("http_probe");
    let arguments = probe.validate(json!({"host": "example.com"}).as_object().unwrap().clone()).unwrap();
    let lifted = probe.lifted(&arguments).unwrap();
    assert_eq!(Value::from(lifted), json!({"scheme": "https", "host": "example.com", "port": 443, "path": "/", "method": "GET"}));
    for name in ["json_query", "code_executor", "git_log"] {
        load(name);
    }
}

#[test]
fn json_query_takes_any_document_and_a_bounded_query() {
    let tool = load("json_query");
    for document in [json!(null), json!({"a": {"b": 1}}), json!([1, {"a": "b"}]), json!("text")] {
        assert!(violations(&tool, json!({"query": ".", "document": document})).is_empty());
    }
    refused(&tool, json!({"query": ".".repeat(4097), "document": 1}), "/query");
    refused(&tool, json!({"query": ".", "document": 1, "limit": 1001}), "/limit");
    refused(&tool, json!({"query": ".", "document": 1, "raw": true}), "/raw");
}

#[test]
fn http_probe_has_one_spelling_for_every_destination() {
    let tool = load("http_probe");
    for host in ["", "EXAMPLE.com", "example.com.", "a b", "a/b", "user@a", "a:80", "[::1]", "a\u{0}", "a\n"] {
        refused(&tool, json!({"host": host}), "/host");
    }
    for path in ["x", "/a b", "/a\r\nHost: b", "/#a", "/é"] {
        refused(&tool, json!({"host": "a", "path": path}), "/path");
    }
    refused(&tool, json!({"host": "a", "port": 0}), "/port");
    refused(&tool, json!({"host": "a", "port": null}), "/port");
    refused(&tool, json!({"host": "a", "method": "POST"}), "/method");
    refused(&tool, json!({"host": "a", "headers": ["a b"]}), "/headers/0");
    assert!(
        violations(&tool, json!({"host": "127.0.0.1", "port": 8421, "scheme": "http", "path": "/healthz?x=%20&y=[1]"}))
            .is_empty()
    );
}

#[test]
fn code_executor_takes_no_name_that_leaves_its_folder() {
    let tool = load("code_executor");
    let good = json!({"code": "pass", "files": {"data/in.txt": "x"}, "outputs": ["out.txt"]});
    assert!(violations(&tool, good).is_empty());
    for name in ["../x", "/x", "a/../../x", ".x", "-x", "", "a//b", "a\u{0}"] {
        refused(&tool, json!({"code": "", "outputs": [name]}), "/outputs/0");
        assert!(!violations(&tool, json!({"code": "", "files": {name: ""}})).is_empty(), "{name}");
    }
    refused(&tool, json!({"code": "x".repeat(65537)}), "/code");
}

#[test]
fn git_log_takes_no_ref_that_could_be_an_option_or_a_range() {
    let tool = load("git_log");
    for reference in ["--all", "-n1", "--output=/tmp/x", "", "a..b", "a...b", "HEAD:x", "@{u}", "a b", "^a", "a\n"] {
        refused(&tool, json!({"ref": reference}), "/ref");
    }
    for good in ["HEAD", "main", "v1.2.3", "feature/x-1", "HEAD~2", "0123abcd", "main^"] {
        assert!(violations(&tool, json!({"ref": good})).is_empty(), "{good}");
    }
    refused(&tool, json!({"limit": 201}), "/limit");
    refused(&tool, json!({"since": "yesterday"}), "/since");
    refused(&tool, json!({"path": "/etc"}), "/path");
}
