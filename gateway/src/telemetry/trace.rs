//! The trace of one call: a small tree of spans that we keep ourselves.
//!
//! Kept by us and not by the SDK's tracer, so that it can be shown as a waterfall, so that spans from inside a sandbox can
//! be put where they belong, and so that a call costs a few microseconds: one lock that nobody contends for, names that are
//! static, ids from a thread's own generator.
//!
//! # Flow
//! `begin` -> spans open and close -> `finish` seals the root -> once no span is open, what is new goes to the exporter.
//!
//! # Guarantees
//! - Nothing here waits: the exporter takes spans into a bounded queue, or counts them as dropped.
//! - A span may begin or end after `finish` (teardown does); it is exported when it ends.
//! - A trace that is dropped without `finish` is exported all the same, as failed.
//! - A trace has a bounded size, whatever a tool or a loop of ours does.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mayfly_executor::wire;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use parking_lot::Mutex;

use super::adopt;
use super::export::Exporter;
use super::record::{Origin, Record};
use super::traceparent::TraceParent;
use crate::view::SpanView;

/// Most spans of one trace, those from the sandbox included.
pub(super) const MAX_SPANS: usize = 256;
/// Most bytes of one trace: names, attributes and what holds them.
pub(super) const MAX_TRACE_BYTES: usize = 256 << 10;
/// Most bytes that a trace may still grow by once it is finished.
pub(super) const LATE_BYTES: usize = 4 << 10;

/// The trace of one call. Cheap to clone; all clones are the same trace.
#[derive(Clone)]
pub struct CallTrace(Arc<Inner>);

struct Inner {
    trace_id: TraceId,
    root: SpanId,
    began: Instant,
    began_at: SystemTime,
    exporter: Option<Arc<Exporter>>,
    state: Mutex<State>,
}

struct State {
    /// The first is the root.
    spans: Vec<Record>,
    /// Guards that live.
    open: usize,
    finished: bool,
    /// How many of `spans` the exporter was given.
    handed: usize,
    /// How many bytes the trace takes, and may take.
    used: usize,
    limit: usize,
}

/// A span that is open. It ends when this is dropped.
pub struct SpanGuard {
    trace: CallTrace,
    id: SpanId,
    /// `None`: the trace was full, and this span is not there.
    index: Option<usize>,
}

impl CallTrace {
    pub(super) fn begin(
        root_name: impl Into<Cow<'static, str>>,
        traceparent: Option<&str>,
        began: Instant,
        exporter: Option<Arc<Exporter>>,
    ) -> Self {
        let parent = traceparent.and_then(TraceParent::parse);
        let ids = RandomIdGenerator::default();
        let trace_id = parent.map_or_else(|| ids.new_trace_id(), |parent| parent.trace_id);
        let root = ids.new_span_id();
        let caller = parent.map_or(SpanId::INVALID, |parent| parent.span_id);
        let record = Record::new(root, caller, root_name.into(), Duration::ZERO, Origin::Gateway);
        let mut spans = Vec::with_capacity(16);
        let used = record.bytes();
        spans.push(record);
        let state = State { spans, open: 0, finished: false, handed: 0, used, limit: MAX_TRACE_BYTES };
        let now = SystemTime::now();
        let began_at = now.checked_sub(began.elapsed()).unwrap_or(now);
        Self(Arc::new(Inner { trace_id, root, began, began_at, exporter, state: Mutex::new(state) }))
    }

    /// The trace id: 32 hex digits.
    pub fn trace_id(&self) -> String {
        self.0.trace_id.to_string()
    }

    /// Names the root, once the tool is known to the catalog: a name that a caller made up does not become a span's.
    pub fn rename(&self, name: impl Into<Cow<'static, str>>) {
        self.0.state.lock().spans[0].name = name.into();
    }

