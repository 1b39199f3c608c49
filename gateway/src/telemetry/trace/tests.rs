use std::sync::atomic::Ordering;

use super::super::export::fixture::{Collector, exporter};
use super::*;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn begin(traceparent: Option<&str>) -> CallTrace {
    CallTrace::begin("execute_tool", traceparent, Instant::now(), None)
}

fn named<'a>(view: &'a [SpanView], name: &str) -> &'a SpanView {
    view.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no span {name} in {view:?}"))
}

#[test]
fn a_call_is_a_tree() {
    let trace = begin(None);
    trace.set("gen_ai.tool.name", "echo");
    let run = trace.span("tool.run");
    let inner = run.child("deliver");
    inner.fail("lost");
    drop(inner);
    run.set("mayfly.exit", 0);
    run.set("mayfly.exit", 1);
    drop(run);
    trace.rename("execute_tool echo");
    trace.finish(false);

    let view = trace.view();
    assert_eq!(view.len(), 3);
    let root = &view[0];
    assert_eq!((root.name.as_str(), root.parent_span_id.as_deref()), ("execute_tool echo", None));
    assert_eq!(root.attributes["gen_ai.tool.name"], "echo");
    let run = named(&view, "tool.run");
    assert_eq!(run.parent_span_id.as_ref(), Some(&root.span_id));
    assert_eq!(run.attributes["mayfly.exit"], 1, "the last value counts");
    let inner = named(&view, "deliver");
    assert_eq!(inner.parent_span_id.as_ref(), Some(&run.span_id));
    assert!(inner.error && !run.error && !root.error);
    assert_eq!(inner.attributes["mayfly.failure"], "lost");
    assert!(inner.start_us >= run.start_us && inner.start_us + inner.duration_us <= run.start_us + run.duration_us + 1);
}

#[test]
fn the_caller_s_trace_goes_on_even_when_it_is_not_sampled() {
    let trace = begin(Some(CALLER));
    assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    let header = trace.span("tool.run").traceparent();
    assert!(header.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && header.ends_with("-01"), "{header}");
    assert_eq!(trace.view()[0].parent_span_id, None, "the caller's own span is not ours to show");
}

#[test]
fn a_malformed_parent_begins_a_trace_of_its_own() {
    for wrong in [None, Some(""), Some("00-zz"), Some("00-00000000000000000000000000000000-b7ad6b7169203331-01")] {
        let (one, two) = (begin(wrong), begin(wrong));
        assert_ne!(one.trace_id(), two.trace_id());
        assert_eq!(one.trace_id().len(), 32);
    }
}

#[test]
fn what_happened_before_the_trace_begins_with_it() {
    let arrived = Instant::now();
    let trace = begin(None);
    trace.record("authenticate", arrived, arrived + Duration::from_millis(3));
    let view = trace.view();
    let span = named(&view, "authenticate");
    assert_eq!(span.start_us, 0);
    assert!(span.duration_us <= 3_000);
}

#[test]
fn a_trace_does_not_grow_without_end() {
    let trace = begin(None);
    let guards: Vec<_> = (0..MAX_SPANS + 50).map(|_| trace.span("authorize")).collect();
    assert_eq!(trace.view().len(), MAX_SPANS);
    // A span that is not there still takes everything, and stands for its parent.
    let refused = guards.last().unwrap();
    refused.set("mayfly.exit", 1);
    refused.fail("x");
    assert_eq!(refused.traceparent(), format!("00-{}-{}-01", trace.trace_id(), trace.view()[0].span_id));
    drop(guards);
    trace.finish(false);
}

#[test]
fn attributes_are_bounded_in_length_number_and_sum() {
    let trace = begin(None);
    trace.set("mayfly.resource", "é".repeat(1 << 20));
    assert!(trace.view()[0].attributes["mayfly.resource"].as_str().unwrap().len() <= wire::MAX_TEXT);
    let many: Vec<&'static str> = (0..200).map(|i| &*Box::leak(format!("mayfly.k{i}").into_boxed_str())).collect();
    for key in &many {
        trace.set(key, 1);
    }
    assert!(trace.view()[0].attributes.len() < 50);
    for _ in 0..MAX_SPANS {
        let span = trace.span("settle");
        for key in &many {
            span.set(key, "x".repeat(wire::MAX_TEXT));
        }
    }
    let state = trace.0.state.lock();
    let held: usize = state.spans.iter().map(Record::bytes).sum();
    assert!(held <= MAX_TRACE_BYTES && state.used <= MAX_TRACE_BYTES, "{held}");
    assert!(state.spans[0].attributes_dropped > 0);
}

#[test]
fn a_finished_trace_grows_by_little() {
    let trace = begin(None);
    trace.finish(false);
    let bound = trace.max_bytes();
    for _ in 0..MAX_SPANS {
        trace.span("teardown").set("mayfly.exit", "x".repeat(200));
    }
    let held: usize = trace.0.state.lock().spans.iter().map(Record::bytes).sum();
    assert!(trace.view().len() > 1 && held <= bound && bound <= LATE_BYTES + 512, "{held} of {bound}");
}

