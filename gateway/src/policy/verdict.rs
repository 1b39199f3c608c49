//! Reads what an engine answered. The one place where a document becomes a yes.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::decision::{Decision, Obligations};

/// Most reasons in a decision.
const MOST_REASONS: usize = 16;
/// Most characters of one reason.
const LONGEST_REASON: usize = 512;

/// The rules of a package that make a decision. `None` is undefined.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) allow: Option<Value>,
    pub(super) deny: Option<Value>,
    pub(super) approval: Option<Value>,
    pub(super) obligations: Option<Value>,
}

impl Answer {
    /// From the document of a whole package.
    pub(super) fn from_package(package: &mut Value) -> Self {
        let mut take = |name| package.as_object_mut().and_then(|rules| rules.remove(name));
        Self { allow: take("allow"), deny: take("deny"), approval: take("approval"), obligations: take("obligations") }
    }

    /// Whether `deny` says anything: undefined, `false` and an empty collection do not, whatever else does.
    pub(super) fn denies(&self) -> bool {
        match &self.deny {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Array(found)) => !found.is_empty(),
            Some(Value::Object(found)) => !found.is_empty(),
            Some(_) => true,
        }
    }

    fn reasons(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        match &self.deny {
            Some(Value::String(reason)) => {
                found.insert(reason.as_str());
            }
            Some(Value::Array(reasons)) => found.extend(reasons.iter().filter_map(Value::as_str)),
            _ => {}
        }
        found.into_iter().take(MOST_REASONS).map(clipped).collect()
    }
}

impl Decision {
    /// Allows only on boolean true with nothing denied. Obligations are read later, against the tool.
    pub(super) fn read(answer: &Answer) -> Self {
        Self {
            id: Uuid::now_v7(),
            allow: answer.allow == Some(Value::Bool(true)) && !answer.denies(),
            reasons: answer.reasons(),
            approval: !matches!(answer.approval, None | Some(Value::Bool(false))),
            obligations: Obligations::default(),
        }
    }
}

/// Which of `tools` the answer of `visible` shows.
pub(super) fn visible<'a>(answer: Option<&Value>, tools: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    match answer {
        None | Some(Value::Bool(true)) => tools.into_iter().collect(),
        Some(Value::Array(names)) => {
            let names: BTreeSet<&str> = names.iter().filter_map(Value::as_str).collect();
            tools.into_iter().filter(|tool| names.contains(tool)).collect()
        }
        Some(_) => BTreeSet::new(),
    }
}

fn clipped(reason: &str) -> String {
    match reason.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(package: Value) -> Decision {
        Decision::read(&Answer::from_package(&mut package.clone()))
    }

    #[test]
    fn only_boolean_true_allows() {
        assert!(read(json!({"allow": true})).allow);
        for no in [json!({}), json!(null), json!([true]), json!({"allow": "true"}), json!({"allow": 1}), json!({"allow": [true]})]
        {
            assert!(!read(no.clone()).allow, "{no}");
        }
    }

    #[test]
    fn deny_wins_unless_it_says_nothing() {
        for nothing in [json!(false), json!([]), json!({})] {
            assert!(read(json!({"allow": true, "deny": nothing})).allow, "{nothing}");
        }
        for something in
            [json!(true), json!(null), json!(0), json!(""), json!("no"), json!(["no"]), json!([false]), json!({"a": 1})]
        {
            assert!(!read(json!({"allow": true, "deny": something})).allow, "{something}");
        }
    }

    #[test]
    fn reasons_are_sorted_clipped_and_few() {
        assert_eq!(read(json!({"deny": ["b", 1, "a", "b"]})).reasons, ["a", "b"]);
        assert_eq!(read(json!({"deny": "only"})).reasons, ["only"]);
        let many: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        assert_eq!(read(json!({"deny": many})).reasons.len(), MOST_REASONS);
        assert_eq!(read(json!({"deny": "ä".repeat(9999)})).reasons[0].chars().count(), LONGEST_REASON + 1);
    }

    #[test]
    fn anything_but_false_demands_approval() {
        for no in [json!({}), json!({"approval": false})] {
            assert!(!read(no).approval);
        }
        for yes in [json!(true), json!(null), json!(0), json!([]), json!("no")] {
            assert!(read(json!({"approval": yes})).approval, "{yes}");
        }
    }

    #[test]
    fn visible_tools_are_those_named() {
        let tools = ["a", "b"];
        assert_eq!(visible(None, tools).len(), 2);
        assert_eq!(visible(Some(&json!(true)), tools).len(), 2);
        assert_eq!(visible(Some(&json!(["b", "c"])), tools), BTreeSet::from(["b"]));
        for hidden in [json!(false), json!(null), json!("a"), json!({"a": true}), json!([])] {
            assert!(visible(Some(&hidden), tools).is_empty(), "{hidden}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{0,4}", inner, 0..3).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn only_true_without_deny_allows(
            allow in prop::option::of(prop_oneof![Just(json!(true)), any_json()]),
            deny in prop::option::of(any_json()),
            other in any_json(),
        ) {
            let mut package = serde_json::Map::new();
            package.insert("other".to_owned(), other.clone());
            if let Some(allow) = &allow { package.insert("allow".to_owned(), allow.clone()); }
            if let Some(deny) = &deny { package.insert("deny".to_owned(), deny.clone()); }
            let silent = [None, Some(json!(false)), Some(json!([])), Some(json!({}))].contains(&deny);
            prop_assert_eq!(read(Value::Object(package)).allow, allow == Some(json!(true)) && silent);
            prop_assert!(!read(other.clone()).allow || other.get("allow") == Some(&json!(true)));
        }
    }
}
