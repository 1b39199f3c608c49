//! What commands print: text for people, JSON or YAML for programs.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use super::{Exit, Failure};

/// The form of a command's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

impl Format {
    /// `value` in this form; `text` makes the text.
    ///
    /// # Errors
    /// When the value has no such form.
    pub fn render<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<String, Failure> {
        let impossible =
            |error: &dyn std::fmt::Display| Failure::new(Exit::ToolFailed, format!("this cannot be written: {error}"));
        match self {
            Self::Text => Ok(text(value)),
            Self::Json => serde_json::to_string_pretty(value).map_err(|error| impossible(&error)),
            Self::Yaml => serde_saphyr::to_string(value).map_err(|error| impossible(&error)),
        }
    }
}

/// Prints to standard output, with one line break at the end. On a terminal, what could command it is taken out.
///
/// # Errors
/// When standard output is closed.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() { harmless(text) } else { Cow::Borrowed(text) };
    let line_break = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write!(stdout, "{text}{line_break}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(Exit::ToolFailed, format!("nothing could be printed: {error}")))
}

/// Prints to standard error, as [`print`] does. That it cannot be printed there could be told nowhere.
pub fn note(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let text = if stderr.is_terminal() { harmless(text) } else { Cow::Borrowed(text) };
    let _ = writeln!(stderr, "{}", text.trim_end_matches('\n'));
}

/// `text` without control characters other than line breaks and tabs: tools write what they like, terminals obey it.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let commands = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(commands) { Cow::Owned(text.replace(commands, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Rows as aligned columns under `titles`.
pub fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([titles[column].len()]).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let lines = rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    std::iter::once(line(titles)).chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_value_three_forms() {
        let value = json!({"name": "a", "list": [1, "yes", null], "text": "two\nlines"});
        let text = |_: &serde_json::Value| "text".to_owned();
        assert_eq!(Format::Text.render(&value, text).unwrap(), "text");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&Format::Json.render(&value, text).unwrap()).unwrap(), value);
        let yaml = Format::Yaml.render(&value, text).unwrap();
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), value, "{yaml}");
        assert!(!yaml.starts_with('{'), "{yaml}");
    }

    #[test]
    fn a_terminal_is_not_commanded() {
        assert_eq!(harmless("a\tb\n"), "a\tb\n");
        assert_eq!(harmless("\u{1b}[31mred\r\u{9b}x"), "\u{fffd}[31mred\u{fffd}\u{fffd}x");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "N"], &rows), "NAME  N\na     1\nlong");
    }
}
