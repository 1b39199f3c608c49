//! Fills in what the caller left out and the schema has a default for.

use serde_json::Value;

use super::certain;

/// The most defaults that are filled into one value.
const MAX_FILLED: usize = 4096;
/// How deep they are filled in.
const MAX_DEPTH: usize = 64;

/// Defaults without end: more than are filled into one value, or deeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::catalog) struct Overfull;

/// Fills defaults into `value`, in every object that is there, and in the defaults themselves. Alternatives
/// (`anyOf`, `oneOf`, `if`) add none: which of them holds is not known yet.
pub(in crate::catalog) fn fill(root: &Value, value: &mut Value) -> Result<(), Overfull> {
    let mut left = MAX_FILLED;
    fill_one(root, &certain(root, root), value, 0, &mut left)
}

fn fill_one(root: &Value, schemas: &[&Value], value: &mut Value, depth: usize, left: &mut usize) -> Result<(), Overfull> {
    if depth > MAX_DEPTH {
        return Err(Overfull);
    }
    match value {
        Value::Object(members) => {
            for (name, property) in schemas.iter().filter_map(|s| s.get("properties")?.as_object()).flatten() {
                let said = certain(root, property);
                if !members.contains_key(name)
                    && let Some(default) = said.iter().find_map(|s| s.get("default"))
                {
                    *left = left.checked_sub(1).ok_or(Overfull)?;
                    members.insert(name.clone(), default.clone());
                }
                if let Some(member) = members.get_mut(name) {
                    fill_one(root, &said, member, depth + 1, left)?;
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let said: Vec<&Value> = schemas
                    .iter()
                    .filter_map(|s| s.get("prefixItems").and_then(|p| p.get(index)).or_else(|| s.get("items")))
                    .collect();
                let said: Vec<&Value> = said.into_iter().flat_map(|s| certain(root, s)).collect();
                fill_one(root, &said, item, depth + 1, left)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_filled_at_every_level_that_is_there() {
        let root = json!({"properties": {
            "a": {"default": {}, "properties": {"b": {"default": 1}}},
            "list": {"items": {"$ref": "#/$defs/item"}},
            "absent": {"properties": {"c": {"default": 3}}},
        }, "$defs": {"item": {"properties": {"d": {"default": "x"}}}}});
        let mut value = json!({"list": [{}, {"d": "y"}]});
        fill(&root, &mut value).unwrap();
        assert_eq!(value, json!({"a": {"b": 1}, "list": [{"d": "x"}, {"d": "y"}]}));
    }

    #[test]
    fn defaults_without_end_are_stopped() {
        let child = json!({"$ref": "#/$defs/n", "default": {}});
        let root = json!({"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"l": child, "r": child}}}});
        assert_eq!(fill(&root, &mut json!({})), Err(Overfull));
    }
}
