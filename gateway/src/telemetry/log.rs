//! Log lines: one JSON object a line, or text where a person reads.
//!
//! Everything goes through one writing thread, so that lines stay whole and nobody who logs waits for a pipe or a disk. Its
//! queue is bounded in lines and in bytes. When a reader stalls and the queue is full, lines are lost, never silently: they
//! are counted in `mayfly_log_lines_lost_total`, and the next line that gets through says how many. That is the choice
//! between a call that hangs on somebody's full pipe and a line that is missing: the durable record of every call is the
//! ledger's, and it can always be read again from there.

mod line;
mod writer;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::TelemetryError;
use writer::Writer;

pub use line::{CallLine, Output, OutputKind};

/// What crates say that is noise to whoever operates a gateway, unless the filter names them.
const QUIET: &str = "hyper=warn,hyper_util=warn,h2=warn,reqwest=warn,tonic=warn,tower=warn,rustls=warn,opentelemetry=warn,\
    opentelemetry_sdk=warn,opentelemetry_otlp=warn,sqlx=warn,bollard=warn,kube_client=error,wasmtime=warn,cranelift=warn,regalloc2=warn,notify=warn";
/// In this order; the first that is set counts.
const VARIABLES: [&str; 2] = ["MAYFLY_LOG", "RUST_LOG"];

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if standard error is a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where log lines go. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct Log {
    writer: Writer,
    json: bool,
}

impl Log {
    /// Sets up logging for the process, to standard error, filtered by `MAYFLY_LOG` or `RUST_LOG` (`info` by default). The
    /// lines of calls are not filtered.
    ///
    /// # Errors
    /// When the filter cannot be read, or logging was set up before.
    pub fn init(format: LogFormat) -> Result<Self, TelemetryError> {
        let (filter, _) = filter(|name| std::env::var(name).ok())?;
        let json = match format {
            LogFormat::Auto => !std::io::stderr().is_terminal(),
            LogFormat::Json => true,
            LogFormat::Text => false,
        };
        let log = Self::to(std::io::stderr(), json)?;
        log.subscriber(filter).try_init().map_err(|_| TelemetryError::LogTwice)?;
        Ok(log)
    }

    /// A log that writes to `out` and is not the process's: for tests, and for commands whose calls nobody watches
    /// ([`std::io::sink`]).
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn to(out: impl Write + Send + 'static, json: bool) -> Result<Self, TelemetryError> {
        Ok(Self { writer: Writer::start(out, json).map_err(TelemetryError::Thread)?, json })
    }

    /// Writes the line of one call. Does not wait.
    pub fn call(&self, line: &CallLine<'_>) {
        self.writer.write(if self.json { line.json() } else { line.text() });
    }

    /// Waits until what was written so far is out, for at most `patience`.
    pub fn flush(&self, patience: Duration) {
        self.writer.flush(patience);
    }

    pub(super) fn lost(&self) -> Counter {
        self.writer.lost()
    }

    fn subscriber(&self, filter: EnvFilter) -> impl tracing::Subscriber + Send + Sync + use<> {
        let layer = tracing_subscriber::fmt::layer().with_writer(self.writer.clone());
        let layer = if self.json {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        } else {
            layer.with_target(false).boxed()
        };
        tracing_subscriber::registry().with(layer.with_filter(filter))
    }
}

/// The filter, and what it was made from.
fn filter(lookup: impl Fn(&str) -> Option<String>) -> Result<(EnvFilter, String), TelemetryError> {
    let found = VARIABLES.into_iter().find_map(|name| lookup(name).filter(|v| !v.trim().is_empty()).map(|v| (name, v)));
    let (variable, wanted) = found.unwrap_or((VARIABLES[0], "info".to_owned()));
    // A later directive for the same target replaces an earlier one.
    let directives = format!("{QUIET},{wanted}");
    let filter = EnvFilter::builder().parse(&directives).map_err(|_| TelemetryError::Filter { variable })?;
    Ok((filter, directives))
}

#[cfg(test)]
mod tests;
