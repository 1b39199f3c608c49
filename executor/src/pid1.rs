//! The in-image side: what runs as PID 1 of a container sandbox, and starts the tool as its child.
//!
//! # Flow
//! harden -> hello -> one invocation -> accepted -> the tool runs -> everything is killed and reaped -> report -> exit
//!
//! # Guarantees
//! - What the tool may reach outside, it reaches through this process: it listens on the sandbox's loopback, and carries each
//!   connection in its frames.
//! - The tool is a child with three pipes of its own. It cannot read this process's memory, files or environment, nor write to
//!   its streams, nor end it: PID 1 is not dumpable, its streams are closed on exec, and the kernel shields it from signals.
//! - Whatever happens, this process ends: at the end of its life, at the gateway's silence, when its stream ends. The kernel then
//!   kills whatever is left in the container, so that ending needs no cooperation from anything in it.
//! - A report is sent only when nothing but this process runs any more.
//!
//! # Assumptions
//! It is PID 1 of a PID namespace that holds only it and the tool. It refuses to run as anything else, because it kills
//! everything it can see.

mod bulk;
mod call;
mod cgroup;
mod command;
mod exec;
mod faces;
mod files;
mod launch;
mod loopback;
mod notify;
mod output;
mod reap;
mod seccomp;
mod serve;
mod streams;

use std::io::Write;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

pub use command::{BULK_VARIABLE, EXECUTOR_PATH, LIFE_VARIABLE, PROCESSES_VARIABLE, entrypoint, with_life};

/// The executor's exit code when it ends before it accepted an invocation: the proof that no tool ran. A tool cannot forge it,
/// because it is the exit code of PID 1.
pub const EXIT_NOT_ACCEPTED: u8 = 64;
/// The executor's exit code when it ends after accepting, without a report.
pub const EXIT_NO_REPORT: u8 = 65;
/// The executor's exit code when its command line is wrong.
pub const EXIT_USAGE: u8 = 66;

/// What `mayfly-executor` does with its arguments (without its own name).
pub fn main(arguments: Vec<String>) -> ExitCode {
    match command::parse(arguments) {
        Ok(command::Command::Exec { processes }) => exec::exec(processes),
        Ok(command::Command::Run(options)) => run(options),
        Ok(command::Command::Version) => {
            println!("mayfly-executor {} (protocol {})", env!("CARGO_PKG_VERSION"), crate::wire::PROTOCOL);
            ExitCode::SUCCESS
        }
        Err(why) => fail(std::io::stderr(), EXIT_USAGE, &why),
    }
}

fn run(options: command::Run) -> ExitCode {
    let born = tokio::time::Instant::now();
    if !rustix::process::getpid().is_init() {
        return fail(std::io::stderr(), EXIT_USAGE, "it kills every process it can see, so it runs only as PID 1 of a container");
    }
    if let Err(error) = shield() {
        return fail(std::io::stderr(), EXIT_NOT_ACCEPTED, &format!("signals cannot be held off: {error}"));
    }
    let streams = match streams::harden() {
        Ok(streams) => streams,
        Err(error) => return fail(std::io::stderr(), EXIT_NOT_ACCEPTED, &format!("hardening failed: {error}")),
    };
    let streams::Streams { stdin, stdout, stderr } = streams;
    // Nothing here may need a second thread: the tool decides how many processes the container has left.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(stderr, EXIT_NOT_ACCEPTED, &format!("no runtime: {error}")),
    };
    match runtime.block_on(serve::serve(stdin, stdout, options, born)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(serve::Ended { accepted, why }) => {
            reap::silence();
            fail(stderr, if accepted { EXIT_NO_REPORT } else { EXIT_NOT_ACCEPTED }, &why)
        }
    }
}

/// Holds off the signals for which Rust's runtime has a handler (it looks for stack overflows with it), and which the kernel
/// therefore does not drop when a tool sends them to PID 1. A fault of our own is not held off: it still ends the process.
/// Children inherit this: [`unshield`] is for them.
fn shield() -> nix::Result<()> {
    [Signal::SIGSEGV, Signal::SIGBUS].into_iter().collect::<SigSet>().thread_block()
}

/// Holds off nothing any more: neither what [`shield`] did, nor what whoever started the container did. Neither the standard
/// library nor an exec empties the mask, and a tool is to start with an empty one.
fn unshield() -> nix::Result<()> {
    SigSet::all().thread_unblock()
}

/// Last words, for the operator. Never anything of the call.
fn fail(mut stderr: impl Write, code: u8, why: &str) -> ExitCode {
    let _ = writeln!(stderr, "mayfly-executor: {why}");
    ExitCode::from(code)
}
