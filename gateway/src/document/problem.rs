//! One mistake in a file: where it is, what is wrong, and what is accepted instead.

use std::fmt;
use std::path::{Path, PathBuf};

use super::tokens;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken; somebody should look.
    Warning,
}

/// One mistake. `Display` is the line `file:line: key what; accepted: ...`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; 0 where the file as a whole is meant.
    pub line: u64,
    /// The key as people write it, `executor.timeout`; empty for the file as a whole.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// What is accepted there.
    pub accepted: String,
    /// Whether the file is refused for it.
    pub severity: Severity,
}

impl Problem {
    /// An error. `pointer` is a JSON Pointer into the file.
    pub fn error(file: &Path, line: u64, pointer: &str, what: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            key: key_of(pointer),
            what: what.into(),
            accepted: accepted.into(),
            severity: Severity::Error,
        }
    }

    /// Whether the file is refused for it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}", self.key)?;
        }
        write!(f, " {}", self.what)?;
        if self.accepted.is_empty() { Ok(()) } else { write!(f, "; accepted: {}", self.accepted) }
    }
}

/// `/a/b/0` as `a.b[0]`. A key that would be misread is quoted.
fn key_of(pointer: &str) -> String {
    let mut key = String::new();
    for token in tokens(pointer).unwrap_or_default() {
        if !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit()) {
            key.push_str(&format!("[{token}]"));
            continue;
        }
        if !key.is_empty() {
            key.push('.');
        }
        let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$'));
        key.push_str(&if plain { token } else { format!("{token:?}") });
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line() {
        let problem = Problem::error(Path::new("images/x/tool.yaml"), 7, "/command/0/a.b", "is wrong", "right");
        assert_eq!(problem.to_string(), "images/x/tool.yaml:7: command[0].\"a.b\" is wrong; accepted: right");
        let warning = Problem { severity: Severity::Warning, line: 0, key: String::new(), accepted: String::new(), ..problem };
        assert_eq!(warning.to_string(), "images/x/tool.yaml: warning: is wrong");
    }
}
