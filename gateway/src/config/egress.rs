//! What calls may do outside, as the operator sets it for all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mayfly_executor::egress::{Limits, Terms, trust};
use mayfly_executor::spec::{ByteSize, Destination};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::{Document, Problem};
use crate::units::{duration_schema, duration_text, size_schema};

/// What calls may do outside, within what their tools list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// The most connections of one call, all of them together.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: u32,
    /// The most bytes of one call, both ways together: 1Ki to 1024Gi.
    #[schemars(schema_with = "size_schema")]
    pub bytes: ByteSize,
    /// How long a connection may take to stand: 100ms to 1m.
    #[serde(with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub connect_timeout: Duration,
    /// PEM files of further roots to trust where the gateway speaks TLS for a tool, beside those that browsers trust.
    #[schemars(with = "Vec<String>", length(max = 64))]
    pub trust: Vec<PathBuf>,
    /// Where destinations are, instead of where DNS says: host:port to address:port. An address in here may be inside.
    #[schemars(with = "BTreeMap<String, String>")]
    pub routes: BTreeMap<String, SocketAddr>,
}

impl Default for EgressConfig {
    fn default() -> Self {
        let Limits { connections, bytes, connect_timeout } = Limits::default();
        Self { connections, bytes, connect_timeout, trust: Vec::new(), routes: BTreeMap::new() }
    }
}

impl EgressConfig {
    /// What follows from it. The files are read now.
    ///
    /// # Errors
    /// A sentence: a file cannot be read, or holds no root.
    pub fn terms(&self) -> Result<Terms, String> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
        let roots = self.trust.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let tls = trust(&roots).map_err(|why| format!("a file of `egress.trust` is of no use: {why}"))?;
        let routes = self.routes.iter().filter_map(|(name, address)| Some((name.parse::<Destination>().ok()?, *address)));
        let limits = Limits { connections: self.connections, bytes: self.bytes, connect_timeout: self.connect_timeout };
        Ok(Terms { limits, tls, routes: routes.collect() })
    }

    /// What its shape alone does not tell.
    pub(super) fn check(&self, document: &Document) -> Vec<Problem> {
        let mut problems = Vec::new();
        for name in self.routes.keys().filter(|name| name.parse::<Destination>().is_err()) {
            let pointer = format!("/egress/routes/{}", name.replace('~', "~0").replace('/', "~1"));
            problems.push(document.error(&pointer, "is no destination", "host:port, such as db.internal:5432"));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.connect_timeout) {
            problems.push(document.error("/egress/connect_timeout", "is out of bounds", "100ms to 1m"));
        }
        if !(1 << 10..=1 << 40).contains(&self.bytes.0) {
            problems.push(document.error("/egress/bytes", "is out of bounds", "1Ki to 1024Gi"));
        }
        problems
    }
}
