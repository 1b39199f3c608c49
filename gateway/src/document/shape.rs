//! Compares a document with the JSON Schema that was generated from our own types, and says what is wrong in our words.

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use schemars::JsonSchema;
use serde_json::Value;

use super::{Document, Problem, join};

/// A key, or a value of a key, that is planned and not available yet. It gets a sentence of its own instead of "unknown".
#[derive(Debug, Clone, Copy)]
pub struct NotYet {
    /// JSON Pointer of the key.
    pub pointer: &'static str,
    /// The one value that is meant; `None`: the key itself.
    pub value: Option<&'static str>,
    /// What to do meanwhile.
    pub instead: &'static str,
}

/// A `format` name in a published schema that stands for a parser of ours.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The name.
    pub name: &'static str,
    /// Whether the parser takes a text.
    pub reads: fn(&str) -> bool,
}

/// The shape of one kind of file.
#[derive(Debug)]
pub struct Shape {
    schema: Value,
    validator: Validator,
    not_yet: &'static [NotYet],
}

impl Shape {
    /// The shape of `T`, in whose schema `formats` may stand.
    ///
    /// # Errors
    /// The schema of `T` does not compile: a fault of ours.
    pub fn of<T: JsonSchema>(formats: &[Format], not_yet: &'static [NotYet]) -> Result<Self, String> {
        let schema = schema_of::<T>();
        let mut options = jsonschema::options().should_validate_formats(true);
        for format in formats {
            options = options.with_format(format.name, format.reads);
        }
        let validator = options.build(&schema).map_err(|e| e.to_string())?;
        Ok(Self { schema, validator, not_yet })
    }

    /// The JSON Schema, as it is published.
    pub const fn schema(&self) -> &Value {
        &self.schema
    }

    /// Every way in which the document differs from the shape, in the order of the file.
    pub fn check(&self, document: &Document) -> Vec<Problem> {
        let mut problems: Vec<Problem> = Vec::new();
        for error in self.validator.iter_errors(&document.value) {
            for problem in self.explain(document, &error) {
                // A text of the wrong pattern is often of the wrong format too: one mistake, told once.
                let told = matches!(error.kind(), Kind::Format { .. }) && problems.iter().any(|p| p.key == problem.key);
                if !told {
                    problems.push(problem);
                }
            }
        }
        problems.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        problems
    }

    fn explain(&self, document: &Document, error: &ValidationError<'_>) -> Vec<Problem> {
        let at = error.instance_path().as_str();
        let subschema = parent(&self.schema, error.schema_path().as_str());
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => {
                unexpected.iter().map(|name| self.unknown_key(document, &join(at, name), name, subschema)).collect()
            }
            Kind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let accepted = subschema.and_then(|s| s.get("properties")?.get(name)).map(accepted).unwrap_or_default();
                // A missing key stands where the object it is missing from begins.
                let line = document.line(at);
                vec![Problem::error(&document.file, line, &join(at, name), "is missing", accepted)]
            }
            _ => {
                if let Some(planned) = self.planned(at, Some(error.instance())) {
                    return vec![document.error(at, "is not available yet", planned.instead)];
                }
                let what = format!("is {}", brief(error.instance()));
                vec![document.error(at, what, subschema.map(accepted).unwrap_or_default())]
            }
        }
    }

    fn unknown_key(&self, document: &Document, pointer: &str, name: &str, subschema: Option<&Value>) -> Problem {
        if let Some(planned) = self.planned(pointer, None) {
            return document.error(pointer, "is not available yet", planned.instead);
        }
        let known = subschema.and_then(|s| s.get("properties")?.as_object());
        let known = known.map(|k| k.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
        document.error(pointer, format!("is unknown (`{name}`)"), known)
    }

    fn planned(&self, pointer: &str, value: Option<&Value>) -> Option<&NotYet> {
        self.not_yet.iter().find(|n| n.pointer == pointer && n.value == value.and_then(Value::as_str))
    }
}

/// The published JSON Schema of a type: 2020-12, in one piece, so that each error finds its description beside it.
pub fn schema_of<T: JsonSchema>() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The subschema that the keyword at `path` belongs to.
fn parent<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    schema.pointer(&path[..path.rfind('/')?])
}

/// What a subschema accepts, in one sentence: its description, and the list or the bounds it has.
fn accepted(subschema: &Value) -> String {
    let text = |key: &str| subschema.get(key).and_then(Value::as_str).map(|s| s.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut parts: Vec<String> = text("description").into_iter().collect();
    let constants =
        |forms: &Value| forms.as_array().map(|f| f.iter().filter_map(|form| form.get("const")).map(brief).collect::<Vec<_>>());
    let options = subschema.get("enum").and_then(Value::as_array).map(|options| options.iter().map(brief).collect());
    if let Some(options) = options.or_else(|| constants(subschema.get("oneOf")?)).filter(|o: &Vec<String>| !o.is_empty()) {
        parts.push(options.join(", "));
    }
    if parts.is_empty() {
        parts.extend(text("type"));
    }
    if let (Some(least), Some(most)) = (subschema.get("minimum"), subschema.get("maximum"))
        && least != most
    {
        parts.push(format!("{least} to {most}"));
    }
    parts.join(" ").trim_end_matches('.').to_owned()
}

/// A value as a person recognizes it in a message.
fn brief(value: &Value) -> String {
    match value {
        Value::Object(_) => "a map".to_owned(),
        Value::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Null => "empty".to_owned(),
        Value::String(text) if text.chars().count() > 60 => format!("`{}...`", text.chars().take(60).collect::<String>()),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Thing {
        /// How many there are.
        #[schemars(range(min = 1, max = 9))]
        count: u8,
        /// Even words only.
        #[schemars(extend("format" = "even"))]
        word: String,
        inner: Option<Vec<String>>,
    }

    fn report(text: &str) -> Vec<String> {
        let planned = &[
            NotYet { pointer: "/later", value: None, instead: "leave it out" },
            NotYet { pointer: "/word", value: Some("later"), instead: "another" },
        ];
        let shape = Shape::of::<Thing>(&[Format { name: "even", reads: |s| s.len().is_multiple_of(2) }], planned).unwrap();
        let (document, _) = Document::parse(Path::new("f"), text).unwrap();
        shape.check(&document).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_difference_is_told_once_at_its_line() {
        assert_eq!(
            report("count: 12\nword: odd\nlater: 1\nother: 2\n"),
            [
                "f:1: count is `12`; accepted: How many there are. 1 to 9",
                "f:2: word is `odd`; accepted: Even words only",
                "f:3: later is not available yet; accepted: leave it out",
                "f:4: other is unknown (`other`); accepted: count, inner, word",
            ]
        );
        assert_eq!(report("word: later\ncount: 1"), ["f:1: word is not available yet; accepted: another"]);
    }

    #[test]
    fn what_is_missing_or_of_the_wrong_type_is_told() {
        assert_eq!(
            report("word: [a]\n"),
            ["f:1: count is missing; accepted: How many there are. 1 to 9", "f:1: word is a list; accepted: Even words only"]
        );
        assert_eq!(report("[]").len(), 1);
    }
}
