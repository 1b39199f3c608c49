//! What is insisted on before a definition becomes a tool. Every mistake is named at once.
//!
//! Policy compares what it is given, and Rego orders values of all types (`null <= 10` is true there). So the check does
//! not let an argument reach policy that can be missing, null, of another type or without bounds, and it does not let a
//! schema take members that nobody described. The checks read the document leniently: a mistake in one place does not
//! hide the mistakes in another.

mod command;
mod credentials;
mod executor;
mod policy;
mod schema;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use time::Date;

use super::definition::{Definition, shape};
use crate::config::Offer;
use crate::document::{Document, Problem};

pub(super) use executor::is_digest;
pub(super) use schema::validator;

/// What the check goes by beside the definition itself.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Host folders of which tools may be shown a part; a tool that wants another is well-defined and cannot run here.
    pub allowed_mounts: Vec<PathBuf>,
    /// Whether a pod's image may be named by a tag.
    pub allow_tags: bool,
    /// The credential sources that there are, and what each offers; `None`: not known here, and not asked about.
    pub sources: Option<BTreeMap<String, Offer>>,
    /// How long a sandbox may take to start, which is part of its life.
    pub start_timeout: Duration,
    /// Today, for `review_by`.
    pub today: Date,
}

impl Rules {
    /// The rules as of now.
    pub fn now(allowed_mounts: &[PathBuf]) -> Self {
        let (start_timeout, today) = (Duration::from_secs(30), time::OffsetDateTime::now_utc().date());
        Self { allowed_mounts: allowed_mounts.to_owned(), allow_tags: false, sources: None, start_timeout, today }
    }
}

/// Checks a document. There is a definition exactly when no problem is an error.
pub(super) fn check(document: &Document, rules: &Rules) -> (Option<Definition>, Vec<Problem>) {
    let mut problems = match shape() {
        Ok(shape) => shape.check(document),
        Err(fault) => vec![document.error("", format!("cannot be checked: {fault}"), "")],
    };
    let shaped = problems.is_empty();
    problems.extend(dates(document, rules.today));
    problems.extend(schema::check(document));
    problems.extend(policy::check(document));
    problems.extend(command::check(document));
    problems.extend(credentials::check(document));
    problems.extend(executor::check(document));
    let mut definition = None;
    if shaped && !problems.iter().any(Problem::is_error) {
        match serde_json::from_value::<Definition>(document.value.clone()) {
            Ok(read) => definition = Some(read),
            Err(e) => problems.push(document.error("", format!("cannot be read: {e}"), "")),
        }
    }
    problems.sort_by(|a, b| (a.line, &a.key, &a.what).cmp(&(b.line, &b.key, &b.what)));
    (definition, problems)
}

