//! `json_query`: runs a jq query over a JSON document.
//!
//! The tool contract: the arguments come as JSON on standard input, the result leaves as JSON on standard output, and exit
//! code 0 is success. Nothing here bounds time or memory: a query that never ends is ended by the sandbox.

mod query;

use std::io::{self, Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut input = Vec::new();
    let answer = match io::stdin().read_to_end(&mut input) {
        Ok(_) => query::answer(&input),
        Err(error) => Err(format!("the arguments could not be read: {error}")),
    };
    let (output, code) = match answer {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(error) => (serde_json::json!({ "error": error }).to_string().into_bytes(), ExitCode::FAILURE),
    };
    match io::stdout().write_all(&output) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
