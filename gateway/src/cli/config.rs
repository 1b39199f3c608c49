//! `mayfly config`: looks at a configuration without starting anything.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;

use super::Exit;
use crate::config::Config;

/// The verbs of `mayfly config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration file and name every mistake at once
    Check {
        /// The file; left out: what `mayfly serve` would take
        file: Option<PathBuf>,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

impl ConfigCommand {
    /// Does it; answers with the exit code.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn run(self, out: &mut dyn Write) -> std::io::Result<Exit> {
        match self {
            Self::Check { file } => match Config::load(file.as_deref()) {
                Ok(_) => {
                    writeln!(out, "ok")?;
                    Ok(Exit::Ok)
                }
                Err(error) => {
                    writeln!(out, "{error}")?;
                    Ok(Exit::Invalid)
                }
            },
            Self::Schema => {
                writeln!(out, "{:#}", crate::document::schema_of::<Config>())?;
                Ok(Exit::Ok)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Exit, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mayfly.yaml");
        std::fs::write(&file, text).unwrap();
        let mut out = Vec::new();
        let code = ConfigCommand::Check { file: Some(file) }.run(&mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_file_is_ok_and_a_bad_one_is_invalid() {
        assert_eq!(check("listen: 127.0.0.1:1\n"), (Exit::Ok, "ok\n".to_owned()));
        let (code, told) = check("listen: here\nlog: {format: xml}\n");
        assert_eq!((code, told.lines().count()), (Exit::Invalid, 2), "{told}");
    }
}
