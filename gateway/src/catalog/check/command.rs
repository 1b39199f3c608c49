//! What the check insists on in `executor.command`.

use serde_json::Value;

use super::policy::present;
use crate::catalog::command::{Element, read};
use crate::document::{Document, Problem};

/// Every mistake in it.
pub(super) fn check(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    let elements = document.value.pointer("/executor/command").and_then(Value::as_array);
    let root = document.value.get("input_schema").unwrap_or(&Value::Null);
    for (index, element) in elements.into_iter().flatten().enumerate() {
        let Some(text) = element.as_str() else { continue };
        let at = format!("/executor/command/{index}");
        if text.contains('\0') {
            problems.push(document.error(&at, "has a NUL character", "text without NUL"));
        }
        if text.is_empty() && index == 0 {
            problems.push(document.error(&at, "is empty", "the program to run"));
        }
        match read(text) {
            Element::Literal(_) => {}
            Element::Torn => problems.push(document.error(
                &at,
                "has a placeholder among other text",
                "`{/pointer}` as a whole element: `[--name, \"{/name}\"]`, not `[\"--name={/name}\"]`",
            )),
            Element::Placeholder(_) if index == 0 => {
                problems.push(document.error(
                    &at,
                    "lets an argument choose the program",
                    "a program by name; placeholders come after it",
                ));
            }
            Element::Placeholder(pointer) => {
                if let Some(promise) = present(document, root, &at, pointer, &mut problems)
                    && promise.scalar().is_none()
                {
                    let what = format!("fills in `{pointer}`, which has not one scalar type");
                    problems.push(document.error(
                        &at,
                        what,
                        "an argument with `type` string, integer, number or boolean, and never null",
                    ));
                }
            }
        }
    }
    problems
}
