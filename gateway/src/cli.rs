//! The commands. Each is a `clap` type with a `run` that answers with an [`Exit`] or a [`Failure`]; nothing here decides
//! anything that a gateway decides.

pub mod agent;
pub mod arguments;
pub mod backends;
pub mod call;
pub mod client;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod output;
pub mod policy;
pub mod serve;
pub mod tool;
pub mod tool_build;
pub mod tool_list;
pub mod tool_run;
pub mod waterfall;

pub use exit::{Exit, Failure};
