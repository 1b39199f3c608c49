//! What the check insists on in `executor`: one source that fits the backend, ceilings, mounts, network.

use std::path::{Component, Path};
use std::time::Duration;

use mayfly_executor::spec::{ByteSize, Destination};
use serde_json::Value;

use crate::document::{Document, Problem};
use crate::units::{Cpu, parse_duration};

const LONGEST: Duration = Duration::from_secs(3600);
const MEMORY_MOST: ByteSize = ByteSize(64 << 30);
const OUTPUT_MOST: ByteSize = ByteSize(64 << 20);
/// Folders of a container that mean something to the kernel, to the engine or to us.
const OURS: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];

/// What only pods have.
const POD: [&str; 3] = ["service_account", "runtime_class", "kubernetes"];

/// Every mistake in it.
pub(super) fn check(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(executor) = document.value.get("executor").filter(|e| e.is_object()) else { return problems };
    let backend = executor.get("backend").and_then(Value::as_str).unwrap_or_default();
    match backend {
        "wasm" => wasm(document, executor, &mut problems),
        "docker" | "kubernetes" => container(document, executor, backend, &mut problems),
        _ => {}
    }
    ceilings(document, executor, backend, &mut problems);
    mounts(document, executor, &mut problems);
    problems
}

fn wasm(document: &Document, executor: &Value, problems: &mut Vec<Problem>) {
    match executor.get("module").and_then(Value::as_str).map(Path::new) {
        None => {
            problems.push(document.error("/executor/module", "is missing", "the module's file, a path inside the tool's folder"))
        }
        Some(path) if !path.components().all(|c| matches!(c, Component::Normal(_))) => {
            problems.push(document.error(
                "/executor/module",
                "leads out of the tool's folder",
                "a path inside the tool's folder, without `..`",
            ));
        }
        Some(_) => {}
    }
    refuse(document, executor, &["image", "cpu", "mounts", "scratch", "pids"], "is for docker", problems);
    refuse(document, executor, &["warm"], "is for containers; a wasm sandbox starts in microseconds", problems);
    refuse(document, executor, &POD, "is for kubernetes", problems);
}

/// Keys of another backend.
fn refuse(document: &Document, executor: &Value, keys: &[&str], what: &str, problems: &mut Vec<Problem>) {
    for key in keys.iter().filter(|key| executor.get(**key).is_some()) {
        problems.push(document.error(&format!("/executor/{key}"), what, "leave it out, or choose another `backend`"));
    }
}

fn container(document: &Document, executor: &Value, backend: &str, problems: &mut Vec<Problem>) {
    if backend == "docker" {
        refuse(document, executor, &POD, "is for kubernetes", problems);
    } else {
        refuse(document, executor, &["mounts"], "is for docker; a pod is shown nothing of its node", problems);
    }
    match executor.get("image").and_then(Value::as_str) {
        None => problems.push(document.error(
            "/executor/image",
            "is missing",
            "an image: `name@sha256:...`, or a tag that `mayfly tool build` pins",
        )),
        Some(image) if image.contains('@') && !is_digest(image) => {
            problems.push(document.error(
                "/executor/image",
                "has no sha256 digest after `@`",
                "`name@sha256:` and 64 hex digits",
            ));
        }
        Some(_) => {}
    }
    if executor.get("module").is_some() {
        problems.push(document.error(
            "/executor/module",
            format!("is for wasm; a {backend} tool has an image"),
            "leave it out, or `backend: wasm`",
        ));
    }
    names(document, executor, problems);
}

/// Names that a container has for itself.
fn names(document: &Document, executor: &Value, problems: &mut Vec<Problem>) {
    let listed = executor.get("network").and_then(Value::as_array);
    for (index, entry) in listed.into_iter().flatten().enumerate() {
        let named = entry.as_str().and_then(|entry| entry.parse::<Destination>().ok());
        if named.is_some_and(|named| ["localhost", "sandbox"].contains(&named.host.as_str())) {
            problems.push(document.error(
                &format!("/executor/network/{index}"),
                "is the container itself",
                "a name or an address that the gateway can connect to",
            ));
        }
    }
}

