use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::call::{CallId, CallState};
use crate::catalog::Arguments;
use crate::catalog::definition::Tier;
use crate::policy::{Decision, Obligations};

/// What was written, for a test to read back.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn arguments(value: Value, redacted: Value) -> Arguments {
    let bytes = serde_json::to_vec(&value).unwrap().into();
    Arguments { value: value.into(), bytes, redacted: redacted.into() }
}

fn decision(allow: bool) -> Decision {
    let reasons = if allow { vec![] } else { vec!["no writes on\nFridays".to_owned()] };
    Decision { id: uuid::Uuid::now_v7(), allow, reasons, approval: false, obligations: Obligations::default() }
}

fn line<'a>(arguments: Option<&'a Arguments>, decision: Option<&'a Decision>) -> CallLine<'a> {
    CallLine {
        call_id: CallId::generate(),
        agent_id: Some("ci-bot"),
        user: None,
        task_id: Some("task-1"),
        tool: "k8s_get_deployment",
        version: Some("1.2.0"),
        tier: Some(Tier::Free),
        arguments,
        decision,
        output: Some(Output { bytes: 12, kind: OutputKind::Json }),
        latency: Duration::from_micros(12_345),
        outcome: CallState::Succeeded,
        error: None,
        credentials: &[],
        leaked: &[],
        contacted: &[],
        trace_id: "0af7651916cd43dd8448eb211c80319c",
    }
}

fn written(line: &CallLine<'_>, json: bool) -> Page {
    let page = Page::default();
    let log = Log::to(page.clone(), json).unwrap();
    log.call(line);
    log.flush(Duration::from_secs(5));
    page
}

#[test]
fn a_call_is_one_json_object_with_its_fields_at_the_top() {
    let (arguments, decision) =
        (arguments(json!({"name": "api", "key": "canary"}), json!({"name": "api", "key": "[redacted]"})), decision(true));
    let call = line(Some(&arguments), Some(&decision));
    let page = written(&call, true);
    let mut lines = page.lines();
    assert_eq!(lines.len(), 1);
    let mut line = lines.remove(0);
    let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
    assert!(time::OffsetDateTime::parse(timestamp.as_str().unwrap(), &time::format_description::well_known::Rfc3339).is_ok());
    let expected = json!({
        "level": "INFO",
        "event": "tool_call",
        "call_id": call.call_id.to_string(),
        "agent_id": "ci-bot",
        "user": null,
        "task_id": "task-1",
        "tool": "k8s_get_deployment",
        "version": "1.2.0",
        "tier": "free",
        "arguments": {"name": "api", "key": "[redacted]"},
        "decision": "allow",
        "decision_id": decision.id.to_string(),
        "reasons": [],
        "output": {"bytes": 12, "type": "json"},
        "latency_ms": 12.345,
        "outcome": "succeeded",
        "error": null,
        "credentials": [],
        "leaked": [],
        "contacted": [],
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    });
    assert_eq!(line, expected);
    assert!(!page.text().contains("canary"));
}

#[test]
fn a_call_that_got_nowhere_has_a_line_too() {
    let refused = CallLine {
        agent_id: None,
        tool: &"../".repeat(10_000),
        version: None,
        tier: None,
        output: None,
        outcome: CallState::Denied,
        error: Some("unauthenticated"),
        ..line(None, None)
    };
    let line = written(&refused, true).lines().remove(0);
    assert_eq!((&line["decision"], &line["arguments"], &line["error"]), (&Value::Null, &Value::Null, &json!("unauthenticated")));
    assert!(line["tool"].as_str().unwrap().len() <= 256);
}

#[test]
fn long_arguments_are_cut_between_characters_and_stay_an_object() {
    for value in [json!({"text": "é".repeat(100_000)}), json!({"many": vec![1; 100_000]})] {
        let arguments = arguments(Value::Null, value);
        let line = written(&line(Some(&arguments), None), true).lines().remove(0);
        let cut = line["arguments"]["cut"].as_str().unwrap();
        assert!((2_000..=2_048).contains(&cut.len()) && !cut.contains(char::REPLACEMENT_CHARACTER), "{}", cut.len());
    }
    let exact = arguments(Value::Null, json!({"t": "x".repeat(2_048 - 8)}));
    let line = written(&line(Some(&exact), None), true).lines().remove(0);
    assert!(line["arguments"]["t"].is_string(), "2 KiB exactly are not cut");
}

#[test]
fn text_for_people_stays_one_line_and_cannot_steer_the_terminal() {
    let decision = decision(false);
    let refused =
        CallLine { tool: "x\u{1b}[2J\ny", task_id: Some("\u{202e}t"), error: Some("denied"), ..line(None, Some(&decision)) };
    let refused = CallLine { outcome: CallState::Denied, ..refused };
    let text = written(&refused, false).text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    assert!(text.contains("denied in 12.345 ms agent=ci-bot") && text.contains("decision=deny"), "{text}");
}

