//! The commands.

pub mod arguments;
pub mod tool_build;
// pub mod tool_run;
