//! How a command ends.

use std::fmt;
use std::process::ExitCode;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything went as asked.
    Ok = 0,
    /// The tool failed, was killed or was canceled.
    ToolFailed = 1,
    /// The command line makes no sense (clap's code, too).
    Usage = 2,
    /// Refused: no valid key, or policy says no.
    Denied = 3,
    /// There is no such thing.
    NotFound = 4,
    /// The input is not what is taken.
    Invalid = 5,
    /// The call waits for a human.
    AwaitingApproval = 6,
    /// No gateway answers, or it cannot serve at the moment.
    Unreachable = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked to. `Display` is for standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
