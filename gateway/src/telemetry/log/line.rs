//! The line that every call leaves, once, at its end.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::{CallId, CallState};
use crate::catalog::Arguments;
use crate::catalog::definition::Tier;
use crate::policy::Decision;
use crate::store::Contacted;

/// Most bytes of arguments in a line.
const MAX_ARGUMENTS: usize = 2 << 10;
/// Most bytes of anything else that a caller chose.
const MAX_FIELD: usize = 256;

/// One call, at its end. What the call did not get as far as having is `None`, and `null` in the line.
///
/// As JSON it has the members `timestamp, level, event ("tool_call"), call_id, agent_id, user, task_id, tool, version, tier,
/// arguments, decision ("allow", "deny" or null), decision_id, reasons, output {bytes, type}, latency_ms, outcome, error,
/// credentials, leaked, contacted, trace_id`. Arguments are redacted; where they are longer than 2 KiB they are `{"cut": "their first bytes"}`.
#[derive(Debug, Clone, Copy)]
pub struct CallLine<'a> {
    /// The call.
    pub call_id: CallId,
    /// Who called.
    pub agent_id: Option<&'a str>,
    /// For whom.
    pub user: Option<&'a str>,
    /// The task, in its owner's words.
    pub task_id: Option<&'a str>,
    /// The tool that was asked for, whether or not it exists.
    pub tool: &'a str,
    /// The version that was resolved.
    pub version: Option<&'a str>,
    /// Its tier.
    pub tier: Option<Tier>,
    /// Validated arguments; only their redacted form is written. Unvalidated ones are nobody's to redact, so never written.
    pub arguments: Option<&'a Arguments>,
    /// What policy said.
    pub decision: Option<&'a Decision>,
    /// What came back.
    pub output: Option<Output>,
    /// From arrival to outcome.
    pub latency: Duration,
    /// The final state.
    pub outcome: CallState,
    /// The true reason where there was no result: the last part of the problem's type, such as `denied`.
    pub error: Option<&'static str>,
    /// The sources of the credentials that it was given.
    pub credentials: &'a [String],
    /// Those that stood in what the tool wrote.
    pub leaked: &'a [String],
    /// What it connected to or asked for.
    pub contacted: &'a [Contacted],
    /// The trace: 32 hex digits.
    pub trace_id: &'a str,
}

/// What came back, in brief.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Output {
    /// How long it is.
    pub bytes: usize,
    /// How it was read.
    #[serde(rename = "type")]
    pub kind: OutputKind,
}

/// How a tool's output was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// As JSON.
    Json,
    /// As text.
    Text,
}

#[derive(Serialize)]
struct Json<'a> {
    timestamp: String,
    level: &'static str,
    event: &'static str,
    call_id: CallId,
    agent_id: Option<&'a str>,
    user: Option<&'a str>,
    task_id: Option<&'a str>,
    tool: &'a str,
    version: Option<&'a str>,
    tier: Option<Tier>,
    arguments: Option<Shown<'a>>,
    decision: Option<&'static str>,
    decision_id: Option<uuid::Uuid>,
    reasons: &'a [String],
    output: Option<Output>,
    latency_ms: f64,
    outcome: CallState,
    error: Option<&'static str>,
    credentials: &'a [String],
    leaked: &'a [String],
    contacted: &'a [Contacted],
    trace_id: &'a str,
}

/// Arguments, whole or cut. Always an object, so that a log store sees one type.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Whole(&'a Value),
    Cut { cut: String },
}

impl CallLine<'_> {
    /// As JSON, with a newline.
    pub(super) fn json(&self) -> Vec<u8> {
        let line = Json {
            timestamp: now(),
            level: "INFO",
            event: "tool_call",
            call_id: self.call_id,
            agent_id: self.agent_id.map(short),
            user: self.user.map(short),
            task_id: self.task_id.map(short),
            tool: short(self.tool),
            version: self.version.map(short),
            tier: self.tier,
            arguments: self.arguments.map(|arguments| shown(&arguments.redacted)),
            decision: self.decision.map(verdict),
            decision_id: self.decision.map(|d| d.id),
            reasons: self.decision.map_or(&[], |d| &d.reasons),
            output: self.output,
            latency_ms: millis(self.latency),
            outcome: self.outcome,
            error: self.error,
            credentials: self.credentials,
            leaked: self.leaked,
            contacted: self.contacted,
            trace_id: self.trace_id,
        };
        let mut bytes = Vec::with_capacity(1 << 10);
        if let Err(error) = serde_json::to_writer(&mut bytes, &line) {
            // Only a number that is no number could do this, and `Value` holds none.
            tracing::error!(%error, call_id = %self.call_id, "the line of a call could not be written");
            bytes.clear();
        }
        bytes.push(b'\n');
        bytes
    }

    /// For people, with a newline. What a caller wrote cannot steer the terminal.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        let _ = self.write_text(&mut line);
        line.push(b'\n');
        line
    }

    fn write_text(&self, line: &mut Vec<u8>) -> io::Result<()> {
        let tool = short(self.tool).escape_debug();
        write!(line, "{}  CALL {tool} {} in {} ms", now(), self.outcome.as_str(), millis(self.latency))?;
        if let Some(error) = self.error.filter(|e| *e != self.outcome.as_str()) {
            write!(line, " ({error})")?;
        }
        for (name, value) in [("agent", self.agent_id), ("user", self.user), ("task", self.task_id)] {
            if let Some(value) = value {
                write!(line, " {name}={}", short(value).escape_debug())?;
            }
        }
        if let Some(decision) = self.decision {
            write!(line, " decision={}", verdict(decision))?;
            for reason in &decision.reasons {
                write!(line, " reason={reason:?}")?;
            }
        }
        if let Some(output) = self.output {
            write!(line, " output={} bytes", output.bytes)?;
        }
        for (name, sources) in [("credentials", self.credentials), ("leaked", self.leaked)] {
            if !sources.is_empty() {
                write!(line, " {name}={}", sources.join(","))?;
            }
        }
        if !self.contacted.is_empty() {
            let names: Vec<_> = self.contacted.iter().map(|one| one.destination.as_str()).collect();
            write!(line, " contacted={}", names.join(",").escape_debug())?;
        }
        write!(line, " call={} trace={}", self.call_id, self.trace_id)
    }
}

/// RFC 3339, UTC.
pub(super) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

const fn verdict(decision: &Decision) -> &'static str {
    if decision.allow { "allow" } else { "deny" }
}

/// To the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_FIELD.min(text.len()))]
}

fn shown(redacted: &Value) -> Shown<'_> {
    let mut head = Head(Vec::new());
    if serde_json::to_writer(&mut head, redacted).is_ok() {
        return Shown::Whole(redacted);
    }
    let text = String::from_utf8_lossy(&head.0);
    Shown::Cut { cut: text.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned() }
}

/// Takes the first [`MAX_ARGUMENTS`] bytes, and refuses more.
struct Head(Vec<u8>);

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_ARGUMENTS - self.0.len();
        self.0.extend_from_slice(&bytes[..room.min(bytes.len())]);
        if bytes.len() > room { Err(io::ErrorKind::WriteZero.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
