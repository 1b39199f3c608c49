//! The room as a whole: what loads, what it answers, and what bites.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_executor::spec::ByteSize;
use serde_json::json;
use time::macros::datetime;

use super::fixtures::{Written, question, tool};
use super::{Policy, PolicyError, PolicySettings, Verdict};
use crate::caller::Caller;
use crate::catalog::definition::{Classifier, Tier};

const ALLOW: &str = "allow := true\n";

fn verdict(rules: &str) -> (super::Decision, Verdict) {
    Written::rules(rules).load().unwrap().authorize(question(tool(|_| {}), json!({}))).unwrap()
}

#[test]
fn a_yes_is_a_permit_for_exactly_what_was_asked() {
    let policy = Written::rules("allow := true\nobligations := {\"timeout\": \"1h\", \"output_limit\": \"1Ki\"}").load().unwrap();
    let (decision, verdict) = policy.authorize(question(tool(|_| {}), json!({"x": 1}))).unwrap();
    let Verdict::Permitted(permit) = verdict else { panic!("{verdict:?}") };
    assert!(decision.allow && permit.decision_id() == decision.id);
    assert_eq!((permit.caller().agent_id(), permit.tool().definition.name.as_str()), ("ada-bot", "look"));
    assert_eq!(*permit.arguments().value, json!({"x": 1}));
    assert_eq!(permit.obligations().timeout, Some(Duration::from_secs(10)));
    assert_eq!(permit.obligations().output_limit, Some(ByteSize(1024)));
}

#[test]
fn everything_else_is_none() {
    assert!(matches!(verdict("allow := false").1, Verdict::Denied));
    assert!(matches!(verdict("other := true").1, Verdict::Denied));
    assert!(matches!(verdict("allow := \"true\"").1, Verdict::Denied));
    let (decision, denied) = verdict("allow := true\ndeny contains \"b\"\ndeny contains \"a\"");
    assert!(matches!(denied, Verdict::Denied) && decision.reasons == ["a", "b"] && !decision.allow);
    assert!(matches!(verdict("allow := true\napproval := true").1, Verdict::ApprovalDemanded));
    let (decision, broken) = verdict("allow := true\nobligations := {\"isolation\": \"container\"}");
    assert!(matches!(broken, Verdict::Unenforceable(key) if key == "isolation") && !decision.allow);
}

#[test]
fn the_tier_holds_whatever_policy_says() {
    let policy = Written::rules(ALLOW).load().unwrap();
    let of = |tier| policy.authorize(question(tool(|definition| definition.tier = tier), json!({}))).unwrap();
    let (decision, supervised) = of(Tier::Supervised);
    assert!(matches!(supervised, Verdict::ApprovalDemanded) && decision.approval);
    let (decision, forbidden) = of(Tier::Forbidden);
    assert!(matches!(forbidden, Verdict::Denied) && !decision.allow);
}

