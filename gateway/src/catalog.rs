//! The catalog: every tool there is, loaded from folders, checked, and never half loaded.

mod arguments;
pub mod definition;
mod tool;

pub use arguments::Arguments;
pub use tool::{Tool, Unavailable};
