//! What every backend promises, as one suite of checks that each of them passes.
//!
//! A backend's tests bring [`Fixtures`]: for each [`Scenario`] a spec and a command that runs the conformance tool (its source is
//! `examples/conformance_tool/main.rs`, for containers and for wasm alike) with the scenario's name as its argument.
//!
//! That a sandbox cannot be used twice needs no check: [`Sandbox::invoke`](crate::Sandbox::invoke) takes it by value.

mod bench;
mod checks;
mod hostile;

use std::fmt;

use crate::Backend;
use crate::spec::{BackendKind, SandboxSpec};

/// What the conformance tool is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scenario {
    /// Writes `{"echo": <standard input>}`.
    Echo,
    /// Writes a line, two lines of progress and another line to standard error, then a byte that is no UTF-8 to standard output.
    Lines,
    /// Says why on standard error and exits with 7.
    Exit,
    /// Loops for ever.
    Spin,
    /// Sleeps for ever.
    Sleep,
    /// Touches memory until it is stopped.
    Memory,
    /// Writes to standard output until it is stopped.
    Flood,
    /// Writes 20 MiB to standard output: more than a frame holds.
    Large,
    /// Tries to connect to addresses inside and outside of the host.
    Network,
    /// Lists its environment, and tries to read and write outside of its own space.
    Look,
    /// Never reads its standard input.
    Deaf,
    /// Leaves a process behind that holds its streams (containers).
    Daemon,
    /// Writes frames of the wire to standard output and wherever it finds the executor's (containers).
    Forge,
    /// Signals its parent and tries to look into it (containers).
    Parent,
    /// Fills `/tmp` (containers).
    Disk,
    /// Starts processes until it may not, then for a while on (containers).
    Forks,
    /// A program that is not there (containers).
    Missing,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Echo,
        Self::Lines,
        Self::Exit,
        Self::Spin,
        Self::Sleep,
        Self::Memory,
        Self::Flood,
        Self::Large,
        Self::Network,
        Self::Look,
        Self::Deaf,
        Self::Daemon,
        Self::Forge,
        Self::Parent,
        Self::Disk,
        Self::Forks,
        Self::Missing,
    ];

    /// The conformance tool's argument.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Lines => "lines",
            Self::Exit => "exit",
            Self::Spin => "spin",
            Self::Sleep => "sleep",
            Self::Memory => "memory",
            Self::Flood => "flood",
            Self::Large => "large",
            Self::Network => "network",
            Self::Look => "look",
            Self::Deaf => "deaf",
            Self::Daemon => "daemon",
            Self::Forge => "forge",
            Self::Parent => "parent",
            Self::Disk => "disk",
            Self::Forks => "forks",
            Self::Missing => "missing",
        }
    }

    /// Whether it is a program's to do, and no module's.
    pub const fn containers_only(self) -> bool {
        matches!(self, Self::Daemon | Self::Forge | Self::Parent | Self::Disk | Self::Forks | Self::Missing)
    }
}

/// A sandbox to run a scenario in, and how.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The sandbox. Its memory is at least 32 MiB and at most 256 MiB, its scratch space a quarter of that at most, its processes
    /// at most 64.
    pub spec: SandboxSpec,
    /// The program and its arguments; empty: what the image or module runs.
    pub command: Vec<String>,
}

/// What a backend brings to the suite.
pub trait Fixtures: Send + Sync {
    /// The sandbox and command of a scenario. Asked for those of [`Scenario::containers_only`] by containers alone.
    fn fixture(&self, scenario: Scenario) -> Fixture;

    /// Whether the kernel tells that a sandbox ran into its process limit. Where the limit is the user's and not the sandbox's
    /// control group's, it bites and is not told.
    fn tells_processes(&self) -> bool {
        true
    }
}

/// A promise that was not kept.
#[derive(Debug)]
pub struct Broken {
    /// The check.
    pub check: &'static str,
    /// What happened instead.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.why)
    }
}

/// Runs every check against `backend`, all to the end. Returns the names of those that passed.
///
/// # Errors
/// Every promise that was not kept.
pub async fn run_all(backend: &dyn Backend, fixtures: &dyn Fixtures) -> Result<Vec<&'static str>, Vec<Broken>> {
    let bench = bench::Bench::new(backend, fixtures);
    let (mut passed, mut broken) = (vec![], vec![]);
    let mut note = |check, result: Result<(), String>| match result {
        Ok(()) => passed.push(check),
        Err(why) => broken.push(Broken { check, why }),
    };
    checks::run(&bench, &mut note).await;
    if backend.kind() != BackendKind::Wasm {
        hostile::run(&bench, &mut note).await;
    }
    note("nothing is listed afterwards", bench.nothing_left().await);
    if broken.is_empty() { Ok(passed) } else { Err(broken) }
}
