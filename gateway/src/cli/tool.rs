//! `mayfly tool`: what somebody who writes tools needs without a gateway.

mod check;
mod new;

use std::io::Write;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::Exit;
use crate::catalog::definition;

/// The verbs of `mayfly tool`.
#[derive(Debug, Subcommand)]
pub enum ToolCommand {
    /// Make the folder of a new tool, ready to build
    New {
        /// The folder, such as images/hello; its last part becomes the tool's name
        dir: PathBuf,
        /// What the tool runs in
        #[arg(long, value_enum, default_value_t = Kind::Wasm)]
        kind: Kind,
    },
    /// Check tool definitions and name every mistake at once
    Check {
        /// Folders of tools, or folders of such folders
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// A host folder that tools may be shown; as `allowed_mounts` in the configuration
        #[arg(long = "allow-mount", value_name = "DIR")]
        allowed_mounts: Vec<PathBuf>,
    },
    /// Print the JSON Schema of tool.yaml, for editors
    Schema,
}

/// What a new tool runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A Rust crate, built for WebAssembly
    Wasm,
    /// A Dockerfile
    Docker,
}

impl ToolCommand {
    /// Does it; answers with the exit code.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn run(self, out: &mut dyn Write) -> std::io::Result<Exit> {
        match self {
            Self::New { dir, kind } => new::run(&dir, kind, out),
            Self::Check { dirs, allowed_mounts } => check::run(&dirs, &allowed_mounts, out),
            Self::Schema => {
                writeln!(out, "{:#}", definition::schema())?;
                Ok(Exit::Ok)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_json() {
        let mut out = Vec::new();
        assert_eq!(ToolCommand::Schema.run(&mut out).unwrap(), Exit::Ok);
        let schema: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(schema["required"].as_array().unwrap().len(), 11);
    }
}
