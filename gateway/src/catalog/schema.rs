//! Reading JSON Schemas: which subschemas speak of one value, and what they promise about it.
//!
//! Only what the check lets through is read here: references are `#/$defs/NAME`, and none leads back to itself without
//! going into the value. Nothing in this folder compiles or validates; the `jsonschema` crate does.

mod close;
mod defaults;
mod redact;

use serde_json::Value;

use crate::document::tokens;

pub(super) use close::closed;
pub(super) use defaults::{Overfull, fill};
pub use redact::REDACTED;
pub(super) use redact::redacted;

/// Keywords with a list of subschemas for the same value.
pub(super) const SAME_VALUE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords with one subschema for the same value.
pub(super) const SAME_VALUE: [&str; 4] = ["if", "then", "else", "not"];
/// Keywords with one subschema for a part of the value.
pub(super) const PART: [&str; 6] =
    ["items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "contains", "propertyNames"];
/// Keywords with subschemas by name.
pub(super) const NAMED: [&str; 4] = ["properties", "patternProperties", "dependentSchemas", "$defs"];

/// Where a subschema's `$ref` leads.
pub(super) fn target<'a>(root: &'a Value, node: &Value) -> Option<&'a Value> {
    let name = node.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
    root.get("$defs")?.get(tokens(&format!("/{name}"))?.first()?)
}

/// The subschemas that a value of `node` satisfies for certain: itself, what it refers to, its `allOf`.
pub(super) fn certain<'a>(root: &'a Value, node: &'a Value) -> Vec<&'a Value> {
    gather(root, node, &["allOf"], &[])
}

/// The subschemas that may have a say in a value of `node`: the certain ones and every alternative.
pub(super) fn possible<'a>(root: &'a Value, node: &'a Value) -> Vec<&'a Value> {
    gather(root, node, &SAME_VALUE_LISTS, &["if", "then", "else"])
}

fn gather<'a>(root: &'a Value, node: &'a Value, lists: &[&str], singles: &[&str]) -> Vec<&'a Value> {
    let mut found: Vec<&Value> = Vec::new();
    let mut next = vec![node];
    while let Some(schema) = next.pop() {
        // By identity: each place in the schema once, however many references lead to it.
        if found.iter().any(|f| std::ptr::eq(*f, schema)) {
            continue;
        }
        found.push(schema);
        next.extend(target(root, schema));
        next.extend(lists.iter().filter_map(|k| schema.get(k)?.as_array()).flatten());
        next.extend(singles.iter().filter_map(|k| schema.get(k)));
        if !singles.is_empty() {
            next.extend(schema.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(|m| m.values()));
        }
    }
    found
}

/// What a schema says about the value at one JSON Pointer.
#[derive(Debug)]
pub(super) struct Promise<'a> {
    /// Every subschema that the value there satisfies for certain.
    pub(super) certain: Vec<&'a Value>,
    /// Every subschema that may have a say in it.
    possible: Vec<&'a Value>,
    /// Whether there is always a value: each step is required or has a default.
    pub(super) always: bool,
}

/// A type that one value can be compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `string`.
    Text,
    /// `integer` or `number`.
    Number,
    /// `boolean`.
    Flag,
}

impl<'a> Promise<'a> {
    /// Follows `pointer` through `properties`. `None`: the schema does not describe such an argument.
    pub(super) fn of(root: &'a Value, pointer: &str) -> Option<Self> {
        let mut here = Self { certain: certain(root, root), possible: possible(root, root), always: true };
        let tokens = tokens(pointer).filter(|t| !t.is_empty())?;
        for token in tokens {
            let step = |schemas: &[&'a Value]| -> Vec<&'a Value> {
                schemas.iter().filter_map(|s| s.get("properties")?.get(&token)).collect()
            };
            let nodes = step(&here.certain);
            if nodes.is_empty() {
                return None;
            }
            let certain: Vec<&Value> = nodes.iter().flat_map(|n| certain(root, n)).collect();
            let required =
                here.certain.iter().filter_map(|s| s.get("required")?.as_array()).flatten().any(|r| r == token.as_str());
            let always = here.always && (required || certain.iter().any(|c| c.get("default").is_some()));
            let possible = step(&here.possible).into_iter().flat_map(|n| possible(root, n)).collect();
            here = Self { certain, possible, always };
        }
        Some(here)
    }

    /// The enumerated values, when there is such a list.
    pub(super) fn options(&self) -> Option<Vec<&'a Value>> {
        self.certain.iter().find_map(|s| match (s.get("enum"), s.get("const")) {
            (Some(options), _) => Some(options.as_array()?.iter().collect()),
            (None, Some(one)) => Some(vec![one]),
            _ => None,
        })
    }

