//! What leaves towards the agent is looked at first: shape, size, rows, and values that must not come back.
//!
//! Pure: a report goes in, an outcome comes out. Nothing here knows what any tool is for.

use mayfly_executor::wire::{Exit, Report};
use serde_json::{Value, json};

use crate::catalog::{DEEPEST, Tool, depth};
use crate::error::CallError;
use crate::http::strict;
use crate::policy::Obligations;
use crate::redact::{Cut, Redactor};

/// Most characters of a failed tool's standard error that the record keeps.
const DETAIL: usize = 500;

/// What a call that ran came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// What the agent gets.
    pub result: Value,
    /// Whether the tool failed.
    pub is_error: bool,
    /// How the tool ended, for the record: `code 0`, `signal 9`, `out of memory`.
    pub exit: String,
    /// What the operator may know besides: a trap, why a program did not start, the end of standard error of a tool that failed.
    pub detail: Option<String>,
    /// Whether the tool may have had an effect.
    pub may_have_run: bool,
    /// Bytes of standard output before inspection.
    pub output_bytes: usize,
}

/// Turns a report into what the agent gets.
///
/// # Errors
/// [`CallError::TimedOut`] and [`CallError::Canceled`] for a tool that we ended; [`CallError::OutputRejected`] for
/// a successful one whose output is not what its definition or the decision allows.
pub fn inspect(tool: &Tool, obligations: &Obligations, redactor: &Redactor, report: Report) -> Result<Inspected, CallError> {
    let output_bytes = report.stdout.len();
    if report.exit == Exit::Code(0) {
        let result = success(tool, obligations, redactor, &report)?;
        return Ok(Inspected { result, is_error: false, exit: "code 0".into(), detail: None, may_have_run: true, output_bytes });
    }
    let (exit, message) = failure(tool, obligations, &report.exit)?;
    // A failing tool passes no schema, and no more rows than a successful one.
    let said = matches!(report.exit, Exit::Code(_)).then(|| parse(&report.stdout).ok()).flatten();
    let said = said.filter(|v| !v.is_null() && depth(v) <= DEEPEST && rows_fit(tool, obligations, v, Rows::IfAny).is_ok());
    let exhausted: Vec<_> = report.exhausted.iter().collect();
    let mut result = match (said, exhausted.is_empty()) {
        (Some(said), true) => said,
        (Some(said), false) => json!({ "error": message, "exhausted": exhausted, "output": said }),
        (None, true) => json!({ "error": message }),
        (None, false) => json!({ "error": message, "exhausted": exhausted }),
    };
    redactor.value(&mut result);
    let may_have_run = report.exit != Exit::NotStarted;
    Ok(Inspected { result, is_error: true, exit, detail: detail(&report, redactor), may_have_run, output_bytes })
}

/// How a tool failed: for the record, and for the agent. What we ended ourselves is an error of the call instead.
fn failure(tool: &Tool, obligations: &Obligations, exit: &Exit) -> Result<(String, String), CallError> {
    let executor = &tool.definition.executor;
    let (exit, message) = match exit {
        Exit::Deadline => return Err(CallError::TimedOut(obligations.timeout.unwrap_or(executor.timeout))),
        Exit::Canceled => return Err(CallError::Canceled { may_have_run: true }),
        Exit::Code(code) => (format!("code {code}"), format!("the tool exited with code {code}")),
        Exit::Signal(signal) => (format!("signal {signal}"), format!("the tool was ended by signal {signal}")),
        Exit::OutOfMemory => {
            ("out of memory".into(), format!("the tool was killed at its memory ceiling of {}", executor.memory))
        }
        Exit::OutputLimit => {
            let limit = obligations.output_limit.unwrap_or(executor.output_limit);
            ("output limit".into(), format!("the tool was killed for writing more than its output limit of {limit}"))
        }
        Exit::NotStarted => ("not started".into(), "the tool's program could not be started".into()),
    };
    Ok((exit, message))
}

fn detail(report: &Report, redactor: &Redactor) -> Option<String> {
    let stderr = String::from_utf8_lossy(&report.stderr).into_owned();
    let cut = if report.stderr_truncated { Cut::Start } else { Cut::Nowhere };
    // As a whole, before all but its end is left out: half of a value would not be known for one.
    let stderr = redactor.cut_text(stderr, cut);
    let last = stderr.trim_end().char_indices().rev().nth(DETAIL - 1).map_or(0, |(at, _)| at);
    let parts = [redactor.text(report.detail.clone().unwrap_or_default()), stderr[last..].trim().to_owned()];
    let told = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    (!told.is_empty()).then_some(told)
}

/// Whether an output has to have rows for a cap to be kept.
#[derive(Clone, Copy, PartialEq)]
enum Rows {
    /// A result without them cannot be held to the cap.
    Required,
    /// An error message needs none.
    IfAny,
}

/// Whether the rows that the tool names are within the decision's cap.
fn rows_fit(tool: &Tool, obligations: &Obligations, result: &Value, rows: Rows) -> Result<(), String> {
    let (Some(cap), Some(at)) = (obligations.row_cap, tool.definition.rows.as_deref()) else { return Ok(()) };
    match result.pointer(at).and_then(Value::as_array).map(Vec::len) {
        None if rows == Rows::Required => Err(format!("the decision caps its rows, and there is no array at `{at}`")),
        Some(count) if count as u64 > cap => Err(format!("it has {count} rows and the decision allows {cap}; ask for fewer")),
        _ => Ok(()),
    }
}

fn success(tool: &Tool, obligations: &Obligations, redactor: &Redactor, report: &Report) -> Result<Value, CallError> {
    let mut result = parse(&report.stdout).map_err(|()| CallError::OutputRejected("it is not UTF-8".into()))?;
    // First: what is wrong with a result may name a part of it.
    redactor.value(&mut result);
    tool.check_output(&result).map_err(CallError::OutputRejected)?;
    rows_fit(tool, obligations, &result, Rows::Required).map_err(CallError::OutputRejected)?;
    Ok(result)
}

/// JSON if it is JSON as a request may hold it (so that everybody who reads it sees the same), text if it is any other text,
/// nothing if it is empty.
fn parse(stdout: &[u8]) -> Result<Value, ()> {
    let text = std::str::from_utf8(stdout).map_err(|_| ())?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    Ok(strict::parse(stdout).unwrap_or_else(|_| Value::String(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_json_or_text_or_nothing() {
        assert_eq!(parse(b"{\"a\":1}\n"), Ok(json!({"a": 1})));
        assert_eq!(parse(b"plain\n"), Ok(json!("plain\n")));
        assert_eq!(parse(b" \n"), Ok(Value::Null));
        assert_eq!(parse(b"\xff"), Err(()));
        // Embedded JSON stays what it is: text inside of text, without a parser of its own.
        let embedded = r#"{"$serde_json::private::RawValue": "{\"kind\": \"Secret\"}"}"#;
        assert_eq!(parse(embedded.as_bytes()), Ok(json!(embedded)));
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(parse(deep.as_bytes()), Ok(json!(deep)));
    }
}
