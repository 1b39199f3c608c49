//! PID 1 of a container sandbox. Static, small, and nothing but an entry to [`mayfly_executor::pid1`].

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    mayfly_executor::pid1::main(std::env::args().skip(1).collect())
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("mayfly-executor runs in Linux containers only");
    ExitCode::FAILURE
}
