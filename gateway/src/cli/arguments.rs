//! Arguments on the command line: `k=v` takes its type from the tool's schema, `k:=JSON` says it itself.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::{Exit, Failure};
use crate::http::strict;

/// One `--arg`.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// `name=text`: what type the text has, the schema knows.
    Text(String, String),
    /// `name:=JSON`.
    Json(String, Value),
}

impl Argument {
    fn name(&self) -> &str {
        match self {
            Self::Text(name, _) | Self::Json(name, _) => name,
        }
    }
}

impl FromStr for Argument {
    type Err = String;

    fn from_str(argument: &str) -> Result<Self, String> {
        let wrong = || "write name=value, or name:=JSON".to_owned();
        let (name, value) = argument.split_once('=').ok_or_else(wrong)?;
        match name.strip_suffix(':') {
            Some("") => Err(wrong()),
            Some(name) => match strict::parse(value.as_bytes()) {
                Ok(value) => Ok(Self::Json(name.to_owned(), value)),
                Err(malformed) => Err(format!("the value of `{name}` is {malformed}")),
            },
            None if name.is_empty() => Err(wrong()),
            None => Ok(Self::Text(name.to_owned(), value.to_owned())),
        }
    }
}

/// Adds `given` to `arguments`. `schema` is the tool's input schema; it is needed where a [`Argument::Text`] is given.
///
/// # Errors
/// When a name is given twice, or a text does not fit its type.
pub fn merge(mut arguments: Map<String, Value>, given: Vec<Argument>, schema: &Value) -> Result<Map<String, Value>, Failure> {
    for argument in given {
        if arguments.contains_key(argument.name()) {
            return Err(Failure::new(Exit::Usage, format!("the argument `{}` is given twice", argument.name())));
        }
        let (name, value) = match argument {
            Argument::Json(name, value) => (name, value),
            Argument::Text(name, text) => {
                let value = typed(&name, text, schema).map_err(|message| Failure::new(Exit::Invalid, message))?;
                (name, value)
            }
        };
        arguments.insert(name, value);
    }
    Ok(arguments)
}

/// What `text` means for the property `name`. A property that the schema does not know stays text: the gateway will say what it
/// thinks of it.
fn typed(name: &str, text: String, schema: &Value) -> Result<Value, String> {
    let Some(property) = schema.get("properties").and_then(|properties| properties.get(name)) else {
        return Ok(Value::String(text));
    };
    let property = resolve(property, schema);
    let types: Vec<&str> = match property.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => return untyped(name, text, property),
    };
    if types.contains(&"string") {
        return Ok(Value::String(text));
    }
    let value = strict::parse(text.as_bytes()).ok().filter(|value| types.iter().any(|wanted| is_of_type(value, wanted)));
    value.ok_or_else(|| format!("`{name}` must be of type {}", types.join(" or ")))
}

/// Without a type, the listed values tell; without those, only the caller can.
fn untyped(name: &str, text: String, property: &Value) -> Result<Value, String> {
    let listed =
        property.get("enum").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice).iter().chain(property.get("const"));
    let values: Vec<&Value> = listed.collect();
    let is_meant = |value: &&&Value| value.as_str().map_or_else(|| value.to_string() == text, |listed| listed == text);
    match values.iter().find(is_meant) {
        Some(value) => Ok((**value).clone()),
        None if !values.is_empty() => Err(format!("`{name}` must be one of {}", Value::from_iter(values.into_iter().cloned()))),
        None if property
            .as_object()
            .is_some_and(|property| ["anyOf", "oneOf", "allOf"].iter().any(|key| property.contains_key(*key))) =>
        {
            Err(format!("`{name}` may have several types; say which with `--arg '{name}:=JSON'`"))
        }
        None => Ok(Value::String(text)),
    }
}

/// Follows local references, a few times at most.
fn resolve<'a>(mut property: &'a Value, schema: &'a Value) -> &'a Value {
    for _ in 0..8 {
        let reference = property.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
        match reference.and_then(|pointer| schema.pointer(pointer)) {
            Some(target) => property = target,
            None => break,
        }
    }
    property
}

fn is_of_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"properties": {
            "name": {"type": "string"}, "replicas": {"type": "integer"}, "ratio": {"type": "number"}, "dry": {"type": "boolean"},
            "list": {"type": "array"}, "maybe": {"type": ["integer", "null"]}, "loose": {"type": ["string", "integer"]},
            "level": {"enum": ["low", 2, true]}, "ref": {"$ref": "#/$defs/port"}, "loop": {"$ref": "#/properties/loop"},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "open": {},
        }, "$defs": {"port": {"type": "integer"}}})
    }

    fn merged(given: &[&str]) -> Result<Value, Failure> {
        let given = given.iter().map(|argument| argument.parse().unwrap()).collect();
        merge(Map::new(), given, &schema()).map(Value::Object)
    }

    #[test]
    fn the_schema_gives_the_type() {
        assert_eq!(
            merged(&[
                "name=5",
                "replicas=3",
                "ratio=0.5",
                "dry=true",
                "list=[1,2]",
                "maybe=null",
                "loose=7",
                "level=2",
                "ref=443",
                "open=1",
                "unknown=1",
                "loop=x",
            ]),
            Ok(json!({
                "name": "5", "replicas": 3, "ratio": 0.5, "dry": true, "list": [1, 2], "maybe": null, "loose": "7", "level": 2, "ref": 443,
                "open": "1", "unknown": "1", "loop": "x",
            }))
        );
        assert_eq!(merged(&["name=", "open=a=b:=c"]), Ok(json!({"name": "", "open": "a=b:=c"})));
    }

    #[test]
    fn json_is_taken_as_it_is() {
        assert_eq!(merged(&["name:=5", "open:={\"a\": [1]}"]), Ok(json!({"name": 5, "open": {"a": [1]}})));
    }

    #[test]
    fn a_text_that_does_not_fit_is_told_so() {
        for (given, told) in [
            ("replicas=three", "must be of type integer"),
            ("replicas=1.5", "must be of type integer"),
            ("dry=yes", "must be of type boolean"),
            ("maybe=x", "integer or null"),
            ("level=high", "must be one of [\"low\",2,true]"),
            ("either=5", "either:=JSON"),
            ("list={\"a\":1,\"a\":2}", "must be of type array"),
        ] {
            let failure = merged(&[given]).unwrap_err();
            assert!(failure.exit == Exit::Invalid && failure.message.contains(told), "{given}: {failure}");
        }
        assert_eq!(merged(&["name=a", "name:=1"]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_is_no_argument_is_refused() {
        for wrong in ["", "name", "=x", ":=1", "n:=", "n:={", "n:={\"a\":1,\"a\":1}"] {
            assert!(wrong.parse::<Argument>().is_err(), "{wrong:?}");
        }
    }
}
