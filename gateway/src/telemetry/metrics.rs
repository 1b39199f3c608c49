//! Metrics in the OpenMetrics text format, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
//!
//! Label values come from what is registered: agents, tools, and the enumerations in their schemas. What a caller merely
//! claims is `_unknown`, so that nobody can make this grow.

mod credentials;
mod pools;
mod sandboxes;

use std::collections::BTreeMap;
use std::time::Duration;

use mayfly_executor::BackendKind;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::names::{UNKNOWN, metric};
use crate::caller::Caller;
use crate::catalog::definition::Classifier;
use crate::catalog::{Arguments, Tool};

pub use sandboxes::SandboxWatch;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: a wasm call is far under a millisecond, a container's start is near a second, a tool may take minutes.
const CALL_SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];
const START_SECONDS: [f64; 12] = [0.00005, 0.0002, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics of a gateway.
pub struct Metrics {
    registry: Registry,
    agent_calls: Family<AgentLabels, Counter>,
    gateway_calls: Family<GatewayLabels, Counter>,
    gateway_seconds: Histograms<DurationLabels>,
    start_seconds: Histograms<StartLabels>,
    sandboxes: Family<SandboxLabels, Gauge>,
    orphans: Counter,
    pools: pools::Pools,
    credentials: credentials::Credentials,
    reload_failures: Counter,
    spans_dropped: Counter,
    scraping: Mutex<()>,
    /// What each backend's counters said at the last look.
    seen: Mutex<BTreeMap<BackendKind, sandboxes::Seen>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabels {
    agent_id: String,
    action: String,
    resource: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GatewayLabels {
    agent_id: String,
    tool: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    agent_id: String,
    tool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StartLabels {
    backend: &'static str,
    temperature: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SandboxLabels {
    backend: &'static str,
    state: &'static str,
}

impl Metrics {
    /// Metrics that start from zero. `log_lines_lost` is counted by the log.
    pub fn new(log_lines_lost: Counter) -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let call_seconds: Histograms<_> = Family::new_with_constructor(|| Histogram::new(CALL_SECONDS));
        let start_seconds: Histograms<_> = Family::new_with_constructor(|| Histogram::new(START_SECONDS));
        enter(r, metric::LOG_LINES_LOST, "Log lines that found no room or no reader", log_lines_lost);
        Self {
            agent_calls: enter(r, metric::AGENT_TOOL_CALLS, "Calls by what was asked and what became of it", Family::default()),
            gateway_calls: enter(
                r,
                metric::GATEWAY_CALLS,
                "Calls by true status, whatever the caller was shown",
                Family::default(),
            ),
            gateway_seconds: enter(r, metric::GATEWAY_DURATION, "Time from a call's arrival to its outcome", call_seconds),
            start_seconds: enter(r, metric::SANDBOX_START, "Time until a sandbox was ready for its invocation", start_seconds),
            sandboxes: enter(r, metric::SANDBOXES, "Sandboxes that exist", Family::default()),
            orphans: enter(r, metric::SANDBOX_ORPHANS, "Sandboxes that the reaper found without an owner", Counter::default()),
            pools: pools::Pools::new(r),
            credentials: credentials::Credentials::new(r),
            reload_failures: enter(r, metric::RELOAD_FAILURES, "Changed tools or policies that were refused", Counter::default()),
            spans_dropped: enter(r, metric::SPANS_DROPPED, "Spans that were not exported", Counter::default()),
            scraping: Mutex::default(),
            seen: Mutex::default(),
            registry,
        }
    }

    /// Counts one call. `status` is the true one: 403 for a tool that was hidden behind a 404.
    ///
    /// `caller`, `tool` and `arguments` are `None` where the call did not get as far as having them.
    pub fn call(&self, caller: Option<&Caller>, tool: Option<&Tool>, arguments: Option<&Arguments>, status: u16, took: Duration) {
        let definition = tool.map(|tool| &tool.definition);
        let arguments = arguments.map(|arguments| &*arguments.value);
        self.count(
            caller.map_or(UNKNOWN, Caller::agent_id),
            definition.map_or(UNKNOWN, |d| &d.name),
            definition.map_or(UNKNOWN, |d| classified(&d.action, arguments)),
            definition.map_or(UNKNOWN, |d| classified(&d.resource, arguments)),
            status,
            took,
        );
    }

    fn count(&self, agent: &str, tool: &str, action: &str, resource: &str, status: u16, took: Duration) {
        let result = result(status);
        let labels = AgentLabels { agent_id: agent.into(), action: action.into(), resource: resource.into(), result };
        self.agent_calls.get_or_create(&labels).inc();
        self.gateway_calls.get_or_create(&GatewayLabels { agent_id: agent.into(), tool: tool.into(), status }).inc();
        let labels = DurationLabels { agent_id: agent.into(), tool: tool.into() };
        self.gateway_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a changed tool or policy that was refused, while the old one stays.
    pub fn reload_failed(&self) {
        self.reload_failures.inc();
    }

    /// Everything, as a scraper reads it. Call [`look_at`](Self::look_at) before, so that sandboxes are current.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a `String` cannot fail; an encoder that refuses its own labels shows as a cut text without `# EOF`.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics could not be written");
        }
        text
    }

    pub(super) fn spans_dropped(&self) -> Counter {
        self.spans_dropped.clone()
    }
}

/// Registers a metric and hands it back.
fn enter<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// What became of a call in one word. Denied is what an alert on denials wants: refused for who the caller is or what it asked
/// for. A malformed request, a limit or a fault is an error.
const fn result(status: u16) -> &'static str {
    match status {
        200..=299 => "allowed",
        401 | 403 | 404 => "denied",
        _ => "error",
    }
}

/// An action or resource: a constant of the definition, or the value of an argument that the schema enumerates.
fn classified<'a>(classifier: &'a Classifier, arguments: Option<&'a serde_json::Value>) -> &'a str {
    match classifier {
        Classifier::Constant(text) => text,
        Classifier::From { from } => arguments.and_then(|a| a.pointer(from)?.as_str()).unwrap_or(UNKNOWN),
    }
}

#[cfg(test)]
mod tests;
