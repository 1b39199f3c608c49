//! Spans from inside a sandbox, made harmless. Pure: values in, values out.
//!
//! A hostile tool may have written every byte of them. What remains of one is its name, its length within the time it can
//! have had, its place in its own tree, and attributes that nobody can take for ours.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_executor::wire;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::names::SANDBOX_PREFIX;
use super::record::{Origin, Record};

/// Longest name or attribute key, in bytes.
const MAX_NAME: usize = 128;
/// Longest attribute value, in bytes.
const MAX_VALUE: usize = 1 << 10;
/// Most attributes of one span.
const MAX_ATTRIBUTES: usize = 16;
/// Most bytes of all of them together.
const MAX_BYTES: usize = 64 << 10;

/// What is taken of `spans`: under `parent`, within `window` (from the trace's beginning at `began_at`), at most
/// [`wire::MAX_SPANS`] with the `present` ones.
pub(super) fn adopt(
    mut spans: Vec<wire::Span>,
    present: usize,
    parent: SpanId,
    window: (Duration, Duration),
    began_at: SystemTime,
) -> Vec<Record> {
    spans.truncate(wire::MAX_SPANS.saturating_sub(present));
    let parents = parents(&spans);
    let generator = RandomIdGenerator::default();
    let ids: Vec<_> = spans.iter().map(|_| generator.new_span_id()).collect();
    let began_nanos = began_at.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
    let within = |nanos: u64| Duration::from_nanos(nanos.saturating_sub(began_nanos)).clamp(window.0, window.1.max(window.0));
    let mut room = MAX_BYTES;
    let mut records = Vec::with_capacity(spans.len());
    for (index, span) in spans.into_iter().enumerate() {
        let above = parents[index].map_or(parent, |p| ids[p]);
        let start = within(span.start_unix_nanos);
        let mut record = Record::new(ids[index], above, name(&span.name), start, Origin::Sandbox);
        record.end = Some(within(span.end_unix_nanos).max(start));
        record.error = span.error.then_some(Cow::Borrowed(""));
        set_attributes(&mut record, span.attributes);
        let bytes = record.bytes();
        if bytes > room {
            break;
        }
        room -= bytes;
        records.push(record);
    }
    settle_parents(&mut records, parent);
    records
}

/// The index of every span's parent in the same list; `None` where it named none, an unknown one, itself, or a circle.
fn parents(spans: &[wire::Span]) -> Vec<Option<usize>> {
    let mut first = HashMap::with_capacity(spans.len());
    for (index, span) in spans.iter().enumerate() {
        first.entry(span.id).or_insert(index);
    }
    let mut parents: Vec<_> = spans.iter().map(|s| s.parent.and_then(|p| first.get(&p).copied())).collect();
    for start in 0..parents.len() {
        let (mut at, mut steps) = (start, 0);
        while let Some(next) = parents[at] {
            at = next;
            steps += 1;
            if steps > spans.len() {
                parents[start] = None;
                break;
            }
        }
    }
    parents
}

/// Puts spans whose parent was not taken directly under `parent`.
fn settle_parents(records: &mut [Record], parent: SpanId) {
    let taken: std::collections::HashSet<_> = records.iter().map(|r| r.id).collect();
    for record in records.iter_mut().filter(|r| !taken.contains(&r.parent)) {
        record.parent = parent;
    }
}

fn name(given: &str) -> Cow<'static, str> {
    let clean = clean(given, MAX_NAME);
    if clean.is_empty() { Cow::Borrowed("unnamed") } else { Cow::Owned(clean) }
}

fn set_attributes(record: &mut Record, attributes: BTreeMap<String, String>) {
    let given = attributes.len();
    record.attributes = attributes
        .into_iter()
        .take(MAX_ATTRIBUTES)
        .map(|(key, value)| KeyValue::new(format!("{SANDBOX_PREFIX}{}", clean(&key, MAX_NAME)), clean(&value, MAX_VALUE)))
        .collect();
    record.attributes_dropped = u32::try_from(given - record.attributes.len()).unwrap_or(u32::MAX);
}

/// Cuts at `most` bytes and takes out what could steer a terminal.
fn clean(text: &str, most: usize) -> String {
    let cut = &text[..text.floor_char_boundary(most.min(text.len()))];
    cut.chars().map(|c| if c.is_control() || turns_text(c) { ' ' } else { c }).collect()
}

/// Whether a character changes the direction of text, and so what a reader believes to read.
const fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
