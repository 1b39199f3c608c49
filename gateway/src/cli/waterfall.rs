//! A call's trace as a waterfall: one line a span, its bar where and as long as it ran.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::view::SpanView;

/// Width of a duration: `123456.78 ms`.
const DURATION: usize = 12;
/// A bar area narrower than this shows nothing.
const LEAST_BAR: usize = 10;
/// Most levels of indentation shown; deeper spans stand where these end.
const MAX_DEPTH: usize = 12;

const RED: &str = "\u{1b}[31m";
const CYAN: &str = "\u{1b}[36m";
const RESET: &str = "\u{1b}[0m";

/// Draws `spans` in at most `width` columns (at least 40), parents before children, siblings by start; a failed span is marked.
/// Ends with a line break, unless there is nothing to draw.
pub fn render(spans: &[SpanView], width: usize, colour: bool) -> String {
    let rows = in_order(spans);
    let begin = spans.iter().map(|span| span.start_us).min().unwrap_or(0);
    let end = spans.iter().map(|span| span.start_us.saturating_add(span.duration_us)).max().unwrap_or(0);
    let names: Vec<String> = rows.iter().map(|(depth, span)| name(*depth, span)).collect();
    let width = width.max(40);
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let column = longest.min(width / 2 - DURATION / 2);
    let bar = (width - column).saturating_sub(DURATION + 3);
    let scale = Scale { begin, length: end.saturating_sub(begin).max(1), columns: if bar < LEAST_BAR { 0 } else { bar } };
    let mut text = String::new();
    for ((_, span), name) in rows.iter().zip(&names) {
        let (left, drawn) = scale.bar(span);
        let right = scale.columns - left - drawn.chars().count();
        let (on, off) = match (colour, span.error) {
            (false, _) => ("", ""),
            (true, true) => (RED, RESET),
            (true, false) => (CYAN, RESET),
        };
        let name = cut(name, column);
        let milliseconds = span.duration_us as f64 / 1000.0;
        let mark = if span.error { " ✗" } else { "" };
        let gap = if scale.columns == 0 { "" } else { " " };
        let line = format!("{name:column$}{gap}{:left$}{on}{drawn}{off}{:right$}{milliseconds:>9.2} ms{mark}", "", "");
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The columns to draw in: `COLUMNS`, or 100.
pub fn width_from_environment() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(100)
}

/// Time to columns.
struct Scale {
    begin: u64,
    length: u64,
    columns: usize,
}

impl Scale {
    /// Columns left of the bar, and the bar: at least one column, never past the end.
    fn bar(&self, span: &SpanView) -> (usize, String) {
        if self.columns == 0 {
            return (0, String::new());
        }
        let column = |microseconds: u64| (microseconds as f64 / self.length as f64 * self.columns as f64) as usize;
        let start = span.start_us - self.begin;
        let left = column(start).min(self.columns - 1);
        let right = column(start.saturating_add(span.duration_us)).clamp(left, self.columns);
        // What is shorter than a column is drawn thinner than one.
        (left, if right == left { "▏".to_owned() } else { "█".repeat(right - left) })
    }
}

/// Every span once, with its depth. Spans come from sandboxes too: parents that are missing or lead in a circle make roots.
fn in_order(spans: &[SpanView]) -> Vec<(usize, &SpanView)> {
    let mut by_start: Vec<&SpanView> = spans.iter().collect();
    by_start.sort_by_key(|span| (span.start_us, std::cmp::Reverse(span.duration_us)));
    let known: HashSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    let is_root = |span: &SpanView| span.parent_span_id.as_deref().is_none_or(|parent| !known.contains(parent));
    let (mut rows, mut drawn) = (Vec::new(), HashSet::new());
    // Roots first; what they do not lead to is a circle, entered anywhere.
    for root in by_start.iter().filter(|span| is_root(span)).chain(&by_start) {
        let mut stack = vec![(0, *root)];
        while let Some((depth, span)) = stack.pop() {
            if drawn.insert(std::ptr::from_ref(span)) {
                rows.push((depth, span));
                let children = by_start.iter().rev().filter(|child| child.parent_span_id.as_deref() == Some(&span.span_id));
                stack.extend(children.map(|child| (depth + 1, *child)));
            }
        }
    }
    rows
}

fn name(depth: usize, span: &SpanView) -> String {
    let harmless: String = span.name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("{:indent$}{harmless}", "", indent = 2 * depth.min(MAX_DEPTH))
}

fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: Option<&str>, name: &str, start_us: u64, duration_us: u64) -> SpanView {
        SpanView {
            span_id: id.into(),
            parent_span_id: parent.map(str::to_owned),
            name: name.into(),
            start_us,
            duration_us,
            error: false,
            attributes: Default::default(),
        }
    }

    fn call() -> Vec<SpanView> {
        vec![
            span("1", None, "execute_tool http_probe", 0, 41_234),
            span("5", Some("1"), "tool.run", 9_100, 30_000),
            span("2", Some("1"), "authenticate", 10, 12),
            span("3", Some("1"), "authorize", 30, 900),
            span("4", Some("1"), "sandbox.start", 1_200, 7_900),
            SpanView { error: true, ..span("6", Some("5"), "GET https://api.example.com/a/rather/long/path", 12_000, 25_000) },
            span("7", Some("1"), "settle", 39_200, 1_800),
        ]
    }

    #[test]
    fn a_call_at_100_columns() {
        insta::assert_snapshot!(render(&call(), 100, false));
    }

    #[test]
    fn a_call_at_60_columns() {
        insta::assert_snapshot!(render(&call(), 60, false));
    }

    #[test]
    fn a_call_in_colour() {
        insta::assert_snapshot!(render(&call(), 80, true).replace('\u{1b}', "ESC"));
    }

    #[test]
    fn no_line_is_wider_than_asked() {
        for width in [40, 41, 59, 80, 200] {
            for line in render(&call(), width, false).lines() {
                // The mark of a failure stands outside.
                assert!(line.trim_end_matches(" ✗").chars().count() <= width, "{width}: {line}");
            }
        }
        assert!(render(&call(), 0, false).lines().count() == 7);
    }

    #[test]
    fn hostile_spans_are_drawn_once_each_and_command_nothing() {
        let mut spans = vec![
            span("a", Some("b"), "circle", 5, 1),
            span("b", Some("a"), "circle too", 6, u64::MAX),
            span("c", Some("c"), "its own parent", 0, 0),
            span("d", Some("missing"), "orphan\u{1b}[2J\n", u64::MAX, u64::MAX),
            span("e", None, "twin", 1, 1),
            span("e", None, "twin", 1, 1),
        ];
        spans.extend((0..100).map(|n| span(&format!("n{n}"), (n > 0).then(|| format!("n{}", n - 1)).as_deref(), "deep", n, 1)));
        let text = render(&spans, 100, false);
        assert_eq!(text.lines().count(), spans.len(), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert_eq!(render(&[], 100, false), "");
    }
}
