//! The copy of a value that may be shown: what the schema marks `writeOnly` is not in it.

use serde_json::Value;

use super::possible;

/// Stands where a `writeOnly` value was.
/// What stands in place of a value that must not be shown.
pub const REDACTED: &str = "[redacted]";

/// `value` without anything that any subschema which may apply marks `writeOnly`. Rather too much than too little.
pub(in crate::catalog) fn redacted(root: &Value, value: &Value) -> Value {
    redact(root, &possible(root, root), value)
}

fn redact(root: &Value, schemas: &[&Value], value: &Value) -> Value {
    if schemas.iter().any(|s| s.get("writeOnly") == Some(&Value::Bool(true))) {
        return Value::String(REDACTED.to_owned());
    }
    match value {
        Value::Object(members) => {
            let shown =
                members.iter().map(|(name, member)| (name.clone(), redact(root, &of_member(root, schemas, name), member)));
            Value::Object(shown.collect())
        }
        Value::Array(items) => Value::Array(
            items.iter().enumerate().map(|(index, item)| redact(root, &of_item(root, schemas, index), item)).collect(),
        ),
        scalar => scalar.clone(),
    }
}

fn of_member<'a>(root: &'a Value, schemas: &[&'a Value], name: &str) -> Vec<&'a Value> {
    let named = schemas.iter().filter_map(|s| s.get("properties")?.get(name));
    // Which pattern fits is not asked: a name that any of them might mean is treated as if it did.
    let patterned = schemas.iter().filter_map(|s| s.get("patternProperties")?.as_object()).flat_map(|p| p.values());
    let others = ["additionalProperties", "unevaluatedProperties"];
    let others = schemas
        .iter()
        .filter(|s| s.get("properties").and_then(|p| p.get(name)).is_none())
        .flat_map(|s| others.iter().filter_map(|k| s.get(k)));
    named.chain(patterned).chain(others).flat_map(|s| possible(root, s)).collect()
}

fn of_item<'a>(root: &'a Value, schemas: &[&'a Value], index: usize) -> Vec<&'a Value> {
    let positional = schemas.iter().filter_map(|s| s.get("prefixItems")?.get(index));
    let general = schemas.iter().flat_map(|s| ["items", "contains", "unevaluatedItems"].iter().filter_map(|k| s.get(k)));
    positional.chain(general).flat_map(|s| possible(root, s)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn write_only_is_found_wherever_it_is_said() {
        let root = json!({
            "properties": {
                "plain": {}, "password": {"writeOnly": true},
                "deep": {"properties": {"token": {"$ref": "#/$defs/secret"}}},
                "list": {"items": {"properties": {"key": {"writeOnly": true}, "id": {}}}},
                "pair": {"prefixItems": [{}, {"writeOnly": true}]},
                "either": {"oneOf": [{"properties": {"kind": {}}}, {"properties": {"pin": {"writeOnly": true}}}]},
                "env": {"additionalProperties": {"writeOnly": true}},
            },
            "if": {}, "then": {"properties": {"conditional": {"writeOnly": true}}},
            "$defs": {"secret": {"type": "string", "writeOnly": true}},
        });
        let value = json!({
            "plain": "shown", "password": {"even": "objects"}, "deep": {"token": "t"}, "list": [{"key": "k", "id": 1}],
            "pair": ["a", "b"], "either": {"kind": 1, "pin": 2}, "env": {"A": "1"}, "conditional": 5,
        });
        assert_eq!(
            redacted(&root, &value),
            json!({
                "plain": "shown", "password": REDACTED, "deep": {"token": REDACTED}, "list": [{"key": REDACTED, "id": 1}],
                "pair": ["a", REDACTED], "either": {"kind": 1, "pin": REDACTED}, "env": {"A": REDACTED}, "conditional": REDACTED,
            })
        );
    }
}
