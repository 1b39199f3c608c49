//! What a command's exit code says, the same for every command.

/// It did what was asked.
pub const OK: u8 = 0;
/// The tool ran and failed.
pub const TOOL_FAILED: u8 = 1;
/// The command line was wrong, or what it names cannot be used.
pub const USAGE: u8 = 2;
/// Policy does not allow it.
pub const DENIED: u8 = 3;
/// There is no such thing.
pub const NOT_FOUND: u8 = 4;
/// What was given is not valid.
pub const INVALID: u8 = 5;
/// It waits for a human's approval.
pub const AWAITING_APPROVAL: u8 = 6;
/// The gateway does not answer.
pub const UNREACHABLE: u8 = 7;