    /// The one scalar type every value has, by `type` or by enumeration; never null.
    pub(super) fn scalar(&self) -> Option<Scalar> {
        let declared = self.certain.iter().find_map(|s| match s.get("type")? {
            Value::String(name) => scalar_named(name),
            Value::Array(names) if names.len() == 1 => scalar_named(names[0].as_str()?),
            _ => None,
        });
        declared.or_else(|| {
            let options = self.options()?;
            let first = scalar_of(options.first()?)?;
            options.iter().all(|o| scalar_of(o) == Some(first)).then_some(first)
        })
    }

    /// Whether comparisons of the value have an end: enumerated, both bounds, a longest length, or a pattern of the whole.
    pub(super) fn bounded(&self, scalar: Scalar) -> bool {
        let has = |keys: &[&str]| self.certain.iter().any(|s| keys.iter().any(|k| s.get(k).is_some()));
        self.options().is_some()
            || match scalar {
                Scalar::Flag => true,
                Scalar::Number => has(&["minimum", "exclusiveMinimum"]) && has(&["maximum", "exclusiveMaximum"]),
                Scalar::Text => {
                    has(&["maxLength"]) || self.certain.iter().filter_map(|s| s.get("pattern")?.as_str()).any(anchored)
                }
            }
    }

    /// Whether any subschema marks it as not to be shown.
    pub(super) fn write_only(&self) -> bool {
        self.certain.iter().chain(&self.possible).any(|s| s.get("writeOnly") == Some(&Value::Bool(true)))
    }
}

fn scalar_named(name: &str) -> Option<Scalar> {
    match name {
        "string" => Some(Scalar::Text),
        "integer" | "number" => Some(Scalar::Number),
        "boolean" => Some(Scalar::Flag),
        _ => None,
    }
}

const fn scalar_of(value: &Value) -> Option<Scalar> {
    match value {
        Value::String(_) => Some(Scalar::Text),
        Value::Number(_) => Some(Scalar::Number),
        Value::Bool(_) => Some(Scalar::Flag),
        _ => None,
    }
}

/// Whether a pattern speaks of the whole text: every match begins at its start and ends at its end.
fn anchored(pattern: &str) -> bool {
    use regex_syntax::hir::Look;
    regex_syntax::parse(pattern).is_ok_and(|hir| {
        hir.properties().look_set_prefix().contains(Look::Start) && hir.properties().look_set_suffix().contains(Look::End)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scalar(schema: Value) -> Option<Scalar> {
        let root = json!({"properties": {"x": schema}});
        Promise::of(&root, "/x").unwrap().scalar()
    }

    #[test]
    fn a_pointer_is_followed_through_references_and_all_of() {
        let root = json!({
            "required": ["spec"],
            "properties": {"spec": {"$ref": "#/$defs/spec"}},
            "$defs": {"spec": {"allOf": [{"properties": {"n": {"type": "integer", "default": 1, "minimum": 0}}}, {"properties": {"n": {"maximum": 9}}}]}},
        });
        let promise = Promise::of(&root, "/spec/n").unwrap();
        assert!(promise.always && promise.scalar() == Some(Scalar::Number) && promise.bounded(Scalar::Number));
        assert!(Promise::of(&root, "/spec/m").is_none());
        assert!(Promise::of(&root, "").is_none());
    }

    #[test]
    fn what_only_an_alternative_says_is_not_promised() {
        let root = json!({"anyOf": [{"properties": {"x": {"type": "string"}}, "required": ["x"]}, {}]});
        assert!(Promise::of(&root, "/x").is_none());
        let root = json!({"properties": {"a": {"properties": {"x": {"default": 1}}}}});
        assert!(!Promise::of(&root, "/a/x").unwrap().always, "its parent may be missing");
    }

    #[test]
    fn one_scalar_type_and_never_null() {
        assert_eq!(scalar(json!({"type": "integer"})), Some(Scalar::Number));
        assert_eq!(scalar(json!({"type": ["string"]})), Some(Scalar::Text));
        assert_eq!(scalar(json!({"enum": ["a", "b"]})), Some(Scalar::Text));
        for wrong in [
            json!({"type": ["string", "null"]}),
            json!({"type": "object"}),
            json!({"enum": ["a", null]}),
            json!({"enum": [1, "a"]}),
            json!({}),
        ] {
            assert_eq!(scalar(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn a_pattern_bounds_only_if_it_is_about_the_whole_text() {
        for pattern in ["^[a-z]{1,9}$", "^(a|b)$", "^a$|^b$"] {
            assert!(anchored(pattern), "{pattern}");
        }
        for pattern in ["a", "^a", "a$", "^a|b$", "(?m)^a$", "(["] {
            assert!(!anchored(pattern), "{pattern}");
        }
    }
}
