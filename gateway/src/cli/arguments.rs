//! Arguments of a tool as people type them: `--arg k=v`, `--arg k:=JSON`, or all of them as `--args-json`.

use serde_json::{Map, Value};

/// How the arguments of a call are given on the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ArgumentFlags {
    /// An argument: NAME=VALUE takes its type from the tool's schema, NAME:=JSON is taken as it stands. Repeat for more.
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    pub arg: Vec<String>,
    /// All arguments as one JSON object; `-` reads it from standard input.
    #[arg(long, value_name = "JSON", conflicts_with = "arg")]
    pub args_json: Option<String>,
}

impl ArgumentFlags {
    /// The arguments, not yet validated. `input_schema` is the tool's.
    ///
    /// # Errors
    /// A sentence that names the flag and says what is accepted.
    pub fn read(&self, input_schema: &Value) -> Result<Map<String, Value>, String> {
        match self.args_json.as_deref() {
            Some("-") => {
                let text = std::io::read_to_string(std::io::stdin()).map_err(|error| format!("--args-json -: {error}"))?;
                object(&text)
            }
            Some(text) => object(text),
            None => self.arg.iter().try_fold(Map::new(), |mut arguments, flag| {
                let (name, value) = one(flag, input_schema)?;
                if arguments.insert(name.clone(), value).is_some() {
                    return Err(format!("--arg {name}: is there twice; a list is written {name}:=[...]"));
                }
                Ok(arguments)
            }),
        }
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("--args-json: {error}; write a JSON object, such as '{{\"name\": \"value\"}}'"))
}

fn one(flag: &str, input_schema: &Value) -> Result<(String, Value), String> {
    let (name, text) = flag.split_once('=').ok_or_else(|| format!("--arg {flag}: write NAME=VALUE, or NAME:=JSON"))?;
    if let Some(name) = name.strip_suffix(':') {
        let value = serde_json::from_str(text).map_err(|error| format!("--arg {name}: {error}; after := stands JSON"))?;
        return Ok((name.to_owned(), value));
    }
    let types = types(input_schema.get("properties").and_then(|properties| properties.get(name)));
    // A text always fits where text may stand; elsewhere the value is what it reads as. What does not fit, validation names.
    if types.is_empty() || types.contains(&"string") {
        return Ok((name.to_owned(), text.into()));
    }
    let read = serde_json::from_str(text)
        .map_err(|_| format!("--arg {name}: the tool wants {}, and `{text}` is none", types.join(" or ")))?;
    Ok((name.to_owned(), read))
}

/// The types that a schema names itself.
fn types(schema: Option<&Value>) -> Vec<&str> {
    match schema.and_then(|schema| schema.get("type")) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(arg: &[&str]) -> Result<Value, String> {
        let schema = json!({"properties": {"text": {"type": "string"}, "number": {"type": "integer"}, "flag": {"type": "boolean"},
            "list": {"type": "array"}, "either": {"type": ["integer", "string"]}, "any": {}}});
        let flags = ArgumentFlags { arg: arg.iter().map(ToString::to_string).collect(), args_json: None };
        flags.read(&schema).map(Value::Object)
    }

    #[test]
    fn the_schema_gives_the_type_and_a_colon_forces_it() {
        let typed = read(&["text=7", "number=7", "flag=true", "list=[1]", "either=7", "any=7", "other:=7", "empty="]).unwrap();
        let wanted =
            json!({"text": "7", "number": 7, "flag": true, "list": [1], "either": "7", "any": "7", "other": 7, "empty": ""});
        assert_eq!(typed, wanted);
        assert_eq!(read(&["text=a=b"]).unwrap(), json!({"text": "a=b"}));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert!(read(&["number=seven"]).unwrap_err().contains("--arg number: the tool wants integer"));
        assert!(read(&["x:=seven"]).unwrap_err().contains("JSON"));
        assert!(read(&["alone"]).unwrap_err().contains("NAME=VALUE"));
        assert!(read(&["text=1", "text=2"]).unwrap_err().contains("twice"));
        let flags = |json: &str| ArgumentFlags { arg: vec![], args_json: Some(json.into()) };
        assert!(flags("[1]").read(&json!({})).unwrap_err().contains("JSON object"));
        assert_eq!(flags("{\"a\": 1}").read(&json!({})).unwrap(), json!({"a": 1}).as_object().unwrap().clone());
    }
}
