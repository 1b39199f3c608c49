//! What the check insists on in `credentials`: each goes to one place, and no two to the same.

use std::collections::{BTreeMap, BTreeSet};

use mayfly_executor::spec::Destination;
use serde_json::Value;

use crate::document::{Document, Problem};

/// Variables that make a process what it is, or are ours to say.
const TAKEN: [&str; 13] = [
    "ALL_PROXY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "LANG",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NO_PROXY",
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
    let mut injected = BTreeMap::new();
    let listed = document.value.pointer("/executor/network").and_then(Value::as_array);
    let network: BTreeSet<_> =
        listed.into_iter().flatten().filter_map(|entry| entry.as_str()?.parse::<Destination>().ok()).collect();
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
        let (wanted, example) = match text("deliver") {
            Some("env") => ("variable", "a variable, such as GITHUB_TOKEN"),
            Some("file") => ("path", "a file directly in /tmp, such as /tmp/token"),
            Some("egress") => ("inject", "`{to: api.example.com:443, as: bearer}`"),
            _ => continue,
        };
        if wanted == "path" && is_wasm {
            refuse("deliver", "is `file`, and a wasm sandbox has no files", "`env`");
        }
        for other in ["variable", "path", "inject"].into_iter().filter(|other| *other != wanted && one.get(*other).is_some()) {
            refuse(other, "is for another way of delivery", "leave it out");
        }
        if wanted == "inject" {
            match one.get("inject") {
                None => refuse("inject", "is missing", example),
                Some(inject) => injection(inject, &network, &mut injected, &mut refuse),
            }
            continue;
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

/// One destination takes one credential in each header, and is spoken to in one way.
fn injection(
    inject: &Value,
    network: &BTreeSet<Destination>,
    injected: &mut BTreeMap<Destination, (bool, BTreeSet<String>)>,
    refuse: &mut impl FnMut(&str, &str, &str),
) {
    let text = |key: &str| inject.get(key).and_then(Value::as_str);
    let header = match (text("as"), text("header")) {
        (Some("header"), None) => return refuse("inject/header", "is missing", "the header's name, such as X-Api-Key"),
        (Some("header"), Some(header)) => header.to_ascii_lowercase(),
        (_, Some(_)) => return refuse("inject/header", "is for `as: header`", "leave it out, or `as: header`"),
        (_, None) => "authorization".to_owned(),
    };
    if UNFIT.contains(&header.as_str()) {
        return refuse(
            "inject/header",
            "says where a request leads or how it is read, and is not for a credential",
            "another header",
        );
    }
    let Some(to) = text("to").and_then(|to| to.parse::<Destination>().ok()) else { return };
    if !network.contains(&to) {
        return refuse("inject/to", "is not in `executor.network`", "a destination that is listed there as it is here");
    }
    let plaintext = inject.get("plaintext").and_then(Value::as_bool).unwrap_or_default();
    let (first, headers) = injected.entry(to).or_insert_with(|| (plaintext, BTreeSet::new()));
    if *first != plaintext {
        refuse("inject/plaintext", "differs from what is said of the same destination above", "the same");
    }
    if !headers.insert(header) {
        refuse("inject/header", "is added to the same destination by another credential", "a header of its own for each");
    }
}

/// Headers that only the gateway writes, or that say how a message is read.
const UNFIT: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
];
