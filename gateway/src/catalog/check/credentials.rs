//! What the check insists on in `credentials`: each goes to one place, and no two to the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::document::{Document, Problem};

/// Variables that make a process what it is, or are ours to say.
const TAKEN: [&str; 9] = [
    "HOME",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "LANG",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PATH",
    "TMPDIR",
    "TRACEPARENT",
];

/// Every mistake in it.
pub(super) fn check(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_wasm = document.value.pointer("/executor/backend").and_then(Value::as_str) == Some("wasm");
    let mut places = BTreeSet::new();
    let mut scopes = BTreeMap::new();
    let uses = document.value.get("credentials").and_then(Value::as_array);
    for (index, one) in uses.into_iter().flatten().enumerate() {
        let mut refuse = |key: &str, what: &str, accepted: &str| {
            problems.push(document.error(&format!("/credentials/{index}/{key}"), what, accepted));
        };
        let text = |key: &str| one.get(key).and_then(Value::as_str);
        if let Some(source) = text("source")
            && *scopes.entry(source).or_insert(one.get("scopes")) != one.get("scopes")
        {
            refuse(
                "scopes",
                "differs from what the same source is asked for above: a call gets one credential of each",
                "the same",
            );
        }
        let (wanted, other, example) = match text("deliver") {
            Some("env") => ("variable", "path", "a variable, such as GITHUB_TOKEN"),
            Some("file") => ("path", "variable", "a file directly in /tmp, such as /tmp/token"),
            _ => continue,
        };
        if wanted == "path" && is_wasm {
            refuse("deliver", "is `file`, and a wasm sandbox has no files", "`env`");
        }
        if one.get(other).is_some() {
            refuse(other, "is for the other way of delivery", "leave it out");
        }
        match text(wanted) {
            None => refuse(wanted, "is missing", example),
            Some("/tmp/." | "/tmp/..") => refuse(wanted, "is no file", example),
            Some(place) if TAKEN.contains(&place) => refuse(wanted, "is a variable that is not the tool's to set", example),
            Some(place) if !places.insert(place) => {
                refuse(wanted, "is taken by another credential", "a place of its own for each")
            }
            Some(_) => {}
        }
    }
    problems
}
