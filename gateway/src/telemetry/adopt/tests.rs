use proptest::prelude::*;

use super::*;

const WINDOW: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(20));

fn began_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000)
}

fn at(offset_millis: i64) -> u64 {
    (1_000_000_000_000_000i64 + offset_millis * 1_000_000) as u64
}

fn span(id: u64, parent: Option<u64>) -> wire::Span {
    wire::Span {
        id,
        parent,
        name: format!("s{id}"),
        start_unix_nanos: at(12),
        end_unix_nanos: at(15),
        attributes: BTreeMap::new(),
        error: false,
    }
}

fn run(spans: Vec<wire::Span>) -> Vec<Record> {
    adopt(spans, 0, SpanId::from(7), WINDOW, began_at())
}

#[test]
fn an_honest_span_keeps_its_time_and_its_place() {
    let records = run(vec![span(2, Some(1)), span(1, None)]);
    assert_eq!((records[0].start, records[0].end), (Duration::from_millis(12), Some(Duration::from_millis(15))));
    assert_eq!(records[1].parent, SpanId::from(7));
    assert_eq!(records[0].parent, records[1].id, "a child may come before its parent");
    assert!(records.iter().all(|r| r.origin == Origin::Sandbox));
}

#[test]
fn times_outside_the_run_are_cut_to_it() {
    for (start, end) in [(0, u64::MAX), (u64::MAX, 0), (at(-5_000), at(5_000)), (at(15), at(12))] {
        let mut span = span(1, None);
        (span.start_unix_nanos, span.end_unix_nanos) = (start, end);
        let record = run(vec![span]).remove(0);
        let end = record.end.unwrap();
        assert!(WINDOW.0 <= record.start && record.start <= end && end <= WINDOW.1, "{start} {end:?}");
    }
}

#[test]
fn circles_strangers_and_doubles_end_under_the_run() {
    let records =
        run(vec![span(1, Some(2)), span(2, Some(3)), span(3, Some(1)), span(4, Some(4)), span(5, Some(99)), span(1, None)]);
    assert_eq!(records.len(), 6);
    assert_rooted(&records);
    assert_eq!(records[3].parent, SpanId::from(7));
    assert_eq!(records[4].parent, SpanId::from(7));
}

#[test]
fn texts_are_cut_and_cannot_steer_a_terminal_or_pass_for_ours() {
    let mut hostile = span(1, None);
    hostile.name = format!("\u{1b}[2J\u{202e}é{}", "é".repeat(1 << 20));
    hostile.attributes = (0..1_000).map(|i| (format!("mayfly.decision.allow{i}\n"), "x".repeat(1 << 16))).collect();
    let record = run(vec![hostile]).remove(0);
    assert!(record.name.len() <= MAX_NAME && !record.name.contains(['\u{1b}', '\u{202e}']), "{}", record.name);
    assert_eq!((record.attributes.len(), record.attributes_dropped), (MAX_ATTRIBUTES, 1_000 - MAX_ATTRIBUTES as u32));
    for attribute in &record.attributes {
        assert!(attribute.key.as_str().starts_with("sandbox.mayfly."), "{}", attribute.key);
        assert!(!attribute.key.as_str().contains('\n') && attribute.value.as_str().len() <= MAX_VALUE);
    }
    let mut nameless = span(1, None);
    nameless.name.clear();
    assert_eq!(run(vec![nameless])[0].name, "unnamed");
}

#[test]
fn there_is_an_end_to_their_number_and_their_bytes() {
    assert_eq!(run((0..10_000).map(|id| span(id, None)).collect()).len(), wire::MAX_SPANS);
    assert_eq!(adopt(vec![span(1, None)], wire::MAX_SPANS, SpanId::from(7), WINDOW, began_at()).len(), 0);
    let fat =
        |id| wire::Span { attributes: (0..16).map(|i| (i.to_string(), "x".repeat(1 << 10))).collect(), ..span(id, Some(id + 1)) };
    let records = run((0..64).map(fat).collect());
    assert!(!records.is_empty() && records.len() < 64);
    assert!(records.iter().map(Record::bytes).sum::<usize>() <= MAX_BYTES);
    assert_rooted(&records);
}

/// Every span reaches the run, through parents that are there.
fn assert_rooted(records: &[Record]) {
    let by_id: HashMap<_, _> = records.iter().map(|r| (r.id, r.parent)).collect();
    assert_eq!(by_id.len(), records.len(), "ids are unique");
    for record in records {
        let (mut above, mut steps) = (record.parent, 0);
        while above != SpanId::from(7) {
            above = by_id[&above];
            steps += 1;
            assert!(steps <= records.len(), "a circle");
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_a_tree_within_bounds(
        spans in prop::collection::vec((0u64..8, prop::option::of(0u64..10), any::<u64>(), any::<u64>(), "\\PC{0,200}"), 0..80)
    ) {
        let spans: Vec<_> = spans.into_iter().map(|(id, parent, start, end, name)| wire::Span {
            id, parent, attributes: [(name.clone(), name.clone())].into(), name, start_unix_nanos: start, end_unix_nanos: end, error: id % 2 == 0,
        }).collect();
        let records = run(spans);
        prop_assert!(records.len() <= wire::MAX_SPANS);
        assert_rooted(&records);
        for record in &records {
            let end = record.end.unwrap();
            prop_assert!(WINDOW.0 <= record.start && record.start <= end && end <= WINDOW.1);
        }
    }
}
