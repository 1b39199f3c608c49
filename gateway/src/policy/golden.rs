//! The golden cases of `policies/golden`, on every engine: interpreted, compiled to bytecode, compiled to wasm.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fixtures::{build, policies};
use super::{Engine, Policy, PolicyInput, PolicySettings};

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
    let source = Policy::load(&folder, None, &PolicySettings::default()).unwrap();
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

/// Inputs that often hit the rules: few names, few values.
fn inputs() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just(json!("demo")),
        Just(json!("runbook-bot")),
        Just(json!("intern-bot")),
        Just(json!("deploy-bot")),
        Just(json!("get")),
        Just(json!("scale")),
        Just(json!("execute")),
        Just(json!("secret")),
        Just(json!("deployment")),
        Just(json!("staging")),
        Just(json!("production")),
        Just(json!("json_query")),
        Just(json!("http_probe")),
        Just(json!("code_executor")),
        Just(json!("example.com")),
        Just(json!("Secret")),
        Just(json!(443)),
        Just(json!(10)),
        Just(json!(11)),
        Just(json!(null)),
        Just(json!(true)),
        Just(json!([])),
    ];
    let key = prop::sample::select(vec![
        "agent_id", "tool", "action", "resource", "namespace", "desired_replicas", "environment", "host", "port", "scheme", "kind",
    ]);
    let flat = prop::collection::btree_map(key, word.clone(), 0..6).prop_map(|map| json!(map));
    let document = prop_oneof![
        word.clone(),
        flat.clone(),
        prop::collection::vec(flat.clone(), 0..3).prop_map(Value::from),
        prop::collection::vec(flat.clone(), 0..3).prop_map(|items| json!({"items": items})),
    ];
    let agent = prop::sample::select(vec!["demo", "runbook-bot", "intern-bot", "deploy-bot", "nobody"]);
    let tool = prop::sample::select(vec!["json_query", "http_probe", "code_executor", "git_log"]);
    (flat.clone(), flat, document, agent, tool).prop_map(|(mut input, mut arguments, document, agent, tool)| {
        arguments["document"] = document;
        for (key, value) in [("arguments", arguments), ("agent_id", json!(agent)), ("tool", json!(tool))] {
            input.as_object_mut().unwrap().entry(key).or_insert(value);
        }
        input
    })
}

#[test]
fn bytecode_and_interpreter_never_differ() {
    for folder in ["default", "examples/published"] {
        let policy = Policy::load(&policies().join(folder), None, &PolicySettings::default()).unwrap();
        let Engine::Source(source) = &policy.engine else { panic!("{folder} is source") };
        assert!(source.is_compiled(), "{folder}: {:?}", policy.notes());
        let allowed = std::cell::Cell::new(0);
        TestRunner::new(Config { cases: 2000, ..Config::default() })
            .run(&inputs(), |input| {
                let compiled = source.ask(&PolicyInput(input.clone())).unwrap();
                let interpreted = source.ask_interpreter(regorus::Value::from(input)).unwrap();
                allowed.set(allowed.get() + u32::from(compiled.allow == Some(json!(true))));
                prop_assert_eq!(compiled, interpreted);
                Ok(())
            })
            .unwrap();
        assert!(allowed.get() > 20, "the inputs hardly ever reach a rule of {folder}: {}", allowed.get());
    }
}
