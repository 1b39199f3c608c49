//! A validation error in words for agents: what is accepted, never the value.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

use crate::document::join;
use crate::error::Violation;

/// The most mistakes that are told at once.
pub(super) const MOST: usize = 32;
/// The longest name of a member that is repeated to a caller.
const LONGEST_NAME: usize = 64;

/// The mistakes of one error: an unknown member is one each.
pub(super) fn violations(error: &ValidationError<'_>) -> Vec<Violation> {
    let at = error.instance_path().as_str();
    let one = |pointer: String, detail: String| Violation { pointer: cut(&pointer, 512), detail };
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .take(MOST)
            .map(|name| {
                one(join(at, &cut(name, LONGEST_NAME)), "is not accepted here: the input schema does not describe it".to_owned())
            })
            .collect(),
        Kind::Required { property } => {
            vec![one(join(at, property.as_str().unwrap_or_default()), "is required".to_owned())]
        }
        _ => vec![one(at.to_owned(), detail(error))],
    }
}

/// What is accepted, in one sentence that repeats the schema and never the value.
pub(super) fn detail(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Kind::Type { kind: TypeKind::Single(name) } => format!("must be of type {name}"),
        Kind::Type { kind: TypeKind::Multiple(names) } => {
            format!("must be of type {}", names.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(" or "))
        }
        Kind::Enum { options } => format!("must be one of {}", cut(&options.to_string(), 512)),
        Kind::Constant { expected_value } => format!("must be {}", cut(&expected_value.to_string(), 512)),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} elements"),
        Kind::MaxItems { limit } => format!("must have at most {limit} elements"),
        Kind::MinProperties { limit } => format!("must have at least {limit} members"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} members"),
        Kind::UniqueItems => "must not have the same element twice".to_owned(),
        Kind::Pattern { pattern } => format!("must match {}", cut(pattern, 512)),
        Kind::Format { format } => format!("must be a valid {format}"),
        Kind::Required { property } => format!("must have the member {property}"),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => {
            "must not have members that are not described".to_owned()
        }
        Kind::UnevaluatedItems { .. } | Kind::AdditionalItems { .. } => "must not have further elements".to_owned(),
        Kind::PropertyNames { error } => format!("must have member names that fit: each {}", detail(error)),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => "must have one of the forms in the schema".to_owned(),
        Kind::OneOfMultipleValid { .. } => "must have exactly one of the forms in the schema, and has several".to_owned(),
        Kind::Not { .. } => "must not have a form that the schema rules out".to_owned(),
        // Where no member is described, the error does not say which one there is.
        Kind::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
            "must have no members: the input schema describes none".to_owned()
        }
        Kind::FalseSchema => "is not accepted here".to_owned(),
        Kind::Contains => "must have an element that the schema asks for".to_owned(),
        other => format!("does not fit the schema's `{}`", other.keyword()),
    }
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A mistake about the whole.
pub(super) fn whole(detail: impl Into<String>) -> Vec<Violation> {
    vec![Violation { pointer: String::new(), detail: detail.into() }]
}

/// How deep a value goes: 0 for a scalar. Without recursion, so that depth itself cannot hurt.
pub(crate) fn depth(value: &Value) -> usize {
    let mut deepest = 0;
    let mut next = vec![(value, 0)];
    while let Some((value, depth)) = next.pop() {
        deepest = deepest.max(depth);
        match value {
            Value::Array(items) => next.extend(items.iter().map(|v| (v, depth + 1))),
            Value::Object(members) => next.extend(members.values().map(|v| (v, depth + 1))),
            _ => {}
        }
    }
    deepest
}
