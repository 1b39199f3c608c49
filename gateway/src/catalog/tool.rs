//! A tool that passed the check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jsonschema::Validator;
use mayfly_executor::BackendKind;
use mayfly_executor::pool::Warm;
use mayfly_executor::spec::{ByteSize, Pod, SandboxSpec, Source};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::artefact::{self, Module, ModuleKind};
use super::check::{self, Rules, validator};
use super::definition::{Classifier, CredentialUse, Definition, Executor};
use super::violation::{MOST, depth, violations, whole};
use super::{Arguments, command, schema};
use crate::config::{Offer, Scopes};
use crate::document::{Document, Problem};
use crate::error::Violation;

/// The deepest that arguments and results may be nested.
pub const DEEPEST: usize = 64;
/// The most bytes that arguments may have with their defaults.
pub const ARGUMENTS_MOST: usize = 1 << 20;
/// What a sandbox may live on beyond its start and its call's timeout: reporting, being removed.
const LIFE_BEYOND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a warm sandbox may wait for its call, beyond that.
const LIFE_WARM: Duration = Duration::from_secs(600);

/// A loaded tool: its definition, what was derived from it, and whether it can run here.
#[derive(Debug)]
pub struct Tool {
    /// What its `tool.yaml` says, the input schema with every object closed that does not say otherwise.
    pub definition: Definition,
    /// Lower-case hex SHA-256 over the definition and the pinned artifact.
    pub digest: String,
    /// The sandbox it runs in, or why it cannot run here.
    pub spec: Result<SandboxSpec, Unavailable>,
    input: Validator,
    output: Option<Validator>,
}

/// Why a well-defined tool cannot run at the moment, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

impl Tool {
    /// Reads and checks the `tool.yaml` of a folder. There is a tool exactly when no problem is an error.
    pub fn load(folder: &Path, rules: &Rules) -> (Option<Self>, Vec<Problem>) {
        match Document::read(&folder.join("tool.yaml")) {
            Ok((document, problems)) => Self::checked(folder, &document, problems, rules),
            Err(problem) => (None, vec![problem]),
        }
    }

    /// The same for a text that would be the `tool.yaml` of `folder`.
    pub fn parse(folder: &Path, text: &str, rules: &Rules) -> (Option<Self>, Vec<Problem>) {
        match Document::parse(&folder.join("tool.yaml"), text) {
            Ok((document, problems)) => Self::checked(folder, &document, problems, rules),
            Err(problem) => (None, vec![problem]),
        }
    }

    fn checked(folder: &Path, document: &Document, mut problems: Vec<Problem>, rules: &Rules) -> (Option<Self>, Vec<Problem>) {
        let (definition, found) = check::check(document, rules);
        problems.extend(found);
        problems.sort_by_key(|p| p.line);
        let Some(definition) = definition.filter(|_| !problems.iter().any(Problem::is_error)) else {
            return (None, problems);
        };
        match Self::build(folder, document, definition, rules) {
            Ok(tool) => (Some(tool), problems),
            Err(problem) => {
                problems.push(problem);
                (None, problems)
            }
        }
    }

    fn build(folder: &Path, document: &Document, mut definition: Definition, rules: &Rules) -> Result<Self, Problem> {
        definition.input_schema = schema::closed(&definition.input_schema);
        let compiled = |schema: &Value, at: &str| {
            validator(schema)
                .map_err(|e| document.error(at, format!("cannot be compiled: {}", e.masked()), "JSON Schema 2020-12"))
        };
        let input = compiled(&definition.input_schema, "/input_schema")?;
        let output = definition.output_schema.as_ref().map(|s| compiled(s, "/output_schema")).transpose()?;
        let source = match (&definition.executor.module, &definition.executor.image) {
            (Some(path), _) => match artefact::module(folder, path) {
                Ok(Module { kind: ModuleKind::Core, .. }) if !definition.executor.network.is_empty() => {
                    let what = format!("is listed, and {} is a core module, which cannot have a network", path.display());
                    return Err(document.error("/executor/network", what, "a component: build for wasm32-wasip2"));
                }
                found => found.map(|m| m.source),
            },
            (None, Some(image)) if definition.executor.backend == BackendKind::Kubernetes => {
                artefact::pod_image(folder, image, rules.allow_tags).map(|image| Source::Pod(pod(&definition.executor, image)))
            }
            (None, Some(image)) => artefact::image(folder, image),
            (None, None) => return Err(document.error("/executor", "names nothing to run", "`module` or `image`")),
        };
        let spec = source.and_then(|source| sandbox(&definition, source, rules));
        let digest = digest(&definition, &spec);
        Ok(Self { definition, digest, spec, input, output })
    }

