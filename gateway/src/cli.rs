//! The commands.

pub mod arguments;
mod backends;
pub mod tool_build;
pub mod tool_run;
