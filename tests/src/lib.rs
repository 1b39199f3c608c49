//! What the promises and the benchmarks share: a real gateway in a process of its own, and a table of figures.
#![expect(clippy::expect_used, clippy::panic, reason = "test support: a surprise is a failure")]

pub mod bench;
pub mod harness;
pub mod load;