#[test]
fn events_become_lines_of_the_same_log() {
    let page = Page::default();
    let log = Log::to(page.clone(), true).unwrap();
    let (filter, _) = filter(|_| None).unwrap();
    tracing::subscriber::with_default(log.subscriber(filter), || {
        tracing::info!(backend = "docker", "ready");
        tracing::debug!("not shown");
        tracing::info!(target: "hyper::client", "noise");
    });
    log.flush(Duration::from_secs(5));
    let lines = page.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&lines[0]["message"], &lines[0]["backend"], &lines[0]["level"]),
        (&json!("ready"), &json!("docker"), &json!("INFO"))
    );
}

#[test]
fn the_filter_is_ours_then_the_usual_one_and_a_wrong_one_is_named() {
    let both = |name: &str| Some(if name == "MAYFLY_LOG" { "debug".to_owned() } else { "trace".to_owned() });
    assert!(filter(both).unwrap().1.ends_with(",debug"));
    assert!(filter(|name| (name == "RUST_LOG").then(|| "hyper=trace".to_owned())).unwrap().0.to_string().contains("hyper=trace"));
    assert!(filter(|_| Some(" ".to_owned())).unwrap().1.ends_with(",info"));
    let error = filter(|name| (name == "RUST_LOG").then(|| "a=b=c".to_owned())).unwrap_err().to_string();
    assert!(error.contains("RUST_LOG"), "{error}");
}

/// A reader that takes nothing until it is let.
struct Stalled {
    page: Page,
    gate: Receiver<()>,
}

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.gate.recv();
        self.page.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stalled(max_lines: usize, max_bytes: usize) -> (Writer, Page, Sender<()>) {
    let (page, (open, gate)) = (Page::default(), channel());
    let writer = Writer::bounded(Stalled { page: page.clone(), gate }, true, max_lines, max_bytes).unwrap();
    (writer, page, open)
}

fn assert_lost_and_told(writer: &Writer, page: &Page, open: Sender<()>, offered: u64) {
    let begun = std::time::Instant::now();
    writer.flush(Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_secs(5), "a flush has an end, whoever reads");
    let lost = writer.lost().get();
    assert!(lost > 0 && lost < offered, "{lost} of {offered}");
    drop(open);
    writer.write(b"{\"last\":1}\n".to_vec());
    writer.flush(Duration::from_secs(5));
    let lines = page.lines();
    let told: u64 = lines.iter().filter(|l| l["event"] == "log_lines_lost").map(|l| l["count"].as_u64().unwrap()).sum();
    assert_eq!(told, writer.lost().get(), "{lines:?}");
    assert_eq!(lines.len() as u64, offered + 1 - told + lines.iter().filter(|l| l["event"] == "log_lines_lost").count() as u64);
}

#[test]
fn a_reader_that_stalls_stops_nobody_and_what_it_missed_is_said() {
    let (writer, page, open) = stalled(50, usize::MAX);
    let begun = std::time::Instant::now();
    for _ in 0..1_000 {
        // Longer than the buffer in front of the reader, so that the thread does stall.
        writer.write(format!("{{\"x\":\"{}\"}}\n", "x".repeat(1_000)).into_bytes());
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_lost_and_told(&writer, &page, open, 1_000);
}

#[test]
fn few_long_lines_are_too_much_too() {
    let (writer, page, open) = stalled(10_000, 1 << 20);
    for _ in 0..300 {
        writer.write(format!("{{\"x\":\"{}\"}}\n", "x".repeat(10_000)).into_bytes());
    }
    assert_lost_and_told(&writer, &page, open, 300);
}

/// A reader that is gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_reader_that_is_gone_shows_in_the_metric() {
    let writer = Writer::bounded(Gone, true, 100, 1 << 20).unwrap();
    for _ in 0..10 {
        writer.write(vec![b'x'; 10_000]);
    }
    writer.flush(Duration::from_secs(5));
    assert!(writer.lost().get() > 0);
}

#[test]
fn lines_of_many_threads_stay_whole() {
    let page = Page::default();
    let log = Log::to(page.clone(), true).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..200).for_each(|_| log.call(&line(None, None))));
        }
    });
    log.flush(Duration::from_secs(5));
    assert_eq!(page.lines().len(), 1_600);
}

/// Loose, as tests run unoptimized and beside others: it catches a line that waits for its reader or is parsed again.
#[test]
fn a_line_costs_microseconds() {
    let log = Log::to(io::sink(), true).unwrap();
    let (arguments, decision) =
        (arguments(json!({}), json!({"namespace": "staging", "name": "api-server", "count": 3})), decision(true));
    let (rounds, begun) = (2_000u32, std::time::Instant::now());
    for _ in 0..rounds {
        log.call(&line(Some(&arguments), Some(&decision)));
    }
    let each = begun.elapsed() / rounds;
    println!("one line: {each:?}");
    assert!(each < Duration::from_millis(1), "{each:?}");
}