    /// Checks arguments and fills in what was left out: from here on there is one value.
    ///
    /// Whole numbers that were written with a fraction (`3.0`) become whole numbers, so that policy and tool cannot read
    /// the same argument differently.
    ///
    /// # Errors
    /// Every mistake found, at most 32, none with the value itself.
    pub fn validate(&self, arguments: Map<String, Value>) -> Result<Arguments, Vec<Violation>> {
        let mut value = Value::Object(arguments);
        if depth(&value) > DEEPEST {
            return Err(whole(format!("must not be nested deeper than {DEEPEST}")));
        }
        settle_numbers(&mut value);
        let root = &self.definition.input_schema;
        schema::fill(root, &mut value).map_err(|schema::Overfull| whole("must not need that many defaults; give them"))?;
        let mistakes: Vec<Violation> = self.input.iter_errors(&value).flat_map(|e| violations(&e)).take(MOST).collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let bytes = serde_json::to_vec(&value).map_err(|_| whole("cannot be written as JSON"))?;
        if bytes.len() > ARGUMENTS_MOST {
            return Err(whole(format!("must not be longer than {ARGUMENTS_MOST} bytes with their defaults")));
        }
        let redacted = Arc::new(schema::redacted(root, &value));
        Ok(Arguments { value: Arc::new(value), bytes: Bytes::from(bytes), redacted })
    }

    /// The verb that policy reasons about.
    ///
    /// # Errors
    /// The arguments are not those of this tool.
    pub fn action<'a>(&'a self, arguments: &'a Arguments) -> Result<&'a str, Violation> {
        classify(&self.definition.action, arguments)
    }

    /// The kind of thing that policy reasons about.
    ///
    /// # Errors
    /// The arguments are not those of this tool.
    pub fn resource<'a>(&'a self, arguments: &'a Arguments) -> Result<&'a str, Violation> {
        classify(&self.definition.resource, arguments)
    }

    /// What `policy_input` lifts to the top of the policy input.
    ///
    /// # Errors
    /// The arguments are not those of this tool.
    pub fn lifted(&self, arguments: &Arguments) -> Result<Map<String, Value>, Violation> {
        let lift = |(name, pointer): (&String, &String)| match arguments.value.pointer(pointer) {
            Some(value) => Ok((name.clone(), value.clone())),
            None => Err(absent(pointer)),
        };
        self.definition.policy_input.iter().map(lift).collect()
    }

    /// What is to be kept warm for it, if anything is and it can run here.
    pub fn warm(&self) -> Option<Warm> {
        let (executor, spec) = (&self.definition.executor, self.spec.as_ref().ok()?);
        let warmth = executor.warm?;
        Some(Warm {
            tool: self.definition.name.clone(),
            version: self.definition.version.clone(),
            spec: spec.clone(),
            size: warmth.size(),
            timeout: executor.timeout,
            when_empty: warmth.when_empty(),
        })
    }

    /// The program and its arguments with every placeholder filled in; empty: what the image or module runs.
    ///
    /// # Errors
    /// An argument that cannot be one element of a command line.
    pub fn command_line(&self, arguments: &Arguments) -> Result<Vec<String>, Violation> {
        command::fill(&self.definition.executor.command, &arguments.value)
    }

    /// Whether a result is what the tool promised.
    ///
    /// # Errors
    /// A sentence for the agent that does not repeat the result.
    pub fn check_output(&self, output: &Value) -> Result<(), String> {
        if depth(output) > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        let Some(validator) = &self.output else { return Ok(()) };
        match validator.iter_errors(output).flat_map(|e| violations(&e)).next() {
            None => Ok(()),
            Some(Violation { pointer, detail }) => {
                Err(format!("it does not fit the tool's output schema at `{pointer}`: {detail}"))
            }
        }
    }
}

fn classify<'a>(classifier: &'a Classifier, arguments: &'a Arguments) -> Result<&'a str, Violation> {
    match classifier {
        Classifier::Constant(word) => Ok(word),
        Classifier::From { from } => arguments.value.pointer(from).and_then(Value::as_str).ok_or_else(|| absent(from)),
    }
}

