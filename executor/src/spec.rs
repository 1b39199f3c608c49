//! What a sandbox is made of, before any call is known.
//!
//! A [`SandboxSpec`] holds nothing of any call, so that two calls with the same spec can be served by
//! interchangeable sandboxes and its digest can key a pool. What belongs to one call travels in the
//! [`Invocation`](crate::wire::Invocation).

#[cfg(feature = "dispatch")]
mod loopback;
mod reach;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(feature = "dispatch")]
pub(crate) use loopback::loopbacks;
pub use reach::{API_SERVER, Destination, Reach};

/// Where sandboxes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BackendKind {
    /// A wasmtime store and instance inside the gateway's process.
    Wasm,
    /// A hardened Docker container.
    Docker,
    /// A Kubernetes Job with one hardened pod.
    Kubernetes,
}

impl BackendKind {
    /// The name used in `tool.yaml`, labels and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A number of bytes. Written as `512`, `64Ki`, `256Mi`, `1Gi` (powers of 1024, as Kubernetes writes them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` mebibytes.
    pub const fn mebibytes(n: u64) -> Self {
        Self(n << 20)
    }
}

const BYTE_UNITS: [(&str, u64); 4] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("", 1)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        BYTE_UNITS
            .iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, factor)))
            .filter(|(digits, _)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|(digits, factor)| digits.parse::<u64>().ok()?.checked_mul(*factor))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size; write a whole number with Ki, Mi or Gi, such as 256Mi"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            BYTE_UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)).unwrap_or(&("", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What runs in the sandbox, pinned to exactly one content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A wasm core module (WASI preview 1) or component (WASI preview 2).
    Module {
        /// The file it is read from when it is not compiled yet.
        path: PathBuf,
        /// Lower-case hex SHA-256 of the file. A file that no longer has it is refused.
        sha256: String,
    },
    /// A container image for Docker, by local id (`sha256:…`) or by digest (`name@sha256:…`); never by tag.
    Image(
        /// The pinned reference.
        String,
    ),
    /// A container image in a pod.
    Pod(Pod),
}

/// What a pod is made of beside the limits that every sandbox has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pod {
    /// `name@sha256:…`; a tag only where the operator allows tags.
    pub image: String,
    /// The service account it runs as. Its token is never mounted: a call gets one of its own.
    pub service_account: Option<String>,
    /// The runtime class (`gvisor`, `kata`); `None`: the cluster's default.
    pub runtime_class: Option<String>,
    /// Labels that its node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Secrets of the namespace that hold registry credentials. Only the kubelet reads them.
    pub image_pull_secrets: Vec<String>,
    /// What of its CPU ceiling a node keeps free for it, in thousandths of a core; `None`: all of it.
    pub cpu_request_millis: Option<u32>,
}

/// A taint that a pod tolerates, as Kubernetes has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; `None` with `Exists`: every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Equal` (the default) or `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The taint's value, for `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; `None`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

/// A host folder shown to the tool. Read-only: a sandbox leaves nothing behind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path on the host; the operator's configuration must allow it.
    pub source: PathBuf,
    /// Absolute path inside the sandbox.
    pub target: PathBuf,
}

/// Everything that must be known to start a sandbox, and nothing of any call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// What runs.
    pub source: Source,
    /// Memory ceiling of the whole sandbox.
    pub memory: ByteSize,
    /// CPU ceiling in thousandths of a core. The wasm backend bounds CPU by the deadline alone.
    pub cpu_millis: u32,
    /// Most processes and threads at once (containers).
    pub pids: u32,
    /// Size of the writable, memory-backed `/tmp` (containers); counts towards `memory`.
    pub scratch: ByteSize,
    /// Host folders shown read-only (containers).
    pub mounts: Vec<Mount>,
    /// Where its tool may ever connect to, through the wall (containers). Their names are known in there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub network: BTreeSet<Reach>,
    /// The longest the sandbox may exist, whatever happens. A sandbox past it is anyone's to destroy.
    pub life: Duration,
}

impl SandboxSpec {
    /// Names it: 32 hex digits, short enough for a label of any engine, and still 128 bits.
    ///
    /// # Errors
    /// A sentence, when it has no digest because a path in it is not UTF-8.
    #[cfg(any(feature = "docker", feature = "kubernetes"))]
    pub fn digest(&self) -> Result<String, String> {
        use sha2::{Digest, Sha256};
        let spec = serde_json::to_vec(self).map_err(|_| "a path of it is not UTF-8")?;
        Ok(hex::encode(&Sha256::digest(spec)[..16]))
    }

    /// Which backend the source needs.
    pub const fn backend(&self) -> BackendKind {
        match self.source {
            Source::Module { .. } => BackendKind::Wasm,
            Source::Image(_) => BackendKind::Docker,
            Source::Pod(_) => BackendKind::Kubernetes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_nothing_else() {
        assert_eq!("256Mi".parse(), Ok(ByteSize(256 << 20)));
        assert_eq!("7".parse(), Ok(ByteSize(7)));
        for wrong in ["", "Mi", "1.5Gi", "-1Mi", "256MB", "99999999999Gi", " 1Mi"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong:?}");
        }
        assert_eq!(ByteSize(1536 << 10).to_string(), "1536Ki");
    }
}