#[test]
fn policy_sees_the_whole_call() {
    let expected = json!({
        "action": "scale", "actors": ["desk"], "agent_id": "ada-bot", "arguments": {"verb": "scale", "to": {"n": 3}}, "credentials": [],
        "environment": "development", "hour": 14, "replicas": 3, "resource": "thing", "task_id": "task-1", "tier": "free",
        "time": "2027-03-01T14:05:00+00:00", "tool": "look", "user": "ada", "version": "1.2.3", "weekday": "monday",
    });
    let policy = Written::rules(&format!("allow if input == {expected}")).load().unwrap();
    let tool = tool(|definition| {
        definition.action = Classifier::From { from: "/verb".to_owned() };
        definition.policy_input = [("replicas", "/to/n"), ("agent_id", "/verb"), ("gone", "/nowhere")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
    });
    let (decision, _) = policy.authorize(question(Arc::clone(&tool), json!({"verb": "scale", "to": {"n": 3}}))).unwrap();
    assert!(decision.allow);
    let missing = policy.authorize(question(Arc::clone(&tool), json!({"to": {"n": 3}}))).unwrap_err();
    assert!(matches!(missing, PolicyError::Unclassified("action")));
    let number = policy.authorize(question(tool, json!({"verb": 3}))).unwrap_err();
    assert!(matches!(number, PolicyError::Unclassified("action")));
}

/// The published policy alone lets `null`, -5 and `Production` scale (the golden cases show it). A tool that the check accepts does not let them come this far.
#[test]
fn what_the_published_policy_would_let_through_ends_at_the_schema() {
    let scale = crate::catalog::fixture::SCALE
        .replace("namespace: {type: string, maxLength: 63}", "namespace: {enum: [staging, production]}");
    let scale = Arc::new(crate::catalog::fixture::tool(&scale));
    let folder = super::fixtures::policies().join("examples/published");
    let policy = Policy::load(&folder, None, &PolicySettings::default()).unwrap();
    let call = |namespace: serde_json::Value, replicas: serde_json::Value| {
        let given = json!({"name": "api", "namespace": namespace, "desired_replicas": replicas});
        let given = given.as_object().unwrap().iter().filter(|(_, value)| **value != json!("missing"));
        let arguments = scale.validate(given.map(|(name, value)| (name.clone(), value.clone())).collect()).ok()?;
        let asked = super::Question { arguments, ..question(Arc::clone(&scale), json!({})) };
        Some(policy.authorize(asked).unwrap().0.allow)
    };
    assert_eq!(call(json!("staging"), json!(10)), Some(true));
    assert_eq!(call(json!("staging"), json!(11)), Some(false));
    assert_eq!(call(json!("production"), json!(3)), Some(false));
    for (namespace, replicas) in [
        (json!("staging"), json!(null)),
        (json!("staging"), json!(-5)),
        (json!("staging"), json!("5")),
        (json!("staging"), json!("missing")),
        (json!("Production"), json!(3)),
        (json!(null), json!(3)),
        (json!("missing"), json!(3)),
    ] {
        assert_eq!(call(namespace.clone(), replicas.clone()), None, "{namespace} {replicas}");
    }
}

#[test]
fn an_error_in_deny_is_never_an_allow() {
    for rules in [
        "deny if to_number(input.arguments.x) > 3",
        "deny if not startswith(input.arguments.x, \"a\")",
        "deny if input.arguments.x + 1 > 3",
        "deny if 1 / 0 == input.arguments.x",
        "deny contains r if some r in [lower(v) | some v in [input.arguments.x]]",
        "deny if { every v in [input.arguments.x] { lower(v) == \"b\" } }",
        "small(v) := lower(v)\ndeny if small(input.arguments.x) == \"a\"",
        "small := lower(input.arguments.x)\ndeny if small == \"a\"",
        "deny := \"a\" if input.arguments\ndeny := \"b\" if input.tool",
        "deny[k] := v if { some k in [\"a\"]; some v in [1, 2] }",
        "deny if { helper }\nhelper := 1 if input.arguments\nhelper := 2 if input.tool",
        "obligations[k] := v if { some k in [\"row_cap\"]; some v in [1, 2] }",
    ] {
        let policy = Written::rules(&format!("{ALLOW}{rules}")).load().unwrap();
        let answer = policy.authorize(question(tool(|_| {}), json!({"x": {"not": "text"}})));
        assert!(matches!(answer, Err(PolicyError::Evaluation(_))), "{rules}: {answer:?}");
        assert!(policy.engine().contains("interpreted"), "{rules}");
    }
}

#[test]
fn an_error_leaves_the_policy_as_good_as_before() {
    let policy = Written::rules("allow := true\ndeny if to_number(input.arguments.x) > 3").load().unwrap();
    let allowed = |x| policy.authorize(question(tool(|_| {}), json!({"x": x}))).map(|(decision, _)| decision.allow);
    for _ in 0..3 {
        assert!(allowed("1").unwrap());
        assert!(allowed("one").is_err());
        assert!(!allowed("4").unwrap());
    }
}

const SLOW: &str = r#"{"n": ["#;

fn slow(rules: &str) -> Written {
    let numbers: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    Written::rules(rules).file("data.json", &format!("{SLOW}{}]}}", numbers.join(",")))
}

fn ends_in_time(policy: &Policy) {
    let started = Instant::now();
    let answer = policy.authorize(question(tool(|_| {}), json!({})));
    assert!(matches!(answer, Err(PolicyError::TimeLimit(_))), "{}: {answer:?}", policy.engine());
    assert!(started.elapsed() < Duration::from_secs(2), "{}: {:?}", policy.engine(), started.elapsed());
}

#[test]
fn the_time_limit_ends_every_engine() {
    let limit = Duration::from_millis(50);
    let compiled = slow("allow if { some a in data.n; some b in data.n; some c in data.n; a == b; b == c; a == -1 }");
    let policy = compiled.load_within(limit);
    assert!(policy.engine().contains("bytecode"), "{:?}", policy.notes());
    ends_in_time(&policy);
    let interpreted = slow("allow if { some a in data.n; some b in data.n; some c in data.n; a + b + c == -1 }");
    let policy = interpreted.load_within(limit);
    assert!(policy.engine().contains("interpreted"));
    ends_in_time(&policy);
    if let Some(built) = interpreted.bundle("agent/authz") {
        let settings = PolicySettings { time_limit: limit, ..PolicySettings::default() };
        ends_in_time(&Policy::load(&built.path(), None, &settings).unwrap());
    }
}

#[test]
fn what_does_not_belong_is_refused_with_its_place() {
    for (rules, place, word) in [
        ("allow if {\n  input.x ==\n}", "authz.rego:4", "expecting"),
        ("\nallow if y == 1", "authz.rego:3", "unsafe"),
        ("allow if http.send({})", "authz.rego:2", "http.send"),
        ("allow if rand.intn(\"x\", 2) == 1", "authz.rego:2", "chance"),
        ("allow if opa.runtime().env", "authz.rego:2", "opa.runtime"),
        ("allow if net.lookup_ip_addr(\"x\")", "authz.rego:2", "net.lookup_ip_addr"),
        ("allow if wishful(1)", "authz.rego:2", "wishful"),
    ] {
        let error = Written::rules(rules).load().unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(word), "{rules}: {error}");
    }
}

