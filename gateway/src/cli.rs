//! The commands.

pub mod arguments;
pub mod tool_build;
// pub mod tool_run;
//! The commands of `mayfly`, one file each. They only translate: what they do is in the rooms.

pub mod config;
pub mod exit;
pub mod tool;
