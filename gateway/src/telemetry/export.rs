//! The way out for traces: a bounded queue, a batching thread of the SDK's, and a runtime of our own to send from.
//!
//! # Guarantees
//! - Offering spans never waits. A trace that finds no room is dropped whole and counted, rather than shown in pieces.
//! - A collector that is dead or never answers costs calls nothing: every batch has a deadline, on threads that serve no call.
//! - [`Exporter::shutdown`] takes as long as it is told at most, on any runtime or none: it never waits for the caller's own
//!   threads, because sending does not happen there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::{Builder, Handle, Runtime};

use super::record::{Origin, Record};
use super::settings::{Protocol, Settings, Target};
use super::{TelemetryError, names};

/// Sends finished spans to a collector.
pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    runtime: Mutex<Option<Runtime>>,
    queue: Arc<Queue>,
    closed: AtomicBool,
    ours: InstrumentationScope,
    sandbox: InstrumentationScope,
}

/// How full the processor's queue is, which it does not say itself, and what was lost.
#[derive(Debug)]
struct Queue {
    capacity: usize,
    waiting: AtomicUsize,
    dropped: Counter,
    /// Whether the last batch failed: said once, not once a batch.
    failing: AtomicBool,
}

impl Exporter {
    /// Starts exporting to `target`. `dropped` counts every span that does not get there.
    pub(super) fn start(target: &Target, settings: &Settings, dropped: Counter) -> Result<Arc<Self>, TelemetryError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mayfly-export")
            .enable_all()
            .build()
            .map_err(TelemetryError::Thread)?;
        let mut exporter = {
            // The gRPC channel wants a reactor when it is made.
            let _inside = runtime.enter();
            otlp(target)?
        };
        exporter.set_resource(&resource());
        Ok(Self::over(exporter, runtime, settings, dropped))
    }

    fn over<E: SpanExporter + 'static>(exporter: E, runtime: Runtime, settings: &Settings, dropped: Counter) -> Arc<Self> {
        let queue =
            Arc::new(Queue { capacity: settings.queue, waiting: AtomicUsize::new(0), dropped, failing: AtomicBool::new(false) });
        let sender = Sender {
            exporter: Arc::new(exporter),
            runtime: runtime.handle().clone(),
            deadline: settings.batch_timeout,
            queue: queue.clone(),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue)
            .with_max_export_batch_size(settings.batch)
            .with_scheduled_delay(settings.delay)
            .build();
        let scope = |name| InstrumentationScope::builder(name).with_version(env!("CARGO_PKG_VERSION")).build();
        Arc::new(Self {
            processor: BatchSpanProcessor::new(sender, batches),
            runtime: Mutex::new(Some(runtime)),
            queue,
            closed: AtomicBool::new(false),
            ours: scope(names::SCOPE),
            sandbox: scope(names::SANDBOX_SCOPE),
        })
    }

    /// Takes these spans of a trace, or counts all of them as dropped.
    pub(super) fn offer(&self, trace_id: TraceId, root: SpanId, began_at: SystemTime, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let reserved = self.queue.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            waiting.checked_add(records.len()).filter(|sum| *sum <= self.queue.capacity)
        });
        if self.closed.load(Ordering::Acquire) || reserved.is_err() {
            if reserved.is_ok() {
                self.queue.waiting.fetch_sub(records.len(), Ordering::AcqRel);
            }
            self.queue.lost(records.len());
            return;
        }
        for record in records {
            let scope = if record.origin == Origin::Sandbox { &self.sandbox } else { &self.ours };
            self.processor.on_end(record.export(trace_id, root, began_at, scope));
        }
    }

    /// Sends what waits, for at most `patience`, and ends. What could not be sent by then is counted as dropped. Later calls do nothing.
    pub(super) fn shutdown(&self, patience: Duration) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.processor.shutdown_with_timeout(patience) {
            // Nobody takes any more what came in while the last batch was sent.
            Ok(()) => self.queue.lost(self.queue.waiting.swap(0, Ordering::AcqRel)),
            Err(error) => tracing::warn!(%error, "not every span could be exported before the end"),
        }
        self.end_runtime();
    }

    /// Cancels what is being sent, which frees the batching thread wherever it waits.
    fn end_runtime(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Exporter {
    /// A runtime that is simply dropped panics on another runtime's threads.
    fn drop(&mut self) {
        self.end_runtime();
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// Sends batches from our runtime, each within its deadline; the SDK's batching thread has neither runtime nor deadline.
#[derive(Debug)]
struct Sender<E> {
    exporter: Arc<E>,
    runtime: Handle,
    deadline: Duration,
    queue: Arc<Queue>,
}

impl<E: SpanExporter + 'static> SpanExporter for Sender<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let (exporter, deadline) = (self.exporter.clone(), self.deadline);
        let sending = self.runtime.spawn(async move { tokio::time::timeout(deadline, exporter.export(batch)).await });
        let result = match sending.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(deadline)),
            Err(_) => Err(OTelSdkError::AlreadyShutdown),
        };
        self.queue.sent(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }
}

impl Queue {
    fn lost(&self, spans: usize) {
        self.dropped.inc_by(spans as u64);
    }

    fn sent(&self, spans: usize, result: &OTelSdkResult) {
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        let failed = result.is_err();
        if failed {
            self.lost(spans);
        }
        match (self.failing.swap(failed, Ordering::AcqRel), result) {
            (false, Err(error)) => {
                tracing::warn!(%error, "traces cannot be exported; calls are not affected, their spans are lost")
            }
            (true, Ok(())) => tracing::info!("traces are exported again"),
            _ => {}
        }
    }
}

fn otlp(target: &Target) -> Result<opentelemetry_otlp::SpanExporter, TelemetryError> {
    let builder = opentelemetry_otlp::SpanExporter::builder();
    match target.protocol {
        Protocol::Grpc => {
            let mut builder = builder.with_tonic().with_endpoint(&target.endpoint).with_timeout(target.timeout);
            if target.endpoint.starts_with("https:") {
                builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
            }
            builder.build()
        }
        Protocol::HttpProtobuf => {
            // Ours or one that was installed before: either way there is a provider afterwards, which the client panics without.
            let _ = rustls::crypto::ring::default_provider().install_default();
            builder
                .with_http()
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_endpoint(&target.endpoint)
                .with_timeout(target.timeout)
                .build()
        }
    }
    .map_err(|error| TelemetryError::Exporter(error.to_string()))
}

/// Who says so: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, with a name and a version where those are silent.
fn resource() -> Resource {
    use opentelemetry_semantic_conventions::resource::{SERVICE_NAME, SERVICE_VERSION};
    let found = Resource::builder().build();
    let mut builder = Resource::builder();
    let named = found.get_ref(&SERVICE_NAME.into()).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if !named {
        builder = builder.with_service_name(names::SERVICE);
    }
    if found.get_ref(&SERVICE_VERSION.into()).is_none() {
        builder = builder.with_attribute(opentelemetry::KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")));
    }
    builder.build()
}

#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
mod tests;