#[test]
fn every_problem_is_named_at_once() {
    let written =
        Written::new().file("a.rego", "package agent.authz\nallow if {").file("b.rego", "package agent.authz\nallow if ==");
    assert_eq!(written.load().unwrap_err().problems.len(), 2);
    let written = Written::rules("allow if http.send({})").file("b.rego", "package agent.authz\nallow if ==");
    assert_eq!(written.load().unwrap_err().problems.len(), 2);
    let written = Written::rules("allow if http.send({})\ndeny if wishful(1)");
    assert_eq!(written.load().unwrap_err().problems.len(), 2);
}

#[test]
fn the_package_has_to_be_there_and_its_own() {
    let error = Written::new().file("a.rego", "package other.place\nallow := true").load().unwrap_err().to_string();
    assert!(error.contains("agent.authz") && error.contains("other.place"), "{error}");
    let data = Written::rules(ALLOW).file("data.json", r#"{"agent": {"authz": {"deny": false}}}"#);
    assert!(data.load().unwrap_err().to_string().contains("data gives a document"));
    let ours = Written::rules(ALLOW).file("b.rego", "package mayfly.question\ndecision := 1");
    assert!(ours.load().unwrap_err().to_string().contains("mayfly.question"));
    let missing = Policy::load("/nowhere/at/all".as_ref(), None, &PolicySettings::default()).unwrap_err();
    assert!(missing.not_found);
    assert!(Written::new().load().unwrap_err().to_string().contains("neither"));
}

#[test]
fn both_dialects_decide() {
    for rules in [
        "import future.keywords.if\nimport future.keywords.in\nallow if { input.action in {\"get\"} }",
        "default allow = false\nallow { input.action == \"get\" }\ndeny[reason] { input.resource == \"secret\"; reason := \"no\" }",
        "import rego.v1\nallow if input.action == \"get\"",
    ] {
        assert!(matches!(verdict(rules).1, Verdict::Permitted(_)), "{rules}");
    }
    let (decision, denied) = verdict("allow { true }\ndeny[reason] { input.resource == \"thing\"; reason := \"no\" }");
    assert!(matches!(denied, Verdict::Denied) && decision.reasons == ["no"]);
}

#[test]
fn rules_in_parts_and_bare_defaults_are_not_overlooked() {
    assert!(matches!(verdict("allow := true\ndefault deny := true").1, Verdict::Denied));
    assert!(matches!(verdict("allow := true\ndeny.always := true").1, Verdict::Denied));
    assert!(matches!(verdict("allow := true\ndefault approval := true").1, Verdict::ApprovalDemanded));
    let below = Written::rules(ALLOW).file("deny.rego", "package agent.authz.deny\nalways := true").load().unwrap();
    assert!(matches!(below.authorize(question(tool(|_| {}), json!({}))).unwrap().1, Verdict::Denied));
}

#[test]
fn a_bundle_that_would_lose_deny_is_refused() {
    let written = Written::rules("default allow := false\nallow if input.tool == \"look\"\ndeny if input.resource == \"thing\"");
    let Some(only_allow) = written.bundle("agent/authz/allow") else { return };
    let error = only_allow.load().unwrap_err().to_string();
    assert!(error.contains("agent/authz/allow") && error.contains("-e agent/authz"), "{error}");
    let whole = written.bundle("agent/authz").unwrap().load().unwrap();
    assert!(matches!(whole.authorize(question(tool(|_| {}), json!({}))).unwrap().1, Verdict::Denied));
}

#[test]
fn a_bundle_names_what_it_must_not_and_what_it_cannot() {
    let Some(dice) = Written::rules("allow if rand.intn(\"x\", 2) == 1").bundle("agent/authz") else { return };
    assert!(dice.load().unwrap_err().to_string().contains("rand.intn"));
    let env = Written::rules("allow if opa.runtime().env.X == \"1\"").bundle("agent/authz").unwrap();
    assert!(env.load().unwrap_err().to_string().contains("opa.runtime"));
    let fragile =
        Written::rules("allow := true\ndeny if to_number(input.arguments.x) > 3").bundle("agent/authz").unwrap().load().unwrap();
    let notes: Vec<String> = fragile.notes().iter().map(ToString::to_string).collect();
    assert!(notes.len() == 1 && notes[0].contains("authz.rego:") && notes[0].contains("to_number"), "{notes:?}");
}

#[test]
fn a_broken_bundle_is_refused() {
    for (name, bytes) in [("policy.wasm", &b"no"[..]), ("policy.wasm", b"\0asm\x01\0\0\0")] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        let error = Policy::load(folder.path(), None, &PolicySettings::default()).unwrap_err().to_string();
        assert!(error.contains("policy.wasm"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar.gz");
    std::fs::write(&path, "not gzip").unwrap();
    assert!(Policy::load(&path, None, &PolicySettings::default()).unwrap_err().to_string().contains("opa build"));
}

#[test]
fn visible_tools_come_from_one_question() {
    let caller = Caller::fixture("ada-bot");
    let now = datetime!(2027-03-01 14:05:00 UTC);
    for (rules, shown) in [
        ("other := 1", 2),
        ("visible contains \"a\" if input.agent_id == \"ada-bot\"", 1),
        ("visible := true", 2),
        ("visible := false", 0),
        ("visible contains lower(input.agent_id + 1)", 0),
    ] {
        let written = Written::rules(&format!("{ALLOW}{rules}"));
        assert_eq!(written.load().unwrap().visible(&caller, now, ["a", "b"]).len(), shown, "{rules}");
    }
    if let Some(built) =
        Written::rules("allow := true\nvisible contains \"a\" if input.agent_id == \"ada-bot\"").bundle("agent/authz")
    {
        assert_eq!(built.load().unwrap().visible(&caller, now, ["a", "b"]).len(), 1);
    }
}

#[test]
fn eval_names_the_rules_that_fired() {
    let policy = Written::rules(
        "default allow := false\nallow if input.a == 1\nallow if {\n  input.a == 2\n}\ndeny contains \"x\" if input.b\ndeny contains \"y\" if input.c",
    )
    .load()
    .unwrap();
    let explained = policy.explain(json!({"a": 2, "c": true})).unwrap();
    assert_eq!(explained.fired.unwrap(), ["authz.rego:4: allow", "authz.rego:8: deny"]);
    assert_eq!((explained.allow, explained.deny, explained.reasons), (false, true, vec!["y".to_owned()]));
    assert_eq!(policy.explain(json!({})).unwrap().fired.unwrap(), Vec::<String>::new());
}

#[test]
fn many_tasks_ask_at_once() {
    let policy =
        Written::rules("allow if input.arguments.n == data.n[_]").file("data.json", r#"{"n": [0, 2, 4, 6]}"#).load().unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let policy = &policy;
            scope.spawn(move || {
                for _ in 0..200 {
                    let (decision, _) = policy.authorize(question(tool(|_| {}), json!({"n": n}))).unwrap();
                    assert_eq!(decision.allow, n % 2 == 0);
                }
            });
        }
    });
}

/// `cargo test --release -- --ignored --nocapture decision_speed` prints what a decision costs.
#[test]
#[ignore = "measures, and means something in release builds only"]
fn decision_speed() {
    for grants in [200, 10_000] {
        let tools: serde_json::Map<String, serde_json::Value> =
            (0..10).map(|n| (format!("tool{n}"), json!({}))).chain([("look".to_owned(), json!({}))]).collect();
        let agents: serde_json::Map<String, serde_json::Value> =
            (0..grants / 10).map(|n| (format!("agent{n}"), json!(tools))).chain([("ada-bot".to_owned(), json!(tools))]).collect();
        let data = Written::new().file("data.json", &json!({"grants": agents}).to_string());
        let path = super::fixtures::policies().join("default");
        let policy = Policy::load(&path, Some(&data.path().join("data.json")), &PolicySettings::default()).unwrap();
        let tool = tool(|_| {});
        let mut times: Vec<Duration> = (0..20_000)
            .map(|_| {
                let question = question(Arc::clone(&tool), json!({"query": ".", "document": {"kind": "Pod"}}));
                let started = Instant::now();
                let answer = policy.authorize(question).unwrap();
                let elapsed = started.elapsed();
                assert!(matches!(answer.1, Verdict::Permitted(_)));
                elapsed
            })
            .collect();
        times.sort();
        println!("{grants} grants on {}: p50 {:?}, p99 {:?}", policy.engine(), times[10_000], times[19_800]);
    }
}
