//! What every engine's sandboxes carry, so that whoever finds one knows whose it is and when it may go. None of it is of a call: a
//! warm sandbox has none yet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::spec::SandboxSpec;
use crate::{Found, InstanceId, SandboxId};

/// The label that marks a sandbox, and holds its id.
pub(crate) const LABEL_SANDBOX: &str = "mayfly.dev/sandbox";
/// Who started it.
pub(crate) const LABEL_INSTANCE: &str = "mayfly.dev/instance";
/// Digest of its spec: sandboxes that are equal are interchangeable.
pub(crate) const LABEL_SPEC: &str = "mayfly.dev/spec";
/// When it is anyone's to destroy, in Unix seconds.
pub(crate) const LABEL_EXPIRES_AT: &str = "mayfly.dev/expires-at";

/// The labels of one sandbox.
///
/// # Errors
/// A sentence, when the spec cannot be written as labels.
pub(crate) fn labels(
    spec: &SandboxSpec,
    id: SandboxId,
    instance: InstanceId,
    expires_at: SystemTime,
) -> Result<[(&'static str, String); 4], String> {
    let expires = expires_at.duration_since(UNIX_EPOCH).map_err(|_| "its end lies before 1970")?;
    Ok([
        (LABEL_SANDBOX, id.to_string()),
        (LABEL_INSTANCE, instance.to_string()),
        (LABEL_SPEC, spec.digest()?),
        (LABEL_EXPIRES_AT, expires.as_secs().saturating_add(1).to_string()),
    ])
}

/// An id as we write it. A UUID has other spellings, which would be found and not deleted.
pub(crate) fn sandbox(text: &str) -> Option<SandboxId> {
    text.parse().ok().filter(|id: &SandboxId| id.to_string() == text)
}

/// A sandbox as its labels tell it. What carries our label and not the rest is none of ours to touch.
pub(crate) fn found<'a>(label: impl Fn(&str) -> Option<&'a String>) -> Option<Found> {
    let expires: u64 = label(LABEL_EXPIRES_AT)?.parse().ok()?;
    Some(Found {
        id: sandbox(label(LABEL_SANDBOX)?)?,
        instance: label(LABEL_INSTANCE)?.parse().ok()?,
        expires_at: UNIX_EPOCH.checked_add(Duration::from_secs(expires))?,
    })
}
