//! What leaves the gateway for those who watch it: one trace a call, metrics, log lines.
//!
//! Nothing in here decides anything and nothing waits: a collector, a terminal or a pipe that is slow or gone costs spans or
//! lines, which are counted, and never a call. The durable record of a call is the ledger's, not this room's.

mod adopt;
mod export;
pub mod log;
pub mod metrics;
pub mod names;
mod recent;
mod record;
mod settings;
mod trace;
mod traceparent;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

pub use log::{CallLine, Log, LogFormat};
pub use metrics::{Metrics, SandboxWatch};
pub use trace::{CallTrace, SpanGuard};
pub use traceparent::TraceParent;

use crate::call::CallId;
use crate::view::SpanView;
use export::Exporter;
use recent::Recent;
use settings::Settings;

/// Everything that watches calls; shared as `Arc`.
pub struct Telemetry {
    log: Log,
    metrics: Arc<Metrics>,
    recent: Recent,
    exporter: Option<Arc<Exporter>>,
}

/// Telemetry could not be set up. The gateway does not start without what its operator asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// Variables that cannot be understood, all of them.
    #[error("{}", .0.join("; "))]
    Settings(Vec<String>),
    /// The exporter refused its configuration.
    #[error("traces cannot be exported as OTEL_EXPORTER_OTLP_* say: {0}")]
    Exporter(String),
    /// A thread could not be started.
    #[error("a telemetry thread could not be started")]
    Thread(#[source] std::io::Error),
    /// `MAYFLY_LOG` or `RUST_LOG` cannot be read as a filter.
    #[error("{variable} must be a log filter such as `info` or `info,mayfly_gateway=debug`")]
    Filter {
        /// Which of the two.
        variable: &'static str,
    },
    /// Another part of the process writes logs already.
    #[error("logging was set up twice in this process")]
    LogTwice,
}

impl Telemetry {
    /// Telemetry as the standard `OTEL_*` variables want it, with log lines to `log`. Says in the log where traces go.
    ///
    /// # Errors
    /// [`TelemetryError`] names every variable that is wrong.
    pub fn from_env(log: Log) -> Result<Self, TelemetryError> {
        let settings = Settings::read(|name| std::env::var(name).ok())?;
        let mut telemetry = Self::without_export(log);
        match &settings.target {
            Some(target) => {
                telemetry.exporter = Some(Exporter::start(target, &settings, telemetry.metrics.spans_dropped())?);
                let origin = url::Url::parse(&target.endpoint).map(|u| u.origin().ascii_serialization()).unwrap_or_default();
                tracing::info!(endpoint = %origin, protocol = ?target.protocol, "traces are exported");
            }
            None => tracing::info!(
                "traces stay in memory: OTEL_EXPORTER_OTLP_ENDPOINT is not set, or export is switched off; `mayfly call --trace` shows them"
            ),
        }
        Ok(telemetry)
    }

    /// Telemetry that keeps traces in memory only.
    pub fn without_export(log: Log) -> Self {
        let metrics = Arc::new(Metrics::new(log.lost()));
        Self { log, metrics, recent: Recent::new(recent::MAX_TRACES, recent::MAX_BYTES), exporter: None }
    }

    /// Begins the trace of a call that arrives now. `traceparent` is the caller's header; one that is malformed is ignored.
    pub fn begin(&self, root_name: impl Into<Cow<'static, str>>, traceparent: Option<&str>) -> CallTrace {
        self.begin_at(root_name, traceparent, Instant::now())
    }

    /// Begins the trace of a call that arrived at `arrived`, such as before its caller was authenticated.
    pub fn begin_at(&self, root_name: impl Into<Cow<'static, str>>, traceparent: Option<&str>, arrived: Instant) -> CallTrace {
        CallTrace::begin(root_name, traceparent, arrived, self.exporter.clone())
    }

    /// Keeps a finished trace in memory for [`recent`](Self::recent).
    pub fn keep(&self, id: CallId, trace: &CallTrace) {
        self.recent.keep(id, trace);
    }

    /// The spans of a call that ended not long ago. Does not ask whose call it is.
    pub fn recent(&self, id: CallId) -> Option<Vec<SpanView>> {
        self.recent.view(id)
    }

    /// The metrics.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The log.
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// Sends and writes what waits, each for at most `patience`. Blocks the thread, on any runtime, and never longer than that.
    pub fn shutdown(&self, patience: Duration) {
        if let Some(exporter) = &self.exporter {
            exporter.shutdown(patience);
        }
        self.log.flush(patience);
    }
}
