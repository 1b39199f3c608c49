//! What the check insists on in everything that policy compares: `action`, `resource`, `policy_input`.

use serde_json::Value;

use crate::catalog::schema::Promise;
use crate::document::{Document, Problem, join};

pub(in crate::catalog) use crate::policy::RESERVED_NAMES as RESERVED_INPUT;

/// Every mistake in them.
pub(super) fn check(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(root) = document.value.get("input_schema").filter(|s| s.is_object()) else { return problems };
    for key in ["action", "resource"] {
        if let Some(pointer) = document.value.get(key).and_then(|c| c.get("from")?.as_str()) {
            classifier(document, root, &format!("/{key}/from"), pointer, &mut problems);
        }
    }
    for (name, pointer) in document.value.get("policy_input").and_then(Value::as_object).into_iter().flatten() {
        let at = join("/policy_input", name);
        if RESERVED_INPUT.contains(&name.as_str()) {
            problems.push(document.error(
                &at,
                "is a name of ours in the policy input",
                format!("any name but {}", RESERVED_INPUT.join(", ")),
            ));
        }
        if !is_name(name) {
            problems.push(document.error(
                &at,
                "is not a name",
                "a lower-case letter, then at most 62 lower-case letters, digits and underscores",
            ));
        }
        if let Some(pointer) = pointer.as_str() {
            lifted(document, root, &at, pointer, &mut problems);
        }
    }
    problems
}

fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn classifier(document: &Document, root: &Value, at: &str, pointer: &str, problems: &mut Vec<Problem>) {
    let Some(promise) = present(document, root, at, pointer, problems) else { return };
    let words = promise
        .options()
        .is_some_and(|options| !options.is_empty() && options.iter().all(|o| o.as_str().is_some_and(|o| !o.is_empty())));
    if !words {
        problems.push(document.error(
            at,
            format!("names `{pointer}`, which is not an enum of strings"),
            "an argument with `enum: [...]` of strings",
        ));
    }
    public(document, &promise, at, pointer, problems);
}

fn lifted(document: &Document, root: &Value, at: &str, pointer: &str, problems: &mut Vec<Problem>) {
    let Some(promise) = present(document, root, at, pointer, problems) else { return };
    match promise.scalar() {
        None => problems.push(document.error(
            at,
            format!("lifts `{pointer}`, which has not one scalar type"),
            "an argument with `type` string, integer, number or boolean, and never null",
        )),
        Some(scalar) if !promise.bounded(scalar) => problems.push(document.error(
            at,
            format!("lifts `{pointer}`, which has no bounds"),
            "`enum`; for numbers `minimum` and `maximum`; for strings `maxLength` or a pattern of the whole, `^...$`",
        )),
        Some(_) => {}
    }
    public(document, &promise, at, pointer, problems);
}

/// The argument must be described, and always there.
pub(super) fn present<'a>(
    document: &Document,
    root: &'a Value,
    at: &str,
    pointer: &str,
    problems: &mut Vec<Problem>,
) -> Option<Promise<'a>> {
    let promise = Promise::of(root, pointer);
    match &promise {
        None => {
            let names = root.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| join("", name));
            let names = names.collect::<Vec<_>>().join(", ");
            problems.push(document.error(
                at,
                format!("points to `{pointer}`, which the input schema does not describe"),
                format!("a JSON Pointer to a property, such as one of {names}"),
            ));
        }
        Some(promise) if !promise.always => {
            problems.push(document.error(
                at,
                format!("points to `{pointer}`, which may be missing"),
                "an argument that is required or has a default, and so have the objects around it",
            ));
        }
        Some(_) => {}
    }
    promise
}

/// What policy sees is recorded with the decision.
fn public(document: &Document, promise: &Promise<'_>, at: &str, pointer: &str, problems: &mut Vec<Problem>) {
    if promise.write_only() {
        problems.push(document.error(
            at,
            format!("points to `{pointer}`, which is `writeOnly`"),
            "an argument that may be shown in records",
        ));
    }
}
