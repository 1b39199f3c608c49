//! The one value that policy, record and tool all see.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

/// Validated arguments with defaults filled in, serialized once. Cheap to clone: all clones are the same value.
#[derive(Clone, PartialEq)]
pub struct Arguments {
    /// The JSON object.
    pub value: Arc<Value>,
    /// Its serialization: what the tool reads on standard input.
    pub bytes: Bytes,
    /// The object with every `writeOnly` property replaced by `"[redacted]"`: for log, record, spans.
    pub redacted: Arc<Value>,
}

impl std::fmt::Debug for Arguments {
    /// Shows the redacted form only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.redacted.fmt(f)
    }
}
