//! "An omitted `additionalProperties` means false", applied.

use serde_json::{Map, Value};

use super::SAME_VALUE_LISTS;

/// The schema with every object closed that does not say otherwise. An object that is described in several places
/// (`$ref`, `allOf`, `anyOf`, `if`...) is closed around all of them by `unevaluatedProperties`.
pub(in crate::catalog) fn closed(schema: &Value) -> Value {
    let mut closed = schema.clone();
    close(&mut closed, Level::Whole);
    closed
}

/// Whether a subschema is all that is said of its value.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    /// It is.
    Whole,
    /// It is one of several; whatever holds them is closed.
    Piece,
}

fn close(node: &mut Value, level: Level) {
    let Value::Object(schema) = node else { return };
    for (keyword, value) in schema.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties" | "patternProperties", Value::Object(named)) => named.values_mut().for_each(|s| close(s, Level::Whole)),
            ("dependentSchemas" | "$defs", Value::Object(named)) => named.values_mut().for_each(|s| close(s, Level::Piece)),
            ("items" | "additionalProperties" | "unevaluatedProperties" | "unevaluatedItems", s) => close(s, Level::Whole),
            ("prefixItems", Value::Array(list)) => list.iter_mut().for_each(|s| close(s, Level::Whole)),
            ("then" | "else", s) => close(s, Level::Piece),
            (list, Value::Array(pieces)) if SAME_VALUE_LISTS.contains(&list) => {
                pieces.iter_mut().for_each(|s| close(s, Level::Piece))
            }
            // `if`, `not`, `contains` and `propertyNames` ask a question; closing inside would change the answer.
            _ => {}
        }
    }
    if level == Level::Whole
        && may_be_object(schema)
        && !schema.contains_key("additionalProperties")
        && !schema.contains_key("unevaluatedProperties")
    {
        let keyword = if in_pieces(schema) { "unevaluatedProperties" } else { "additionalProperties" };
        schema.insert(keyword.to_owned(), Value::Bool(false));
    }
}

fn in_pieces(schema: &Map<String, Value>) -> bool {
    ["$ref", "if", "dependentSchemas"].iter().chain(&SAME_VALUE_LISTS).any(|k| schema.contains_key(*k))
}

fn may_be_object(schema: &Map<String, Value>) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name == "object",
        Some(Value::Array(names)) => names.iter().any(|n| n == "object"),
        _ => !schema.contains_key("enum") && !schema.contains_key("const"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn accepts(schema: &Value, value: &Value) -> bool {
        jsonschema::draft202012::new(&closed(schema)).unwrap().is_valid(value)
    }

    #[test]
    fn every_object_level_is_closed() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "object", "properties": {"b": {"type": "string"}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"c": {}}}},
            "ref": {"$ref": "#/$defs/d"},
            "any": {"anyOf": [{"type": "object", "properties": {"e": {"type": "integer"}}}, {"type": "string"}]},
            "untyped": {},
        }, "$defs": {"d": {"type": "object", "properties": {"f": {"type": "integer"}}}}});
        for good in [
            json!({}),
            json!({"a": {"b": "x"}, "list": [{"c": 1}], "ref": {"f": 1}, "any": {"e": 1}, "untyped": 7}),
            json!({"any": "s"}),
        ] {
            assert!(accepts(&schema, &good), "{good}");
        }
        for bad in [
            json!({"z": 1}),
            json!({"a": {"z": 1}}),
            json!({"list": [{"z": 1}]}),
            json!({"list": [{"c": {"z": 1}}]}),
            json!({"ref": {"z": 1}}),
            json!({"any": {"z": 1}}),
            json!({"untyped": {"z": 1}}),
        ] {
            assert!(!accepts(&schema, &bad), "{bad}");
        }
    }

    #[test]
    fn pieces_of_one_object_are_closed_together() {
        let schema = json!({"type": "object", "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"b": {"type": "integer"}}}],
            "$defs": {"base": {"type": "object", "properties": {"a": {"type": "integer"}}}}});
        assert!(accepts(&schema, &json!({"a": 1, "b": 2})));
        assert!(!accepts(&schema, &json!({"a": 1, "c": 2})));
    }

    #[test]
    fn what_is_said_stays_said() {
        let schema = json!({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"any": true, "open": {"type": "object", "additionalProperties": true}}});
        assert!(accepts(&schema, &json!({"label": "x", "any": {"z": 1}, "open": {"z": 1}})));
        assert!(!accepts(&schema, &json!({"label": 1})));
    }
}
