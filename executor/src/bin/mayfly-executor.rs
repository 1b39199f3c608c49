//! PID 1 of a container sandbox. Static, small, and nothing but an entry to [`mayfly_executor::pid1`].

use std::process::ExitCode;

/// Keeps what is freed: musl's own gives every buffer of a frame back to the kernel, and asks for it anew.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    mayfly_executor::pid1::main(std::env::args().skip(1).collect())
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("mayfly-executor runs in Linux containers only");
    ExitCode::FAILURE
}
