//! The sandbox side of Mayfly: the backends that sandboxes come from, the wire that reaches into them, and the
//! dispatcher and reaper that see to it that every one of them ends.
//!
//! This crate knows nothing of agents, policy or HTTP. It is given an [`Order`] and answers with a
//! [`Report`](wire::Report). Without features it is what the in-image executor needs (the wire, and `pid1`); `dispatch` adds
//! the gateway's side, and `wasm` and `docker` add a backend each.

pub mod error;
pub mod frame;
#[cfg(target_os = "linux")]
pub mod pid1;
pub mod seal;
pub mod spec;
pub mod tunnel;
pub mod wire;

#[cfg(feature = "dispatch")]
mod backend;
#[cfg(feature = "dispatch")]
pub mod conformance;
#[cfg(feature = "dispatch")]
pub mod egress;
#[cfg(any(feature = "docker", feature = "kubernetes"))]
mod labels;
#[cfg(feature = "dispatch")]
mod lifecycle;
#[cfg(feature = "dispatch")]
pub mod pool;
#[cfg(feature = "dispatch")]
pub mod reaper;
#[cfg(feature = "dispatch")]
pub mod run;
#[cfg(feature = "dispatch")]
pub mod session;

#[cfg(feature = "docker")]
pub mod docker;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "wasm")]
pub mod wasm;

#[cfg(feature = "dispatch")]
pub use backend::{Backend, Event, Found, Host, InstanceId, Sandbox, SandboxId, SandboxLedger, SandboxRow};
#[cfg(feature = "dispatch")]
pub use lifecycle::Counts;
#[cfg(feature = "dispatch")]
pub use run::{Dispatcher, Failure, Order};
pub use spec::BackendKind;
