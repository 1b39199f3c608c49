//! The commands. Each is a `clap` type with a `run` that answers with an [`Exit`] or a [`Failure`]; nothing here decides
//! anything that a gateway decides.

pub mod agent;
pub mod arguments;
pub mod call;
pub mod client;
pub mod exit;
pub mod output;
pub mod tool_list;
pub mod waterfall;

pub use exit::{Exit, Failure};
