//! What is insisted on before a definition becomes a tool. Every mistake is named at once.
//!
//! Policy compares what it is given, and Rego orders values of all types (`null <= 10` is true there). So the check does
//! not let an argument reach policy that can be missing, null, of another type or without bounds, and it does not let a
//! schema take members that nobody described. The checks read the document leniently: a mistake in one place does not
//! hide the mistakes in another.

mod command;
mod executor;
mod policy;
mod schema;

use std::path::PathBuf;

use serde_json::Value;
use time::Date;

use super::definition::{Definition, shape};
use crate::document::{Document, Problem};

pub(super) use executor::is_digest;
pub(super) use schema::validator;

/// What the check goes by beside the definition itself.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Host folders of which tools may be shown a part.
    pub allowed_mounts: Vec<PathBuf>,
    /// Today, for `review_by`.
    pub today: Date,
}

impl Rules {
    /// The rules as of now.
    pub fn now(allowed_mounts: &[PathBuf]) -> Self {
        Self { allowed_mounts: allowed_mounts.to_owned(), today: time::OffsetDateTime::now_utc().date() }
    }
}

/// Checks a document. There is a definition exactly when no problem is an error.
pub(super) fn check(document: &Document, rules: &Rules) -> (Option<Definition>, Vec<Problem>) {
    let mut problems = match shape() {
        Ok(shape) => shape.check(document),
        Err(fault) => vec![document.error("", format!("cannot be checked: {fault}"), "")],
    };
    let shaped = problems.is_empty();
    problems.extend(dates(document, rules.today));
    problems.extend(schema::check(document));
    problems.extend(policy::check(document));
    problems.extend(command::check(document));
    problems.extend(executor::check(document, rules));
    let mut definition = None;
    if shaped && !problems.iter().any(Problem::is_error) {
        match serde_json::from_value::<Definition>(document.value.clone()) {
            Ok(read) => definition = Some(read),
            Err(e) => problems.push(document.error("", format!("cannot be read: {e}"), "")),
        }
    }
    problems.sort_by(|a, b| (a.line, &a.key, &a.what).cmp(&(b.line, &b.key, &b.what)));
    (definition, problems)
}

fn dates(document: &Document, today: Date) -> Vec<Problem> {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    let Some(text) = document.value.get("review_by").and_then(Value::as_str) else { return Vec::new() };
    match Date::parse(text, format) {
        Err(_) if text.len() == 10 => {
            vec![document.error("/review_by", format!("is `{text}`, which is no date"), "a date that exists, YYYY-MM-DD")]
        }
        Ok(date) if date < today => {
            vec![document.warning(
                "/review_by",
                format!("was on {text}: the tier is due for another look"),
                "a date to come, once somebody has looked",
            )]
        }
        _ => Vec::new(),
    }
}
