//! `http_probe`: asks one URL and says what came back.
//!
//! The tool contract: the arguments come as JSON on standard input, the result leaves as JSON on standard output, and exit
//! code 0 is success. Where the request may go is the sandbox's to say: a destination that `tool.yaml` does not list is
//! refused by the gateway, whatever is asked here.

mod probe;
#[cfg(target_family = "wasm")]
mod transport;

use std::io::{self, Read, Write};
use std::process::ExitCode;

/// The host has no `wasi:http`; only the tests of what needs no network run there.
#[cfg(not(target_family = "wasm"))]
mod transport {
    use crate::probe::{Arguments, Response};

    pub fn send(_: &Arguments) -> Result<Response, String> {
        Err("this program runs as a component: build it for wasm32-wasip2".into())
    }
}

fn main() -> ExitCode {
    let mut input = Vec::new();
    let answer = io::stdin()
        .read_to_end(&mut input)
        .map_err(|error| format!("the arguments could not be read: {error}"))
        .and_then(|_| probe::Arguments::parse(&input))
        .and_then(|arguments| Ok(probe::judge(&arguments, &transport::send(&arguments)?)));
    let (output, code) = match answer {
        Ok(result) => (result.to_string(), ExitCode::SUCCESS),
        Err(error) => (serde_json::json!({ "error": error }).to_string(), ExitCode::FAILURE),
    };
    match io::stdout().write_all(output.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
