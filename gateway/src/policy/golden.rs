//! The golden cases of `policies/golden`, on every engine: interpreted, compiled to bytecode, compiled to wasm.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fixtures::{build, patient, policies};
use super::{Engine, Policy, PolicyInput};

#[derive(Deserialize)]
struct Golden {
    /// The policy's folder, relative to the file.
    policy: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input: Value,
    /// The members that the decision has to have, or `"no"`: an error is as good as a denial.
    expect: Value,
}

fn told(policy: &Policy, input: &Value) -> Value {
    match policy.explain(input.clone()) {
        Ok(explained) => {
            let mut explained = serde_json::to_value(explained).unwrap();
            explained.as_object_mut().unwrap().remove("fired");
            explained
        }
        Err(_) => json!("no"),
    }
}

fn check(golden: &str) {
    let text = std::fs::read_to_string(policies().join("golden").join(golden)).unwrap();
    let golden: Golden = serde_json::from_str(&text).unwrap();
    let folder = policies().join("golden").join(golden.policy);
    let source = Policy::load(&folder, None, &patient()).unwrap();
    let built = build(&folder, "agent/authz");
    let bundle = built.as_ref().map(|built| built.load().unwrap());
    assert!(!golden.cases.is_empty());
    for case in golden.cases {
        for policy in std::iter::once(&source).chain(&bundle) {
            let told = told(policy, &case.input);
            let place = format!("{} on {}: {told}", case.name, policy.engine());
            match &case.expect {
                Value::Object(expected) => {
                    for (key, value) in expected {
                        assert_eq!(told.get(key), Some(value), "{place}");
                    }
                }
                Value::String(no) if no == "no" => assert_ne!(told["allow"], json!(true), "{place}"),
                other => panic!("`expect` is an object or \"no\": {other}"),
            }
        }
        if let Some(bundle) = bundle.as_ref().filter(|_| case.expect.is_object()) {
            assert_eq!(told(&source, &case.input), told(bundle, &case.input), "{}", case.name);
        }
    }
}

#[test]
fn the_published_policy_decides_alike_on_both_engines() {
    check("published.json");
}

#[test]
fn the_default_policy_decides_alike_on_both_engines() {
    check("default.json");
}

#[test]
fn every_kind_of_decision_comes_out_alike_on_both_engines() {
    check("behaviour.json");
}

/// One of these values, or nothing.
fn maybe(values: Value) -> impl Strategy<Value = Option<Value>> + Clone {
    prop::option::weighted(0.8, prop::sample::select(values.as_array().unwrap().clone()))
}

fn object<const N: usize>(names: [&'static str; N], values: [Option<Value>; N]) -> Value {
    names.into_iter().zip(values).filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Inputs that often hit the rules of the published policy.
fn published() -> impl Strategy<Value = Value> {
    (
        maybe(json!(["deploy-bot", "deploy-bot", "stranger", null])),
        maybe(json!(["get", "scale", "scale", "delete"])),
        maybe(json!(["deployment", "secret", ["secret"]])),
        maybe(json!(["staging", "production", "Production", null])),
        maybe(json!([10, 11, -5, null, "5", 9.5, [1]])),
    )
        .prop_map(|(agent, action, resource, namespace, replicas)| {
            object(
                ["agent_id", "action", "resource", "namespace", "desired_replicas"],
                [agent, action, resource, namespace, replicas],
            )
        })
}

/// Inputs that often hit the rules of the default policy.
fn default() -> impl Strategy<Value = Value> {
    let kinds = maybe(json!(["Pod", "Secret", "SecretList", null, ["Secret"]]));
    let one = kinds.prop_map(|kind| object(["kind"], [kind]));
    // Always a collection: iterating over a scalar is nothing to bytecode, as to OPA, and an error to the interpreter.
    let document = prop_oneof![
        one.clone(),
        prop::collection::vec(one.clone(), 0..3).prop_map(Value::from),
        prop::collection::vec(one, 0..3).prop_map(|items| json!({ "items": items })),
    ];
    (
        maybe(json!(["demo", "runbook-bot", "intern-bot", "stranger", null])),
        maybe(json!(["json_query", "http_probe", "code_executor", "git_log", 7])),
        maybe(json!(["get", "execute"])),
        maybe(json!(["json", "secret", "secrets"])),
        maybe(json!(["development", "production"])),
        maybe(json!(["example.com", "example.org", null, ["example.com"]])),
        maybe(json!([443, "443", 80])),
        maybe(json!(["https", "http"])),
        prop::option::of(document),
    )
        .prop_map(|(agent, tool, action, resource, environment, host, port, scheme, document)| {
            let arguments = object(["host", "port", "scheme", "document"], [host, port, scheme, document]);
            let names = ["agent_id", "tool", "action", "resource", "environment", "arguments"];
            object(names, [agent, tool, action, resource, environment, Some(arguments)])
        })
}

fn never_differ(folder: &str, inputs: impl Strategy<Value = Value>) {
    let policy = Policy::load(&policies().join(folder), None, &patient()).unwrap();
    let Engine::Source(source) = &policy.engine else { panic!("{folder} is source") };
    assert!(source.is_compiled(), "{folder}: {:?}", policy.notes());
    let allowed = std::cell::Cell::new(0);
    TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() })
        .run(&inputs, |input| {
            let compiled = source.ask(&PolicyInput(input.clone())).unwrap();
            let interpreted = source.ask_interpreter(regorus::Value::from(input)).unwrap();
            allowed.set(allowed.get() + u32::from(compiled.allow == Some(json!(true))));
            prop_assert_eq!(compiled, interpreted);
            Ok(())
        })
        .unwrap();
    assert!(allowed.get() > 20, "the inputs hardly ever reach a rule of {folder}: {}", allowed.get());
}

#[test]
fn bytecode_and_interpreter_never_differ_on_the_default_policy() {
    never_differ("default", default());
}

#[test]
fn bytecode_and_interpreter_never_differ_on_the_published_policy() {
    never_differ("examples/published", published());
}