    /// Sets an attribute of the root. The last value counts. Too late once the trace was exported.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.0.state.lock().set(0, key.into(), value.into());
    }

    /// Opens a span under the root.
    pub fn span(&self, name: &'static str) -> SpanGuard {
        self.open(self.0.root, name)
    }

    /// Enters a span that is over, such as what happened before there was a trace to put it in.
    pub fn record(&self, name: &'static str, from: Instant, until: Instant) {
        let mut record = self.new_record(self.0.root, name, from.saturating_duration_since(self.0.began));
        record.end = Some(until.saturating_duration_since(self.0.began).max(record.start));
        let mut state = self.0.state.lock();
        state.push(record);
        self.0.hand_over(&mut state);
    }

    /// Takes the spans a sandbox reported, as children of `parent`.
    ///
    /// They may have been written by a hostile tool: trace and parent are ours, ids are new, what is too many, too long or
    /// outside the parent's time is cut, and attributes are prefixed. `parent` learns how many spans were refused.
    pub fn adopt(&self, parent: &SpanGuard, spans: Vec<wire::Span>) {
        let now = self.0.began.elapsed();
        let mut state = self.0.state.lock();
        let Some(index) = parent.index else { return };
        let window = (state.spans[index].start, now);
        let present = state.spans.iter().filter(|s| s.origin == Origin::Sandbox).count();
        let offered = spans.len();
        let taken = adopt::adopt(spans, present, parent.id, window, self.0.began_at);
        let refused = offered - taken.into_iter().filter_map(|record| state.push(record)).count();
        if refused > 0 {
            state.set(index, super::names::SPANS_REFUSED.into(), Value::I64(i64::try_from(refused).unwrap_or(i64::MAX)));
        }
    }

    /// Ends the root. The trace goes to the exporter as soon as no span is open.
    pub fn finish(&self, failed: bool) {
        let mut state = self.0.state.lock();
        if state.finished {
            return;
        }
        state.finished = true;
        state.limit = state.limit.min(state.used + LATE_BYTES);
        let root = &mut state.spans[0];
        root.end = Some(self.0.began.elapsed());
        if failed && root.error.is_none() {
            root.error = Some(Cow::Borrowed(""));
        }
        self.0.hand_over(&mut state);
    }

    /// The spans as they are, in the order they began, for a waterfall. An open span lasts until now.
    pub fn view(&self) -> Vec<SpanView> {
        let now = self.0.began.elapsed();
        let state = self.0.state.lock();
        let mut spans: Vec<_> = state.spans.iter().collect();
        spans.sort_by_key(|span| span.start);
        // The caller's own span is not in this trace's waterfall: the root has no parent there.
        spans.into_iter().map(|span| span.view((span.id != self.0.root).then_some(span.parent), now)).collect()
    }

    /// The most bytes this trace can come to take. Small only once it is finished.
    pub(super) fn max_bytes(&self) -> usize {
        self.0.state.lock().limit
    }

    fn open(&self, parent: SpanId, name: &'static str) -> SpanGuard {
        let record = self.new_record(parent, name, self.0.began.elapsed());
        let id = record.id;
        let mut state = self.0.state.lock();
        let index = state.push(record);
        state.open += usize::from(index.is_some());
        drop(state);
        // What would have been a child of a span that is not there is a child of its parent.
        SpanGuard { trace: self.clone(), id: if index.is_some() { id } else { parent }, index }
    }

    fn new_record(&self, parent: SpanId, name: &'static str, start: Duration) -> Record {
        let id = RandomIdGenerator::default().new_span_id();
        Record::new(id, parent, Cow::Borrowed(name), start, Origin::Gateway)
    }
}

impl SpanGuard {
    /// Sets an attribute. The last value counts.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(index) = self.index {
            self.trace.0.state.lock().set(index, key.into(), value.into());
        }
    }

    /// Marks the span as failed, with a sentence for the operator.
    pub fn fail(&self, message: impl Into<Cow<'static, str>>) {
        let Some(index) = self.index else { return };
        let message = match message.into() {
            Cow::Owned(long) if long.len() > wire::MAX_TEXT => Cow::Owned(wire::clip(&long).to_owned()),
            short => short,
        };
        let mut state = self.trace.0.state.lock();
        let fits = state.take(message.len());
        state.spans[index].error = Some(if fits { message } else { Cow::Borrowed("") });
    }

    /// Opens a span under this one.
    pub fn child(&self, name: &'static str) -> Self {
        self.trace.open(self.id, name)
    }

    /// Moves its start to now: for a span whose id had to be known before what it measures could begin.
    pub fn restart(&self) {
        let Some(index) = self.index else { return };
        let now = self.trace.0.began.elapsed();
        self.trace.0.state.lock().spans[index].start = now;
    }

    /// The W3C `traceparent` that makes a span elsewhere a child of this one.
    pub fn traceparent(&self) -> String {
        TraceParent { trace_id: self.trace.0.trace_id, span_id: self.id }.to_string()
    }
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        let Some(index) = self.index else { return };
        let inner = &self.trace.0;
        let now = inner.began.elapsed();
        let mut state = inner.state.lock();
        state.spans[index].end = Some(now);
        state.open -= 1;
        inner.hand_over(&mut state);
    }
}

impl Inner {
    /// Gives the exporter what it does not have yet, once the call is over and nothing is open.
    fn hand_over(&self, state: &mut State) {
        if !state.finished || state.open > 0 {
            return;
        }
        if let Some(exporter) = &self.exporter {
            exporter.offer(self.trace_id, self.root, self.began_at, &state.spans[state.handed..]);
        }
        state.handed = state.spans.len();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let now = self.began.elapsed();
        let state = self.state.get_mut();
        if state.finished || self.exporter.is_none() {
            return;
        }
        state.finished = true;
        let root = &mut state.spans[0];
        root.end = Some(now);
        root.error = Some(Cow::Borrowed("the call went away before it had an outcome"));
        if let Some(exporter) = &self.exporter {
            exporter.offer(self.trace_id, self.root, self.began_at, &state.spans[state.handed..]);
        }
    }
}

impl State {
    fn push(&mut self, record: Record) -> Option<usize> {
        if self.spans.len() >= MAX_SPANS || !self.take(record.bytes()) {
            return None;
        }
        self.spans.push(record);
        Some(self.spans.len() - 1)
    }

    fn set(&mut self, index: usize, key: Key, value: Value) {
        let attribute = super::record::clipped(KeyValue::new(key, value));
        let fits = self.take(super::record::attribute_bytes(&attribute));
        self.spans[index].set(attribute, fits);
    }

    /// Whether there was room for so many bytes, which are taken.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.limit - self.used;
        if fits {
            self.used += bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests;
