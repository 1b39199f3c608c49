//! What the check insists on in `input_schema` and `output_schema`.

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

use crate::catalog::schema::{self, NAMED, PART, SAME_VALUE, SAME_VALUE_LISTS};
use crate::catalog::violation;
use crate::document::{Document, Problem, join};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Members of the flat body of the HTTP API that are never arguments.
const RESERVED_ARGUMENTS: [&str; 7] = ["tool", "version", "arguments", "args", "task_id", "token", "reason"];

/// The keywords of 2020-12 that are neither in [`NAMED`], [`PART`], [`SAME_VALUE`] nor [`SAME_VALUE_LISTS`].
const OTHER_KEYWORDS: [&str; 36] = [
    "$schema",
    "$ref",
    "$comment",
    "type",
    "enum",
    "const",
    "prefixItems",
    "minContains",
    "maxContains",
    "maxItems",
    "minItems",
    "uniqueItems",
    "required",
    "dependentRequired",
    "maxProperties",
    "minProperties",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "format",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "$vocabulary",
];

/// Compiles a schema: formats count, unknown ones are refused, patterns run in linear time, nothing is fetched.
///
/// # Errors
/// What the schema lacks, with its place in the schema as the instance path.
pub(in crate::catalog) fn validator(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_pattern_options(PatternOptions::regex().size_limit(1 << 20))
        .build(schema)
}

/// Every mistake in the two schemas.
pub(super) fn check(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(input) = document.value.get("input_schema").filter(|s| s.is_object()) {
        arguments(document, input, &mut problems);
        one(document, input, "/input_schema", true, &mut problems);
    }
    if let Some(output) = document.value.get("output_schema").filter(|s| s.is_object()) {
        one(document, output, "/output_schema", false, &mut problems);
    }
    problems
}

/// What holds for the arguments object alone.
fn arguments(document: &Document, input: &Value, problems: &mut Vec<Problem>) {
    if input.get("type") != Some(&json!("object")) {
        problems.push(document.error("/input_schema/type", "is not `object`", "`type: object`: arguments have names"));
    }
    for name in input.get("properties").and_then(Value::as_object).into_iter().flat_map(|p| p.keys()) {
        if RESERVED_ARGUMENTS.contains(&name.as_str()) {
            let what = format!("is reserved: `{name}` beside `tool` in a call is never an argument");
            problems.push(document.error(
                &join("/input_schema/properties", name),
                what,
                format!("any name but {}", RESERVED_ARGUMENTS.join(", ")),
            ));
        }
    }
}

/// What holds for every schema.
fn one(document: &Document, root: &Value, at: &str, input: bool, problems: &mut Vec<Problem>) {
    let before = problems.len();
    for error in jsonschema::draft202012::meta::validator().iter_errors(root) {
        let place = format!("{at}{}", error.instance_path());
        let detail = violation::detail(&error);
        problems.push(document.error(&place, "is no JSON Schema 2020-12", detail));
    }
    let mut walk = Walk { document, root, input, problems };
    walk.node(root, at);
    if problems.len() > before {
        return;
    }
    if let Err(error) = validator(root) {
        let place = format!("{at}{}", error.instance_path());
        problems.push(document.error(&place, format!("cannot be compiled: {}", error.masked()), "JSON Schema 2020-12"));
        return;
    }
    defaults(document, root, root, at, problems);
    if input && schema::fill(root, &mut json!({})).is_err() {
        problems.push(document.error(at, "has defaults without end", "defaults that do not lead back to themselves"));
    }
}