/// Whether an image reference names exactly one content by its digest.
pub(in crate::catalog) fn is_digest(image: &str) -> bool {
    let hex =
        image.strip_prefix("sha256:").or_else(|| Some(image.split_once("@sha256:").filter(|(name, _)| !name.is_empty())?.1));
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn ceilings(document: &Document, executor: &Value, backend: &str, problems: &mut Vec<Problem>) {
    let text = |key: &str| executor.get(key).and_then(Value::as_str);
    let size = |key: &str| text(key).and_then(|t| t.parse::<ByteSize>().ok());
    let mut refuse =
        |key: &str, what: String, accepted: &str| problems.push(document.error(&format!("/executor/{key}"), what, accepted));

    if let Some(timeout) = text("timeout").and_then(|t| parse_duration(t).ok())
        && (timeout.is_zero() || timeout > LONGEST)
    {
        refuse("timeout", "is out of bounds".to_owned(), "1ms to 1h");
    }
    let least = ByteSize::mebibytes(if backend == "wasm" { 1 } else { 16 });
    let memory = size("memory");
    if memory.is_some_and(|m| m < least || m > MEMORY_MOST) {
        refuse("memory", format!("is out of bounds for {backend}"), &format!("{least} to {MEMORY_MOST}"));
    }
    if size("output_limit").is_some_and(|o| o.0 == 0 || o > OUTPUT_MOST) {
        refuse("output_limit", "is out of bounds".to_owned(), &format!("1 to {OUTPUT_MOST}"));
    }
    if size("scratch").zip(memory).is_some_and(|(scratch, memory)| scratch >= memory) {
        refuse("scratch", "is not less than `memory`, which it counts towards".to_owned(), "less than `memory`");
    }
    let cpu =
        |at: &str| executor.pointer(at).map(|cpu| cpu.as_str().map_or_else(|| cpu.to_string(), ToOwned::to_owned).parse::<Cpu>());
    let ceiling = cpu("/cpu");
    if ceiling.as_ref().is_some_and(|cpu| !cpu.as_ref().is_ok_and(|c| (10..=64_000).contains(&c.millis))) {
        refuse("cpu", "is out of bounds, or finer than a thousandth".to_owned(), "10m to 64 cores, written 0.5 or 500m");
    }
    let most = ceiling.and_then(Result::ok).map_or(1000, |cpu| cpu.millis);
    if cpu("/kubernetes/cpu_request").is_some_and(|cpu| !cpu.is_ok_and(|c| (1..=most).contains(&c.millis))) {
        refuse("kubernetes/cpu_request", "is out of bounds, or finer than a thousandth".to_owned(), "1m to `cpu`, written 50m");
    }
}

fn mounts(document: &Document, executor: &Value, problems: &mut Vec<Problem>) {
    let mounts = executor.get("mounts").and_then(Value::as_array);
    let mut targets: Vec<&Path> = Vec::new();
    for (index, mount) in mounts.into_iter().flatten().enumerate() {
        let at = |key: &str| format!("/executor/mounts/{index}/{key}");
        if let Some(source) = mount.get("source").and_then(Value::as_str).map(Path::new)
            && !plain(source)
        {
            problems.push(document.error(&at("source"), format!("is `{}`", source.display()), "an absolute path without `..`"));
        }
        let Some(target) = mount.get("target").and_then(Value::as_str).map(Path::new) else { continue };
        if !plain(target) || target == Path::new("/") || OURS.iter().any(|ours| target.starts_with(ours)) {
            problems.push(document.error(
                &at("target"),
                format!("is `{}`", target.display()),
                format!("an absolute path without `..`, not `/`, and not in {}", OURS.join(", ")),
            ));
        }
        if targets.iter().any(|t| t.starts_with(target) || target.starts_with(t)) {
            problems.push(document.error(&at("target"), "overlaps another mount's target", "a folder of its own for each mount"));
        }
        targets.push(target);
    }
}

/// Whether a path is absolute and goes straight down.
fn plain(path: &Path) -> bool {
    path.is_absolute() && path.components().skip(1).all(|c| matches!(c, Component::Normal(_)))
}
