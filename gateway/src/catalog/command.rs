//! The argument vector of a tool: literals, and placeholders that each become exactly one element.

use serde_json::Value;

use crate::error::Violation;

/// One element of `executor.command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// As it stands.
    Literal(&'a str),
    /// `{/pointer}`: the argument there.
    Placeholder(&'a str),
    /// A placeholder among other text, which the check refuses.
    Torn,
}

/// Reads one element. Braces without a slash right after them (`{.items}`) are text.
pub(super) fn read(element: &str) -> Element<'_> {
    match element.strip_prefix('{').and_then(|e| e.strip_suffix('}')) {
        Some(pointer) if pointer.starts_with('/') && !pointer.contains(['{', '}']) => Element::Placeholder(pointer),
        _ if element.contains("{/") => Element::Torn,
        _ => Element::Literal(element),
    }
}

/// Fills the placeholders. There is no shell, so a value cannot become two elements or a command; what it could become is
/// an option, so a value that starts with `-` is taken only after a literal `--`.
///
/// # Errors
/// The argument that cannot be put there.
pub(super) fn fill(command: &[String], arguments: &Value) -> Result<Vec<String>, Violation> {
    let mut options_end = false;
    let mut filled = Vec::with_capacity(command.len());
    for element in command {
        filled.push(match read(element) {
            Element::Placeholder(pointer) => argument(arguments, pointer, options_end)?,
            Element::Literal(text) => {
                options_end |= text == "--";
                text.to_owned()
            }
            Element::Torn => return Err(violation("", "the tool's command has a placeholder among other text")),
        });
    }
    Ok(filled)
}

fn argument(arguments: &Value, pointer: &str, options_end: bool) -> Result<String, Violation> {
    let text = match arguments.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => {
            return Err(violation(
                pointer,
                "must be one text, number or boolean, because it becomes one element of a command line",
            ));
        }
    };
    if text.contains('\0') {
        return Err(violation(pointer, "must not contain NUL characters"));
    }
    if text.starts_with('-') && !options_end {
        return Err(violation(pointer, "must not start with `-`, because it could be read as an option"));
    }
    Ok(text)
}

fn violation(pointer: &str, detail: &str) -> Violation {
    Violation { pointer: pointer.to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn command(elements: &[&str], arguments: Value) -> Result<Vec<String>, String> {
        let elements: Vec<String> = elements.iter().map(ToString::to_string).collect();
        fill(&elements, &arguments).map_err(|v| format!("{}: {}", v.pointer, v.detail))
    }

    #[test]
    fn a_placeholder_is_one_whole_element() {
        assert_eq!(
            command(
                &["kubectl", "get", "{/kind}", "-n", "{/ns}", "-o", "{.items}", "{/n}"],
                json!({"kind": "deployment; rm -rf /", "ns": "a b", "n": 3})
            ),
            Ok(["kubectl", "get", "deployment; rm -rf /", "-n", "a b", "-o", "{.items}", "3"].map(String::from).to_vec())
        );
        assert_eq!(read("--name={/name}"), Element::Torn);
        assert_eq!(read("{/a}{/b}"), Element::Torn);
    }

    #[test]
    fn a_value_does_not_become_an_option() {
        for value in [json!("-x"), json!("--output=/etc/passwd"), json!(-5)] {
            assert!(command(&["git", "log", "{/ref}"], json!({"ref": value})).unwrap_err().contains("option"), "{value}");
        }
        assert_eq!(command(&["grep", "--", "{/text}"], json!({"text": "-x"})).unwrap()[2], "-x");
    }

    #[test]
    fn nul_and_what_is_not_a_scalar_are_refused() {
        assert!(command(&["a", "{/x}"], json!({"x": "a\0b"})).unwrap_err().contains("NUL"));
        for wrong in [json!({}), json!({"x": null}), json!({"x": [1]}), json!({"x": {}})] {
            assert!(command(&["a", "{/x}"], wrong.clone()).is_err(), "{wrong}");
        }
    }
}
