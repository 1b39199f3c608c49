//! What was minted, what of it is owed to its source, and what a tool wrote of it. Sources are those of the configuration.

use std::collections::BTreeMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::super::names::metric;
use super::{Metrics, enter};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MintLabels {
    source: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: String,
}

pub(super) struct Credentials {
    minted: Family<MintLabels, Counter>,
    owed: Family<SourceLabels, Gauge>,
    written: Family<SourceLabels, Counter>,
}

impl Credentials {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            minted: enter(registry, metric::CREDENTIALS, "Credentials that calls asked for", Family::default()),
            owed: enter(
                registry,
                metric::CREDENTIALS_OWED,
                "Credentials that should be gone and are not known to be",
                Family::default(),
            ),
            written: enter(
                registry,
                metric::CREDENTIALS_WRITTEN,
                "Calls whose tool wrote a credential of theirs",
                Family::default(),
            ),
        }
    }
}

impl Metrics {
    /// Counts one credential that a call asked for.
    pub fn minted(&self, source: &str, is_there: bool) {
        let labels = MintLabels { source: source.to_owned(), result: if is_there { "minted" } else { "unavailable" } };
        self.credentials.minted.get_or_create(&labels).inc();
    }

    /// How many each source is owed, of those that are owed any.
    pub fn owed(&self, sources: BTreeMap<String, i64>) {
        self.credentials.owed.clear();
        for (source, count) in sources {
            self.credentials.owed.get_or_create(&SourceLabels { source }).set(count);
        }
    }

    /// Counts a call whose tool wrote a credential of this source.
    pub fn written(&self, source: &str) {
        self.credentials.written.get_or_create(&SourceLabels { source: source.to_owned() }).inc();
    }
}