fn dates(document: &Document, today: Date) -> Vec<Problem> {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    let Some(text) = document.value.get("review_by").and_then(Value::as_str) else { return Vec::new() };
    match Date::parse(text, format) {
        Err(_) if text.len() == 10 => {
            vec![document.error("/review_by", format!("is `{text}`, which is no date"), "a date that exists, YYYY-MM-DD")]
        }
        Ok(date) if date < today => {
            vec![document.warning(
                "/review_by",
                format!("was on {text}: the tier is due for another look"),
                "a date to come, once somebody has looked",
            )]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{SCALE, problems, tool};

    /// The keys of what is wrong after one replacement in a good definition.
    fn wrong(from: &str, to: &str) -> Vec<String> {
        assert!(SCALE.contains(from), "{from}");
        problems(&SCALE.replace(from, to)).iter().map(ToString::to_string).collect()
    }

    fn one(from: &str, to: &str, key: &str, says: &str) {
        let found = wrong(from, to);
        assert!(
            found.len() == 1 && found[0].contains(&format!(" {key} ")) && found[0].contains(says),
            "{from:?} -> {to:?}: {found:#?}"
        );
    }

    #[test]
    fn the_good_one_is_good() {
        tool(SCALE);
        assert_eq!(problems(SCALE), []);
    }

    #[test]
    fn a_dozen_mistakes_are_named_at_once() {
        let report: Vec<String> = problems(include_str!("check/mistakes.yaml")).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(report.join("\n"));
    }

    #[test]
    fn dates_are_real_and_a_past_one_is_a_warning() {
        one("2999-01-01", "2999-02-30", "review_by", "no date");
        one("2999-01-01", "soon", "review_by", "YYYY-MM-DD");
        let past = wrong("2999-01-01", "2026-05-31");
        assert!(past[0].contains("warning: review_by was on 2026-05-31"), "{past:?}");
        tool(&SCALE.replace("2999-01-01", "2026-05-31"));
    }

    #[test]
    fn what_is_planned_is_not_unknown() {
        one("tier: free", "tier: free\ncost: {}", "cost", "not available yet");
        one("  backend: docker", "  backend: docker\n  warmth: 2", "executor.warmth", "unknown");
    }

    #[test]
    fn a_credential_goes_to_one_place_of_its_own() {
        let with = |uses: &str| problems(&SCALE.replace("tier: free", &format!("tier: free\ncredentials: [{uses}]")));
        let (env, file) =
            ("{source: a, deliver: env, variable: TOKEN}", "{source: b.c-1, field: password, deliver: file, path: /tmp/t}");
        assert_eq!(with(&format!("{env}, {file}")), []);
        for (wrong, key, says) in [
            ("{source: a, deliver: env}", "variable", "is missing"),
            ("{source: a, deliver: file}", "path", "is missing"),
            ("{source: a, deliver: env, variable: T, path: /tmp/t}", "path", "another way"),
            ("{source: a, deliver: env, variable: PATH}", "variable", "not the tool's"),
            ("{source: a, deliver: env, variable: lower}", "variable", "lower"),
            ("{source: a, deliver: file, path: /etc/passwd}", "path", "/etc/passwd"),
            ("{source: a, deliver: file, path: /tmp/..}", "path", "no file"),
            ("{source: a, deliver: file, path: /tmp/a/b}", "path", "/tmp/a/b"),
            ("{source: A, deliver: env, variable: T}", "source", "A"),
            ("{source: a, deliver: argv, variable: T}", "deliver", "argv"),
            ("{source: a, deliver: env, variable: T}, {source: b, deliver: env, variable: T}", "variable", "taken"),
            (
                "{source: a, deliver: env, variable: T}, {source: a, scopes: [x], deliver: env, variable: U}",
                "scopes",
                "one credential of each",
            ),
        ] {
            let found: Vec<_> = with(wrong).iter().map(ToString::to_string).collect();
            assert!(found.len() == 1 && found[0].contains(key) && found[0].contains(says), "{wrong}: {found:#?}");
        }
    }

    #[test]
    fn what_is_added_outside_is_added_where_the_tool_may_go() {
        let with = |uses: &str| {
            let network = "output_limit: 1Mi\n  network: [api.example.com:443, '*.example.com:443']";
            let listed = SCALE.replace("output_limit: 1Mi", network);
            problems(&listed.replace("tier: free", &format!("tier: free\ncredentials: [{uses}]")))
        };
        let one = |inject: &str| format!("{{source: a, deliver: egress, inject: {{{inject}}}}}");
        let good = one("to: 'api.example.com:443', as: bearer, methods: [GET], paths: [/v1/**, /repos/*/x]");
        assert_eq!(with(&format!("{good}, {}", one("to: 'api.example.com:443', as: header, header: X-Key"))), []);
        for (wrong, key, says) in [
            ("{source: a, deliver: egress}".to_owned(), "inject", "is missing"),
            (
                "{source: a, deliver: egress, variable: T, inject: {to: 'api.example.com:443', as: bearer}}".to_owned(),
                "variable",
                "another way",
            ),
            (one("to: 'b.example.com:443', as: bearer"), "inject.to", "executor.network"),
            (one("to: 'api.example.com', as: bearer"), "inject.to", "host:port"),
            (one("to: 'api.example.com:443', as: cookie"), "inject.as", "cookie"),
            (one("to: 'api.example.com:443', as: header"), "inject.header", "is missing"),
            (one("to: 'api.example.com:443', as: bearer, header: X"), "inject.header", "as: header"),
            (one("to: 'api.example.com:443', as: header, header: Host"), "inject.header", "where a request leads"),
            (one("to: 'api.example.com:443', as: bearer, paths: [/a//b]"), "inject.paths", "/a//b"),
            (one("to: 'api.example.com:443', as: bearer, methods: [get]"), "inject.methods", "get"),
            (format!("{good}, {}", one("to: 'api.example.com:443', as: basic")), "inject.header", "another credential"),
            (
                format!("{good}, {}", one("to: 'api.example.com:443', as: header, header: X, plaintext: true")),
                "inject.plaintext",
                "differs",
            ),
        ] {
            let found: Vec<_> = with(&wrong).iter().map(ToString::to_string).collect();
            assert!(found.len() == 1 && found[0].contains(key) && found[0].contains(says), "{wrong}: {found:#?}");
        }
    }

    #[test]
    fn a_pod_is_described_by_its_own_keys() {
        let pod = |extra: &str| problems(&SCALE.replace("  backend: docker", &format!("  backend: kubernetes\n{extra}")));
        let good = "  service_account: mayfly-tool-scale\n  runtime_class: gvisor\n  warm: {size: 2, when_empty: wait}\n  kubernetes:\n    \
                    node_selector: {pool: sandboxes}\n    tolerations: [{key: a, operator: Exists}]\n    image_pull_secrets: [registry]";
        assert_eq!(pod(good), []);
        for (wrong, key, says) in [
            ("  service_account: default", "service_account", "mayfly-tool-"),
            ("  mounts: []", "mounts", "is for docker"),
            ("  warm: 0", "warm", ""),
            ("  warm: {size: 2, when_empty: queue}", "warm", ""),
            ("  kubernetes: {tolerations: [{effect: Never}]}", "kubernetes", ""),
        ] {
            let found: Vec<_> = pod(wrong).iter().map(ToString::to_string).collect();
            assert!(found.iter().any(|p| p.contains(&format!("executor.{key}")) && p.contains(says)), "{wrong}: {found:?}");
        }
        one("  backend: docker", "  backend: docker\n  runtime_class: gvisor", "executor.runtime_class", "is for kubernetes");
        assert_eq!(wrong("  backend: docker", "  backend: docker\n  warm: 2"), [] as [&str; 0]);
    }

    #[test]
    fn what_policy_compares_is_there_typed_and_bounded() {
        let lift = |schema: &str| wrong("namespace: {type: string, maxLength: 63}", &format!("namespace: {schema}"));
        for (schema, says) in [
            ("{type: string}", "no bounds"),
            ("{type: string, pattern: staging}", "no bounds"),
            ("{type: integer, minimum: 0}", "no bounds"),
            ("{type: [string, 'null'], maxLength: 9}", "scalar type"),
            ("{enum: [a, null]}", "scalar type"),
            ("{type: object}", "scalar type"),
            ("{type: string, maxLength: 9, writeOnly: true}", "writeOnly"),
        ] {
            assert!(
                lift(schema).iter().any(|p| p.contains("policy_input.namespace") && p.contains(says)),
                "{schema}: {:#?}",
                lift(schema)
            );
        }
        for schema in [
            "{type: boolean}",
            "{enum: [a, b]}",
            "{const: a}",
            "{type: number, minimum: 0, exclusiveMaximum: 9}",
            "{type: string, pattern: '^a{1,9}$'}",
        ] {
            assert_eq!(lift(schema), [] as [&str; 0], "{schema}");
        }
        let missing = wrong("[namespace, name, desired_replicas]", "[name, desired_replicas]");
        assert!(missing.iter().any(|p| p.contains("policy_input.namespace") && p.contains("may be missing")), "{missing:?}");
        one("  namespace: /namespace", "  space: /nowhere", "policy_input.space", "does not describe");
        one("  namespace: /namespace", "  space: namespace", "policy_input.space", "does not describe");
    }

    #[test]
    fn names_of_ours_cannot_be_lifted_onto() {
        for name in super::policy::RESERVED_INPUT {
            one("  namespace: /namespace", &format!("  {name}: /namespace"), &format!("policy_input.{name}"), "name of ours");
        }
        one("  namespace: /namespace", "  Name Space: /namespace", "policy_input.\"Name Space\"", "not a name");
    }

    #[test]
    fn a_classifier_is_an_enum_of_strings_that_is_always_there() {
        one("{from: /kind}", "{from: /name}", "resource.from", "not an enum of strings");
        one("{from: /kind}", "{from: /token_hint/x}", "resource.from", "does not describe");
        one("{from: /kind}", "{form: /kind}", "resource", "a map");
        let undecided = wrong(", default: deployment", "");
        assert!(undecided.iter().any(|p| p.contains("resource.from") && p.contains("may be missing")), "{undecided:?}");
    }

    #[test]
    fn placeholders_are_whole_elements_and_name_scalars() {
        one("\"{/name}\"", "\"--name={/name}\"", "executor.command[3]", "whole element");
        one("\"{/name}\"", "\"{/nowhere}\"", "executor.command[3]", "does not describe");
        one("\"{/name}\"", "\"{/token_hint}\"", "executor.command[3]", "may be missing");
        one("[kubectl, ", "[\"{/name}\", ", "executor.command[0]", "choose the program");
    }

    #[test]
    fn the_flat_body_has_names_that_are_never_arguments() {
        for name in ["tool", "version", "arguments", "args", "task_id", "token", "reason"] {
            one("token_hint:", &format!("{name}:"), &format!("input_schema.properties.{name}"), "reserved");
        }
    }

    #[test]
    fn a_schema_is_2020_12_local_and_ends() {
        let hint =
            |schema: &str, says: &str| one("{type: string, writeOnly: true}", schema, "input_schema.properties.token_hint", says);
        let below = |schema: &str, key: &str, says: &str| {
            one("{type: string, writeOnly: true}", schema, &format!("input_schema.properties.token_hint.{key}"), says);
        };
        for url in ["https://example.com/s.json", "file:///etc/passwd", "#/properties/name", "other.json", "#"] {
            below(&format!("{{$ref: '{url}'}}"), "$ref", "points elsewhere");
        }
        below("{$ref: '#/$defs/none'}", "$ref", "points to nothing");
        below("{type: text}", "type", "JSON Schema 2020-12");
        below("{type: string, maxLenght: 3}", "maxLenght", "bound nothing");
        below("{type: string, format: e-mail}", "format", "nothing checks");
        below("{type: string, pattern: '(?=a)'}", "pattern", "cannot be compiled");
        below("{type: string, $id: x}", "$id", "what references mean");
        below("{type: string, default: 5}", "default", "does not fit");
        below("{$schema: 'http://json-schema.org/draft-07/schema#'}", "$schema", "dialect");
        hint("{type: array}", "does not say of what");
        let cycle = wrong(
            "  type: object\n  required: [namespace",
            "  type: object\n  $defs: {a: {allOf: [{$ref: '#/$defs/a'}]}}\n  required: [namespace",
        );
        assert!(cycle.iter().any(|p| p.contains("refers to itself")), "{cycle:?}");
        one("input_schema:\n  type: object", "input_schema:\n  type: [object]", "input_schema.type", "`object`");
    }

    #[test]
    fn ceilings_bite() {
        for (from, to, key) in [
            ("timeout: 30s", "timeout: 61m", "timeout"),
            ("timeout: 30s", "timeout: 0s", "timeout"),
            ("timeout: 30s", "timeout: 30", "timeout"),
            ("memory: 64Mi", "memory: 1Mi", "memory"),
            ("memory: 64Mi", "memory: 65Gi", "memory"),
            ("memory: 64Mi", "memory: 64MB", "memory"),
            ("output_limit: 1Mi", "output_limit: 65Mi", "output_limit"),
            ("output_limit: 1Mi", "output_limit: 1Mi\n  scratch: 64Mi", "scratch"),
            ("output_limit: 1Mi", "output_limit: 1Mi\n  cpu: 65", "cpu"),
            ("output_limit: 1Mi", "output_limit: 1Mi\n  cpu: 0.0123", "cpu"),
            ("output_limit: 1Mi", "output_limit: 1Mi\n  pids: 5000", "pids"),
            ("output_limit: 1Mi", "output_limit: 1Mi\n  network: [localhost:443]", "network[0]"),
            ("output_limit: 1Mi", "output_limit: 1Mi\n  module: a.wasm", "module"),
            ("image: scale:dev", "image: scale@sha256:12", "image"),
        ] {
            one(from, to, &format!("executor.{key}"), "accepted: ");
        }
        let wasm =
            wrong("  backend: docker\n  image: scale:dev", "  backend: wasm\n  module: ../x.wasm\n  pids: 3\n  mounts: []");
        assert_eq!(wasm.len(), 3, "{wasm:#?}");
    }
}