#[test]
fn finishing_twice_changes_nothing() {
    let collector = Collector::default();
    let (exporter, _) = exporter(collector.clone(), 100);
    let trace = CallTrace::begin("execute_tool", None, Instant::now(), Some(exporter.clone()));
    trace.finish(false);
    let ended = trace.view()[0].duration_us;
    std::thread::sleep(Duration::from_millis(2));
    trace.finish(true);
    assert_eq!((trace.view()[0].duration_us, trace.view()[0].error), (ended, false));
    exporter.shutdown(Duration::from_secs(5));
    assert_eq!(collector.spans().len(), 1);
}

#[test]
fn nothing_is_exported_before_the_last_span_has_ended_and_late_ones_follow() {
    let collector = Collector::default();
    let (exporter, _) = exporter(collector.clone(), 100);
    let trace = CallTrace::begin("execute_tool", Some(CALLER), Instant::now(), Some(exporter.clone()));
    let teardown = trace.span("teardown");
    trace.finish(false);
    assert_eq!(trace.0.state.lock().handed, 0);
    drop(teardown);
    assert_eq!(trace.0.state.lock().handed, 2);
    drop(trace.span("teardown"));
    drop(trace);
    exporter.shutdown(Duration::from_secs(5));
    let spans = collector.spans();
    assert_eq!(spans.iter().map(|s| s.name.as_ref()).collect::<Vec<_>>(), ["execute_tool", "teardown", "teardown"]);
    assert!(spans.iter().all(|s| s.span_context.is_sampled() && s.span_context.trace_id() == spans[0].span_context.trace_id()));
    assert!(spans[0].parent_span_is_remote && !spans[1].parent_span_is_remote);
    assert_eq!(spans[0].parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(spans[2].parent_span_id, spans[0].span_context.span_id());
}

#[test]
fn a_call_that_goes_away_is_exported_as_failed() {
    let collector = Collector::default();
    let (exporter, _) = exporter(collector.clone(), 100);
    let trace = CallTrace::begin("execute_tool", None, Instant::now(), Some(exporter.clone()));
    let span = trace.span("tool.run");
    drop(trace);
    drop(span);
    exporter.shutdown(Duration::from_secs(5));
    let spans = collector.spans();
    assert_eq!(spans.len(), 2);
    assert!(matches!(&spans[0].status, opentelemetry::trace::Status::Error { description } if !description.is_empty()));
}

#[test]
fn spans_of_the_sandbox_hang_under_the_run() {
    let trace = begin(None);
    let run = trace.span("tool.run");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let span = |id, parent| wire::Span {
        id,
        parent,
        name: format!("step {id}"),
        start_unix_nanos: now,
        end_unix_nanos: now + 1_000_000_000_000,
        attributes: [("k".to_owned(), "v".to_owned())].into(),
        error: id == 2,
    };
    trace.adopt(&run, vec![span(1, None), span(2, Some(1))]);
    trace.adopt(&run, (3..200).map(|id| span(id, None)).collect());
    drop(run);
    trace.finish(false);
    let view = trace.view();
    let (run, outer, inner) = (named(&view, "tool.run"), named(&view, "step 1"), named(&view, "step 2"));
    assert_eq!(outer.parent_span_id.as_ref(), Some(&run.span_id));
    assert_eq!(inner.parent_span_id.as_ref(), Some(&outer.span_id));
    assert!(inner.error && inner.attributes["sandbox.k"] == "v");
    assert!(inner.start_us + inner.duration_us <= run.start_us + run.duration_us + 1, "within the run's time");
    assert_eq!(view.len(), 2 + wire::MAX_SPANS, "over all reports of the call");
    assert_eq!(run.attributes["mayfly.spans.refused"], 199 - wire::MAX_SPANS as u64);
}

/// What a call costs without an exporter. Loose, because tests run unoptimized and beside others; it is there to catch a
/// change of order, such as a lock that is waited for or a copy of the tree per span.
#[test]
fn a_call_costs_microseconds() {
    let rounds = 2_000u32;
    let begun = Instant::now();
    for _ in 0..rounds {
        let trace = begin(Some(CALLER));
        for name in ["authenticate", "validate", "authorize", "mint", "commit", "sandbox.start", "tool.run", "settle"] {
            trace.span(name).set("mayfly.exit", 0);
        }
        trace.finish(false);
    }
    let each = begun.elapsed() / rounds;
    println!("begin + 8 spans + finish: {each:?}");
    assert!(each < Duration::from_micros(200), "{each:?}");
}

#[test]
fn many_threads_share_one_trace() {
    let collector = Collector::default();
    let (exporter, dropped) = exporter(collector.clone(), 1_000);
    let trace = CallTrace::begin("execute_tool", None, Instant::now(), Some(exporter.clone()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    drop(trace.span("settle").child("deliver"));
                }
            });
        }
    });
    trace.finish(false);
    let spans = trace.0.state.lock().spans.len();
    drop(trace);
    exporter.shutdown(Duration::from_secs(5));
    assert_eq!((collector.spans().len(), dropped.inner().load(Ordering::Acquire)), (spans, 0));
}
