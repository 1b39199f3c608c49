//! A tool against good and bad arguments.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalog::fixture::{SCALE, object, tool};

fn good() -> Value {
    json!({"namespace": "staging", "name": "api", "desired_replicas": 3})
}

fn refused(value: Value) -> Vec<(String, String)> {
    tool(SCALE).validate(object(value)).unwrap_err().into_iter().map(|v| (v.pointer, v.detail)).collect()
}

#[test]
fn there_is_one_value_with_its_defaults_and_it_is_what_everybody_sees() {
    let tool = tool(SCALE);
    let mut given = good();
    given["desired_replicas"] = json!(3.0);
    given["token_hint"] = json!("hush");
    given["options"] = json!({});
    let arguments = tool.validate(object(given)).unwrap();
    assert_eq!(arguments.value["desired_replicas"].to_string(), "3");
    assert_eq!(arguments.value["options"], json!({"wait": false}));
    assert_eq!(serde_json::from_slice::<Value>(&arguments.bytes).unwrap(), *arguments.value);
    assert_eq!(arguments.redacted["token_hint"], "[redacted]");
    assert!(!format!("{arguments:?}").contains("hush"));
    assert_eq!((tool.action(&arguments), tool.resource(&arguments)), (Ok("scale"), Ok("deployment")));
    assert_eq!(Value::Object(tool.lifted(&arguments).unwrap()), json!({"namespace": "staging", "desired_replicas": 3}));
    assert_eq!(tool.command_line(&arguments).unwrap(), ["kubectl", "scale", "deployment", "api", "-n", "staging"]);
}

#[test]
fn what_would_slip_through_a_comparison_is_refused() {
    for (key, value) in [
        ("desired_replicas", json!(null)),
        ("desired_replicas", json!(-5)),
        ("desired_replicas", json!("3")),
        ("desired_replicas", json!(1e300)),
        ("desired_replicas", json!(0.5)),
        ("namespace", json!(null)),
        ("namespace", json!(["production"])),
        ("kind", json!("Deployment")),
        ("kind", json!(null)),
    ] {
        let mut given = good();
        given[key] = value;
        assert_eq!(refused(given.clone()).iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(), [format!("/{key}")], "{given}");
    }
    assert_eq!(refused(json!({"namespace": "a", "name": "b"})), [("/desired_replicas".to_owned(), "is required".to_owned())]);
}

#[test]
fn a_tool_without_arguments_says_so() {
    let schema = jsonschema::validator_for(&json!({"type": "object", "additionalProperties": false})).unwrap();
    let given = json!({"x": 1});
    let told: Vec<_> = schema.iter_errors(&given).flat_map(|error| violations(&error)).collect();
    assert_eq!((told.len(), told[0].detail.as_str()), (1, "must have no members: the input schema describes none"));
}

#[test]
fn violations_point_and_never_repeat_a_value() {
    let given = json!({"namespace": "SECRET".repeat(20), "name": "SECRET", "desired_replicas": "SECRET", "x/y": "SECRET", "options": {"z": "SECRET"}});
    let found = refused(given);
    let pointers: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
    for pointer in ["/namespace", "/name", "/desired_replicas", "/x~1y", "/options/z"] {
        assert!(pointers.contains(&pointer), "{pointer} in {pointers:?}");
    }
    assert!(!format!("{found:?}").contains("SECRET"), "{found:?}");
}

#[test]
fn there_are_at_most_32_violations_and_names_are_cut() {
    let mut given = object(good());
    for i in 0..100 {
        given.insert(format!("{i}{}", "n".repeat(1000)), json!(1));
    }
    let found = tool(SCALE).validate(given).unwrap_err();
    assert_eq!(found.len(), 32);
    assert!(found.iter().all(|v| v.pointer.len() < 100));
}

#[test]
fn depth_and_length_are_bounded() {
    let open = SCALE.replace("options: {type: object, properties: {wait: {type: boolean, default: false}}}", "options: true");
    let tool = tool(&open);
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let with = |value: Value| {
        let mut given = object(good());
        given.insert("options".to_owned(), value);
        tool.validate(given)
    };
    assert!(with(nested(DEEPEST - 1)).is_ok());
    assert!(with(nested(DEEPEST)).unwrap_err()[0].detail.contains("nested"));
    assert!(with(nested(1000)).is_err());
    assert!(with(json!("x".repeat(ARGUMENTS_MOST))).unwrap_err()[0].detail.contains("longer"));
}

#[test]
fn a_result_is_held_to_its_schema() {
    let tool = tool(SCALE);
    assert_eq!(tool.check_output(&json!({"replicas": 3})), Ok(()));
    let wrong = tool.check_output(&json!({"secret": "SECRET"})).unwrap_err();
    assert!(wrong.contains("/replicas") && !wrong.contains("SECRET"), "{wrong}");
    assert!(tool.check_output(&(0..100).fold(json!(1), |inner, _| json!([inner]))).unwrap_err().contains("nested"));
}

#[test]
fn the_spec_holds_the_ceilings_and_lives_longer_than_the_call() {
    assert!(tool(SCALE).spec.unwrap_err().0.contains("mayfly tool build"));
    let pinned = SCALE.replace("scale:dev", &format!("scale@sha256:{}", "a".repeat(64)));
    let tool = tool(&pinned);
    let spec = tool.spec.unwrap();
    assert_eq!(spec.life, Duration::from_secs(120));
    assert_eq!(
        (spec.memory, spec.cpu_millis, spec.pids, spec.scratch),
        (ByteSize::mebibytes(64), 1000, 64, ByteSize::mebibytes(16))
    );
}

#[test]
fn the_digest_follows_the_definition_and_the_artefact() {
    let pinned = |c: &str| tool(&SCALE.replace("scale:dev", &format!("scale@sha256:{}", c.repeat(64)))).digest;
    assert_eq!(pinned("a"), pinned("a"));
    assert_ne!(pinned("a"), pinned("b"));
    assert_ne!(tool(SCALE).digest, tool(&SCALE.replace("maximum: 100", "maximum: 101")).digest);
    let reordered = SCALE.replace("name: k8s_scale\nversion: 1.0.0\n", "version: 1.0.0\nname: k8s_scale\n");
    assert_eq!(tool(SCALE).digest, tool(&reordered).digest);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z/~]{0,9}|namespace|name|kind|options|wait", inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn validate_never_panics_and_never_takes_an_unknown_member(
        extra in prop::collection::btree_map("[a-zA-Z_/~\u{0}]{1,12}|namespace|kind|options", any_json(), 0..5),
    ) {
        let tool = tool(SCALE);
        let mut given = object(good());
        given.extend(extra);
        let known = ["namespace", "name", "kind", "desired_replicas", "token_hint", "options"];
        let has_unknown = given.keys().any(|k| !known.contains(&k.as_str()));
        match tool.validate(given) {
            Ok(arguments) => {
                prop_assert!(!has_unknown);
                let members = object((*arguments.value).clone());
                prop_assert!(members.keys().all(|k| known.contains(&k.as_str())));
                prop_assert!(members.get("options").is_none_or(|o| o.as_object().unwrap().keys().all(|k| k == "wait")));
                let _ = tool.command_line(&arguments);
            }
            Err(violations) => prop_assert!(!violations.is_empty() && violations.len() <= 32),
        }
    }
}