/// Goes through every subschema.
struct Walk<'a> {
    document: &'a Document,
    root: &'a Value,
    input: bool,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn refuse(&mut self, at: &str, what: impl Into<String>, accepted: impl Into<String>) {
        self.problems.push(self.document.error(at, what, accepted));
    }

    fn node(&mut self, node: &Value, at: &str) {
        let Some(members) = node.as_object() else { return };
        for (keyword, value) in members {
            self.keyword(keyword, value, &join(at, keyword));
        }
        if self.input && node.get("type") == Some(&json!("array")) && node.get("items").is_none() {
            self.refuse(
                at,
                "is an array and does not say of what",
                "`items`, a schema for its elements; `items: true` for anything",
            );
        }
        if returns_to_itself(self.root, node) {
            self.refuse(
                at,
                "refers to itself without going into the value",
                "references that lead on to a property or an element",
            );
        }
        for (place, child) in children(node, at) {
            self.node(child, &place);
        }
    }

    fn keyword(&mut self, keyword: &str, value: &Value, at: &str) {
        match keyword {
            "$schema" if value != DIALECT => self.refuse(at, "is another dialect", format!("`{DIALECT}`, or leave it out")),
            "$ref" => {
                let local = value.as_str().is_some_and(|r| r.starts_with("#/$defs/"));
                if !local {
                    self.refuse(at, "points elsewhere; nothing is fetched", "`#/$defs/NAME`, in the same schema");
                } else if schema::target(self.root, &json!({"$ref": value})).is_none() {
                    self.refuse(at, "points to nothing", "`#/$defs/NAME`, in the same schema");
                }
            }
            "format" => {
                let known =
                    value.as_str().is_none_or(|f| jsonschema::options().is_known_format(jsonschema::Draft::Draft202012, f));
                if !known {
                    self.refuse(
                        at,
                        "is a format that nothing checks",
                        "a format of JSON Schema 2020-12, such as date-time, uuid, uri, ipv4",
                    );
                }
            }
            "pattern" => self.pattern(value, at),
            "patternProperties" => {
                for name in value.as_object().into_iter().flat_map(|m| m.keys()) {
                    self.pattern(&json!(name), &join(at, name));
                }
            }
            "$id" | "$anchor" | "$dynamicRef" | "$dynamicAnchor" | "$vocabulary" => {
                self.refuse(at, "changes what references mean", "leave it out; refer by `#/$defs/NAME`");
            }
            _ if known(keyword) || keyword.starts_with("x-") => {}
            _ => self.refuse(
                at,
                format!("is no keyword of JSON Schema 2020-12 (`{keyword}`), so it would bound nothing"),
                "its keywords, and names that start with x-",
            ),
        }
    }

    fn pattern(&mut self, pattern: &Value, at: &str) {
        if pattern.is_string() && validator(&json!({"pattern": pattern})).is_err() {
            self.refuse(
                at,
                "is a pattern that cannot be compiled",
                "a regular expression without look-around and back-references",
            );
        }
    }
}

fn known(keyword: &str) -> bool {
    [&NAMED[..], &PART[..], &SAME_VALUE[..], &SAME_VALUE_LISTS[..], &OTHER_KEYWORDS[..]]
        .iter()
        .any(|list| list.contains(&keyword))
}

/// The subschemas of a schema, each with its place.
fn children<'a>(node: &'a Value, at: &str) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    for keyword in NAMED {
        let named = node.get(keyword).and_then(Value::as_object);
        found.extend(named.into_iter().flatten().map(|(name, child)| (join(&join(at, keyword), name), child)));
    }
    for keyword in SAME_VALUE_LISTS.into_iter().chain(["prefixItems"]) {
        let list = node.get(keyword).and_then(Value::as_array);
        found.extend(list.into_iter().flatten().enumerate().map(|(i, child)| (format!("{}/{i}", join(at, keyword)), child)));
    }
    found.extend(SAME_VALUE.into_iter().chain(PART).filter_map(|keyword| Some((join(at, keyword), node.get(keyword)?))));
    found
}

/// The subschemas that speak of the same value as `node`.
fn same_value<'a>(root: &'a Value, node: &'a Value) -> Vec<&'a Value> {
    let lists = SAME_VALUE_LISTS.into_iter().filter_map(|k| node.get(k)?.as_array()).flatten();
    let dependent = node.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(|m| m.values());
    lists.chain(SAME_VALUE.into_iter().filter_map(|k| node.get(k))).chain(dependent).chain(schema::target(root, node)).collect()
}

/// Whether evaluating `node` comes back to `node` on the same value: it would never end.
fn returns_to_itself(root: &Value, node: &Value) -> bool {
    let mut seen: Vec<&Value> = Vec::new();
    let mut next = same_value(root, node);
    while let Some(piece) = next.pop() {
        if std::ptr::eq(piece, node) {
            return true;
        }
        if !seen.iter().any(|s| std::ptr::eq(*s, piece)) {
            seen.push(piece);
            next.extend(same_value(root, piece));
        }
    }
    false
}

/// Every default must itself be accepted, once the defaults inside it are filled in.
fn defaults(document: &Document, root: &Value, node: &Value, at: &str, problems: &mut Vec<Problem>) {
    if let (Some(default), Some(members)) = (node.get("default"), node.as_object()) {
        let mut alone = members.clone();
        alone.extend(root.get("$defs").map(|defs| ("$defs".to_owned(), defs.clone())));
        let alone = schema::closed(&Value::Object(alone));
        let mut filled = default.clone();
        let wrong = match (schema::fill(&alone, &mut filled), validator(&alone)) {
            (Ok(()), Ok(validator)) => validator.iter_errors(&filled).next().map(|e| violation::detail(&e)),
            (Err(_), _) => Some("has defaults without end".to_owned()),
            (_, Err(e)) => Some(e.masked().to_string()),
        };
        problems.extend(
            wrong.map(|detail| document.error(&join(at, "default"), "does not fit the schema it is the default of", detail)),
        );
    }
    for (place, child) in children(node, at) {
        defaults(document, root, child, &place, problems);
    }
}
