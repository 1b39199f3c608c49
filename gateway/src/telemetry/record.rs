//! One span, as we keep it, and its two other shapes: the exporter's and the waterfall's.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use mayfly_executor::wire;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{Array, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::names;
use crate::view::SpanView;

/// Most attributes of one span.
const MAX_ATTRIBUTES: usize = 48;

/// Who made a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// We did.
    Gateway,
    /// The sandbox did: nothing in it can be trusted.
    Sandbox,
}

/// One span. Times count from the beginning of its trace.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: SpanId,
    pub(super) parent: SpanId,
    pub(super) name: Cow<'static, str>,
    pub(super) start: Duration,
    /// `None` while it is open.
    pub(super) end: Option<Duration>,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) attributes_dropped: u32,
    /// Why it failed, if it did; may be empty.
    pub(super) error: Option<Cow<'static, str>>,
    pub(super) origin: Origin,
}

impl Record {
    pub(super) const fn new(id: SpanId, parent: SpanId, name: Cow<'static, str>, start: Duration, origin: Origin) -> Self {
        Self { id, parent, name, start, end: None, attributes: Vec::new(), attributes_dropped: 0, error: None, origin }
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.attributes.iter().map(attribute_bytes).sum::<usize>()
    }

    /// Sets an attribute, or counts it as dropped when there is no room for it.
    pub(super) fn set(&mut self, attribute: KeyValue, fits: bool) {
        let present = self.attributes.iter().position(|a| a.key == attribute.key);
        match present {
            Some(index) if fits => self.attributes[index] = attribute,
            None if fits && self.attributes.len() < MAX_ATTRIBUTES => self.attributes.push(attribute),
            _ => self.attributes_dropped += 1,
        }
    }

    /// As the exporter takes it.
    pub(super) fn export(&self, trace_id: TraceId, root: SpanId, began_at: SystemTime, scope: &InstrumentationScope) -> SpanData {
        let is_root = self.id == root;
        SpanData {
            span_context: SpanContext::new(trace_id, self.id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: self.parent,
            parent_span_is_remote: is_root && self.parent != SpanId::INVALID,
            // The conventions make a tool's execution `SERVER` where it serves a request from another process, as here.
            span_kind: if is_root { SpanKind::Server } else { SpanKind::Internal },
            name: self.name.clone(),
            start_time: began_at + self.start,
            end_time: began_at + self.end.unwrap_or(self.start),
            attributes: self.attributes.clone(),
            dropped_attributes_count: self.attributes_dropped,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.error.clone().map_or(Status::Unset, |description| Status::Error { description }),
            instrumentation_scope: scope.clone(),
        }
    }

    /// As a waterfall shows it; `now` is where an open span ends.
    pub(super) fn view(&self, parent: Option<SpanId>, now: Duration) -> SpanView {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let mut attributes: std::collections::BTreeMap<_, _> =
            self.attributes.iter().map(|a| (a.key.as_str().to_owned(), json(&a.value))).collect();
        if let Some(message) = self.error.as_deref().filter(|m| !m.is_empty()) {
            attributes.entry(names::FAILURE.to_owned()).or_insert_with(|| message.into());
        }
        SpanView {
            span_id: self.id.to_string(),
            parent_span_id: parent.map(|p| p.to_string()),
            name: self.name.clone().into_owned(),
            start_us: micros(self.start),
            duration_us: micros(self.end.unwrap_or(now).saturating_sub(self.start)),
            error: self.error.is_some(),
            attributes,
        }
    }
}

/// About how many bytes an attribute takes.
pub(super) fn attribute_bytes(attribute: &KeyValue) -> usize {
    let value = match &attribute.value {
        Value::String(text) => text.as_str().len(),
        Value::Array(Array::String(texts)) => texts.iter().map(|t| t.as_str().len() + size_of_val(t)).sum(),
        Value::Array(Array::I64(numbers)) => size_of_val(&numbers[..]),
        Value::Array(Array::F64(numbers)) => size_of_val(&numbers[..]),
        Value::Array(Array::Bool(truths)) => size_of_val(&truths[..]),
        _ => 0,
    };
    size_of::<KeyValue>() + attribute.key.as_str().len() + value
}

/// Cuts a text that is too long.
pub(super) fn clipped(mut attribute: KeyValue) -> KeyValue {
    if let Value::String(text) = &attribute.value
        && text.as_str().len() > wire::MAX_TEXT
    {
        attribute.value = Value::from(wire::clip(text.as_str()).to_owned());
    }
    attribute
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(truth) => (*truth).into(),
        Value::I64(number) => (*number).into(),
        Value::F64(number) => (*number).into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(Array::Bool(truths)) => truths.clone().into(),
        Value::Array(Array::I64(numbers)) => numbers.clone().into(),
        Value::Array(Array::F64(numbers)) => numbers.clone().into(),
        Value::Array(Array::String(texts)) => texts.iter().map(|t| t.as_str()).collect::<Vec<_>>().into(),
        other => other.as_str().into_owned().into(),
    }
}
