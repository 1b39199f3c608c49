//! The commands of `mayfly`, one file each. They only translate: what they do is in the rooms.

pub mod config;
pub mod exit;
pub mod tool;