fn absent(pointer: &str) -> Violation {
    Violation { pointer: pointer.to_owned(), detail: "is required".to_owned() }
}

fn pod(executor: &Executor, image: String) -> Pod {
    let placement = executor.kubernetes.clone().unwrap_or_default();
    Pod {
        image,
        service_account: executor.service_account.clone(),
        runtime_class: executor.runtime_class.clone(),
        node_selector: placement.node_selector,
        tolerations: placement.tolerations,
        image_pull_secrets: placement.image_pull_secrets,
        cpu_request_millis: placement.cpu_request.map(|cpu| cpu.millis),
    }
}

fn sandbox(definition: &Definition, source: Source, rules: &Rules) -> Result<SandboxSpec, Unavailable> {
    let executor = &definition.executor;
    let container = executor.backend != BackendKind::Wasm;
    let waiting = if executor.warm.is_some() { LIFE_WARM } else { Duration::ZERO };
    let half = ByteSize(executor.memory.0 / 2);
    if let Some(sources) = &rules.sources {
        definition.credentials.iter().try_for_each(|one| available(one, sources))?;
    }
    let mut mounts = executor.mounts.clone();
    for mount in &mut mounts {
        mount.source = artefact::mount_source(&mount.source, &rules.allowed_mounts)?;
    }
    Ok(SandboxSpec {
        source,
        memory: executor.memory,
        cpu_millis: executor.cpu.map_or(1000, |c| c.millis),
        pids: executor.pids.unwrap_or(if container { 64 } else { 1 }),
        scratch: executor.scratch.unwrap_or(if container { half.min(ByteSize::mebibytes(16)) } else { ByteSize(0) }),
        mounts,
        network: if container { executor.reaches() } else { BTreeSet::new() },
        // Twice: a token may take as long as the start before it.
        life: rules.start_timeout * 2 + waiting + executor.timeout + LIFE_BEYOND_TIMEOUT,
    })
}

/// Whether the configuration has the source, and the source offers what is asked of it.
fn available(one: &CredentialUse, sources: &BTreeMap<String, Offer>) -> Result<(), Unavailable> {
    let name = &one.source;
    let Some(Offer { scopes, fields }) = sources.get(name) else {
        let missing = format!("there is no credential source `{name}`; add it under `credentials` in the configuration");
        return Err(Unavailable(missing));
    };
    let list = |all: &BTreeSet<String>| all.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    match scopes {
        Scopes::None if !one.scopes.is_empty() => {
            return Err(Unavailable(format!("the credential source `{name}` has no scopes; leave `scopes` out")));
        }
        Scopes::These(known) if !one.scopes.iter().all(|scope| known.contains(scope)) => {
            return Err(Unavailable(format!(
                "the credential source `{name}` is configured with the scopes {} only",
                list(known)
            )));
        }
        _ => {}
    }
    match (fields, &one.field) {
        (Some(fields), Some(field)) if !fields.contains(field) => {
            Err(Unavailable(format!("a credential of `{name}` has no part `{field}`; it has {}", list(fields))))
        }
        _ => Ok(()),
    }
}

/// Over the definition in one canonical form, and what it runs. Where the module lies does not count, its content does.
fn digest(definition: &Definition, spec: &Result<SandboxSpec, Unavailable>) -> String {
    let mut hash = Sha256::new();
    hash.update(canonical(&serde_json::to_value(definition).unwrap_or_default()).to_string());
    hash.update([0]);
    hash.update(match spec.as_ref().map(|s| &s.source) {
        Ok(Source::Module { sha256, .. }) => sha256,
        Ok(Source::Image(image)) => image,
        Ok(Source::Pod(pod)) => &pod.image,
        Err(_) => "unavailable",
    });
    hex::encode(hash.finalize())
}

/// The same value with the members of every object in the order of their names.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            Value::Object(sorted.into_iter().map(|(name, member)| (name.clone(), canonical(member))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        scalar => scalar.clone(),
    }
}

/// Writes whole numbers one way. Beyond 2^53 a float does not know which whole number it is, and stays.
fn settle_numbers(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() <= EXACT) {
                #[expect(clippy::cast_possible_truncation, reason = "whole and at most 2^53, so it fits exactly")]
                let whole = whole as i64;
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle_numbers),
        Value::Object(members) => members.values_mut().for_each(settle_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
